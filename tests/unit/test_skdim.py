"""Estimators of scikit-dimension by name: as it computes them, on the rows of the neighbor family, and never fatal."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from layers import layer_of
from scipy.stats import t
from test_gather import SITES, activations  # noqa: F401 (a fixture)
from test_study import refusal_of, root, study_of  # noqa: F401 (a fixture)

from lmshape.errors import InputError
from lmshape.metrics import neighbor, skdim
from lmshape.metrics.block import measure, measured_family
from lmshape.metrics.layer import Layer
from lmshape.metrics.registry import METRICS, added_metrics, describe, families_of, metric_names, select
from lmshape.metrics.skdim import ABOUT, core_seconds, measured_skdim, named, problems
from lmshape.study.costs import measuring_seconds
from lmshape.tables.gather import gather
from lmshape.texts.tokens import Sampling

pytestmark = pytest.mark.slow

DRAWS, ROWS, WIDTH = 3, 60, 6
FAILED = "no estimate from 50 rows: "  # of those that `layer` takes of a draw
OPTIONS = {"DANCo": "(D=8, k=5)", "ESS": "(n_neighbors=15)", "PH": "(nsteps=4, subsamples=2)"}  # cheap ones
NAMES = [f"skdim.{name}{OPTIONS.get(name, '')}" for name in ABOUT]


def cloud() -> np.ndarray:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((DRAWS * ROWS, WIDTH)) * np.geomspace(1, 4, WIDTH)).astype(np.float32)
    x[5] = x[9]
    return x


def layer(x: np.ndarray, rows_per_draw: int | None = 50) -> Layer:
    return layer_of(x, np.arange(len(x)) * DRAWS // len(x), rows_per_draw=rows_per_draw)


def taken(x: np.ndarray, draw: int) -> np.ndarray:
    """The first 50 unique rows of a draw."""
    own = x[draw * ROWS : (draw + 1) * ROWS].astype(np.float64)
    _, first = np.unique(own, axis=0, return_index=True)
    return own[np.sort(first)][:50]


def measured(*names: str, x: np.ndarray | None = None, **options: int) -> tuple[dict, dict]:
    return measured_skdim(names).statistics(layer(cloud() if x is None else x, **options))["all"]


@pytest.fixture(scope="module")
def found() -> tuple[dict[str, np.ndarray], dict[str, str]]:
    return measured(*NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_an_estimate_is_what_scikit_dimension_makes_of_the_rows_of_each_draw(name: str, found: tuple) -> None:
    import skdim.id

    (one,) = named([name]).values()
    given = (
        {"random_state": 0} if name.startswith(("skdim.DANCo", "skdim.ESS", "skdim.KNN", "skdim.PH")) else {}
    )
    of_fit = {key: value for key, value in one.options.items() if key == "n_neighbors"}
    of_class = {key: value for key, value in one.options.items() if key != "n_neighbors"} | given
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = [
            getattr(skdim.id, one.estimator)(**of_class).fit(taken(cloud(), draw), **of_fit).dimension_
            for draw in range(DRAWS)
        ]
    arrays, attributes = found
    np.testing.assert_array_equal(arrays[one.name], expected)
    assert attributes["flag"] == ""
    (metric,) = select([name])
    estimate = metric.compute(arrays)
    half = t.ppf(0.975, DRAWS - 1) * np.std(expected, ddof=1) / np.sqrt(DRAWS)
    assert estimate.value == pytest.approx(np.mean(expected), rel=1e-12) and 0.5 < estimate.value < 20
    assert estimate.high - estimate.value == pytest.approx(half, rel=1e-7)
    assert metric.name == one.name and all(describe([metric])[-1].values())


def test_every_estimator_is_described() -> None:
    assert set(ABOUT) == set(skdim._classes())
    (metric,) = skdim.metrics(["skdim.Later(k=3)"])
    assert metric.definition.startswith("Later(k=3) of scikit-dimension: not described here")


def test_nothing_depends_on_the_state_of_the_random_numbers(found: tuple) -> None:
    np.random.seed(5)
    before = np.random.get_state()[1].copy()
    names = [name for name in NAMES if name.startswith(("skdim.ESS", "skdim.KNN", "skdim.PH"))]
    arrays, _ = measured(*names)
    for name in arrays:
        np.testing.assert_array_equal(arrays[name], found[0][name])
    np.testing.assert_array_equal(np.random.get_state()[1], before)


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("skdim.TwoNN", "id_twonn_fit"),
        ("skdim.TwoNN(discard_fraction=0, method=mle)", "id_twonn"),
        ("skdim.MLE(comb=mle)", "id_mle"),
        ("skdim.MLE(unbiased=True, comb=median)", "id_local_median"),
        ("skdim.MADA(comb=median)", "id_mada"),
        ("skdim.GRIDE(n1=2)", "id_gride_4"),
    ],
)
def test_our_estimators_are_theirs_on_the_same_rows(name: str, own: str) -> None:
    arrays, _ = measured(name)
    ours, _ = neighbor.statistics(layer(cloud()))["all"]
    (metric,) = select([name])
    mine, theirs = METRICS[own].compute(ours), metric.compute(arrays)
    assert (mine.value, mine.high) == pytest.approx((theirs.value, theirs.high), rel=1e-9)


def test_the_rows_are_capped_and_flagged_like_those_of_neighbors() -> None:
    _, attributes = measured("skdim.MOM(n_neighbors=9)", rows_per_draw=70)
    assert attributes == {"flag": "fewer unique rows: 59 of 70 per draw"}
    assert measured_skdim(["skdim.MOM"]).chosen_rows(["all", "one_per_type"]) == ["all", "one_per_type"]


@pytest.mark.parametrize(
    ("name", "width", "reason"),
    [
        ("skdim.lPCA(ver=nonsense)", WIDTH, FAILED + "ValueError: "),
        ("skdim.MLE(comb=nonsense)", WIDTH, FAILED + "ValueError: "),
        ("skdim.DANCo(ver=DANCoFit, k=4)", WIDTH, FAILED + "ValueError: "),
        ("skdim.FisherS", 50, "All points are fully separable for any of the chosen alphas"),
        ("skdim.PH(alpha=[1, 2])", WIDTH, FAILED + "TypeError: "),
    ],
)
def test_an_estimator_that_fails_is_nan_with_the_reason(name: str, width: int, reason: str) -> None:
    x = np.random.default_rng(1).standard_normal((DRAWS * ROWS, width))
    (failing,) = named([name])
    arrays, attributes = measured(name, "skdim.lPCA", x=x)
    assert np.isnan(arrays[failing]).all() and np.isfinite(arrays["skdim.lPCA"]).all()
    assert attributes[f"flag_{failing}"].startswith(reason)
    assert attributes[f"flag_{failing}"].endswith(" (draw 0)") and "flag_skdim.lPCA" not in attributes


def test_a_warning_beside_a_number_is_its_flag() -> None:
    arrays, attributes = measured("skdim.CorrInt(k2=90)")
    assert np.isfinite(arrays["skdim.CorrInt(k2=90)"]).all()
    assert attributes["flag_skdim.CorrInt(k2=90)"].startswith("k2 larger or equal to len(X)")


def test_equal_rows_end_no_job() -> None:
    arrays, attributes = measured(*NAMES, x=np.ones((DRAWS * ROWS, WIDTH)))
    assert np.isnan(list(arrays.values())).all() and len(attributes) == len(NAMES) + 1


def test_a_lack_of_memory_does_end_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(skdim, "_fitted", full)
    with pytest.raises(MemoryError):  # the next attempt has more
        measured("skdim.lPCA")


def test_missing_has_the_same_arrays() -> None:
    family = measured_skdim(["skdim.MOM", "angular", "skdim.lPCA(ver=Fan)"])
    nothing = family.missing(rows=50, width=3, draws=4, rows_per_draw=None)
    assert list(nothing) == ["skdim.MOM", "skdim.lPCA(ver=Fan)"]
    assert all(array.shape == (4,) and np.isnan(array).all() for array in nothing.values())


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("skdim.lPCA", "skdim.lPCA"),
        ("skdim.lPCA()", "skdim.lPCA"),
        ("skdim.lPCA( ver = 'ratio',alphaRatio=.5)", "skdim.lPCA(alphaRatio=0.5, ver=ratio)"),
        ("skdim.DANCo(k=10, fractal=False, D=None)", "skdim.DANCo(D=None, fractal=False, k=10)"),
        ("skdim.lPCA(ver='a b')", "skdim.lPCA(ver='a b')"),
        ("skdim.FisherS(alphas=[[.6, 0.8]])", "skdim.FisherS(alphas=[[0.6, 0.8]])"),
    ],
)
def test_a_set_of_options_has_one_spelling(given: str, name: str) -> None:
    assert list(named([given, "angular", name])) == [name]
    assert metric_names([given, "id_mle"]) == ("id_mle", name)
    assert list(problems([given])) == []


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("skdim.CorInt", "unknown estimator of scikit-dimension `skdim.CorInt`. Nearest: skdim.CorrInt"),
        ("skdim.lPCA(vers=Fan)", "unknown option of `skdim.lPCA` `vers`. Nearest: ver"),
        ("skdim.MLE(n_neighbor=9)", "unknown option of `skdim.MLE` `n_neighbor`. Nearest: n_neighbors"),
        ("skdim.lPCA(X=3)", "unknown option of `skdim.lPCA` `X`. Valid: PFan, "),
        (
            "skdim.lPCA(ver=Fan",
            "`skdim.lPCA(ver=Fan` is not an estimator with options by name. Write it as in",
        ),
        ("skdim.lPCA('Fan')", "`skdim.lPCA('Fan')` is not an estimator with options by name"),
        ("skdim.lPCA(**x)", "`skdim.lPCA(**x)` is not an estimator with options by name"),
        ("skdim.lPCA(ver=a+b)", "`skdim.lPCA(ver=a+b)` is not an estimator with options by name"),
        ("skdim.id.lPCA", "`skdim.id.lPCA` is not an estimator with options by name"),
        ("skdim.", "`skdim.` is not an estimator with options by name"),
    ],
)
def test_what_scikit_dimension_lacks_is_refused_with_the_nearest(name: str, problem: str) -> None:
    assert [text.startswith(problem) for text in problems(["angular", name])] == [True]


def test_a_study_names_estimators(root: Path) -> None:  # noqa: F811
    study = study_of(root, metrics=["skdim.lPCA(ver=Fan)", "angular", "skdim", "skdim.MOM"])
    assert study.metrics[-2:] == ("skdim.lPCA(ver=Fan)", "skdim.MOM")
    assert study.measured_families == ("angular", "skdim")
    assert families_of(study.metrics) == ("angular", "skdim")
    told = refusal_of(root, metrics=["skdim.CorInt", "anglar"])
    assert "`skdim.CorInt`. Nearest: skdim.CorrInt" in told and "Nearest: angular" in told
    assert "`skdim` stands for the estimators of scikit-dimension" in refusal_of(root, metrics=["skdim"])
    assert "must be text" in refusal_of(root, metrics=[{"skdim.lPCA": {"ver": "Fan"}}])


def test_estimators_take_their_own_time() -> None:
    fast, slow = (core_seconds([name, "id_mle"], rows=1024, width=128) for name in ("skdim.MOM", "skdim.ESS"))
    assert fast < 5 < 60 < slow
    assert core_seconds(["skdim.MOM", "skdim.ESS"], rows=1024, width=128) == pytest.approx(fast + slow)
    sampling = Sampling(protocol="windows", window=128, draws=5, rows_per_draw=1024, seed=0)
    options = {"families": ("skdim",), "rows": ("all", "no_sink"), "sites": 3}
    seconds = [
        measuring_seconds(128, sampling, **options, threads=threads, metrics=("skdim.ESS",))
        for threads in (1, 8)
    ]
    assert seconds[0] == pytest.approx(3 * 2 * 5 * slow, rel=0.01) and seconds[0] == seconds[1]


def test_a_page_describes_the_estimators_that_a_table_holds() -> None:
    names = ["skdim.lPCA(ver=Fan)", "id_mle"]
    assert [row["name"] for row in describe(added_metrics(names, None))][-2:] == ["bits_per_byte", names[0]]


def test_the_family_without_names_is_refused() -> None:
    with pytest.raises(
        InputError, match="`skdim` stands for the estimators .* Name some, as in `skdim.CorrInt`"
    ):
        measured_family("skdim")


def test_from_activations_to_the_table(tmp_path: Path, activations: Path) -> None:  # noqa: F811
    names = ["skdim.lPCA(ver=participation_ratio)", "skdim.lPCA(ver=nonsense)"]
    family = measured_skdim(names)
    measure(activations, tmp_path / "skdim.h5", family=family, first=0, last=2, rows=["all", "no_sink"])
    gather([tmp_path / "skdim.h5"], [], tmp_path / "t.parquet", study="s", metrics=names)
    table = pq.read_table(tmp_path / "t.parquet").to_pandas()
    assert len(table) == len(SITES) * 2 * 2
    fine, failed = (table[table["metric"] == name] for name in names)
    assert fine["value"].between(fine["ci_low"], fine["ci_high"]).all() and (fine["flag"] == "").all()
    assert (
        failed["value"].isna().all()
        and failed["flag"].str.match("no estimate from [0-9]+ rows: ValueError: ").all()
    )
    with pytest.raises(
        InputError, match="the archive of the family `skdim` holds no `skdim.MOM`; measure it again"
    ):
        gather([tmp_path / "skdim.h5"], [], tmp_path / "t.parquet", study="s", metrics=["skdim.MOM"])


def test_only_a_name_imports_scikit_dimension() -> None:
    code = (
        "import sys; from lmshape.metrics.registry import select; from lmshape.metrics.skdim import problems\n"
        "list(problems(['angular'])), select(['skdim.lPCA']); print('skdim' in sys.modules, 'numba' in sys.modules)\n"
        "list(problems(['skdim.lPCA'])); print('skdim' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\nTrue\n"
