"""A user's functions become metrics: read without being run, run with intervals, refused in sentences."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from scipy.stats import t
from test_gather import ROOT, SITES, WIDTH, activations  # noqa: F401 (a fixture)
from test_study import refusal_of, root, study_of  # noqa: F401 (a fixture)

from lmshape.errors import InputError
from lmshape.metrics.block import measure, measured_family
from lmshape.metrics.layer import Layer
from lmshape.metrics.own import Declaration, load_own, measured_own, metric, read_own
from lmshape.metrics.registry import (
    describe,
    family_and_metric_names,
    metric_names,
    own_metrics,
    select,
)
from lmshape.store.activations import Rows
from lmshape.store.statistics import read_statistics
from lmshape.study.registry import REPOSITORY
from lmshape.tables.gather import gather

FILE = '''
"""Metrics of mine."""
import numpy as np
from numpy.linalg import norm
from lmshape.metrics.own import metric

MOST = 3.0

def kurtosis_max(x):
    """Largest kurtosis of a coordinate.

    And how.
    """
    return _moment(x, 4).max()

@metric(interval="draws", range="[0, 1]", low=0, high=1, null="0.5", source="a paper")
def positive_share(x):
    """Share of the entries over 0."""
    return np.mean(x > 0)

def undescribed(x, *, power=2):
    return float(len(x)) ** power

def _moment(x, order):
    centered = x - x.mean(axis=0)
    return (centered**order).mean(axis=0) / (centered**2).mean(axis=0) ** (order / 2)
'''
NAMES = ("kurtosis_max", "positive_share", "undescribed")


def written(folder: Path, text: str = FILE) -> Path:
    path = folder / "mine.py"
    path.write_text(text)
    return path


def own_layer(x: np.ndarray, draws: int = 5, mask: np.ndarray | None = None) -> Layer:
    n = len(x)
    kept = {"all": np.ones(n, dtype=bool)} | ({} if mask is None else {"no_sink": mask})
    return Layer(
        rows=Rows(x),
        other=None,
        draw=np.arange(n) * draws // n,
        sequence=np.arange(n) // 10,
        kept=kept,
        rows_per_draw=dict.fromkeys(kept),
    )


def test_the_names_are_read_without_running_anything(tmp_path: Path) -> None:
    path = written(tmp_path, FILE + "\nraise SystemExit('was run')\n")
    own = read_own(path, named="mine.py", taken=family_and_metric_names())
    assert (own.path, own.names) == ("mine.py", NAMES)
    assert own.fingerprint == read_own(path).fingerprint


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        ("MOST = 3.0", "MOST = 3.0  # a comment", False),
        ("Largest kurtosis of a coordinate", "Something else", False),
        ("MOST = 3.0", "MOST = 4.0", True),
        ("_moment(x, 4)", "_moment(x, 6)", True),
    ],
)
def test_the_fingerprint_is_of_the_syntax_tree(tmp_path: Path, old: str, new: str, changes: bool) -> None:
    before = read_own(written(tmp_path)).fingerprint
    after = read_own(written(tmp_path, FILE.replace(old, new))).fingerprint
    assert (before != after) is changes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n\ndef f(x:\n", r"not Python on line 3 \(.*\). Correct it"),
        ("\0", "not Python"),
        (
            "from numpy import mean\ndef _hidden(x): return 1\nclass A: pass\n",
            "no public function stands in it",
        ),
        (
            "def anisotropy(x): return 1",
            "`anisotropy` is a metric or family of lmshape's, or an axis of its archives. Give the function another",
        ),
        ("def neighbor(x): return 1", "`neighbor` is a metric or family"),
        ("def own(x): return 1", "`own` is a metric or family"),
        ("def draw(x): return 1", "`draw` is a metric or family of .*, or an axis"),
        ("def f(): return 1", r"`f` on line 1 cannot be called with the rows x alone. Write `def f\(x\)`"),
        ("def f(x, y): return 1", "`f` on line 1 cannot be called"),
        ("def f(x, *, y): return 1", "`f` on line 1 cannot be called"),
        ("def f(*, x): return 1", "`f` on line 1 cannot be called"),
        ("async def f(x): return 1", "`f` on line 1 cannot be called"),
        ("def loss(x): return 1\ndef g(): return 1", "`loss` is a metric .* `g` on line 2 cannot be called"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=f"`own_metrics` = '.*mine.py': {message}"):
        read_own(written(tmp_path, text), taken=family_and_metric_names())


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`own_metrics` = '.*none.py': no such file in .*. Correct the path"):
        read_own(tmp_path / "none.py")
    with pytest.raises(
        InputError, match=f"`own_metrics` = '{tmp_path}': a folder. Name the Python file in it"
    ):
        read_own(tmp_path)


@pytest.mark.parametrize("arguments", ["x", "x, y=1", "*x", "x, /", "x, *, y=1", "*x, **y"])
def test_whatever_can_be_called_with_the_rows_is_a_metric(tmp_path: Path, arguments: str) -> None:
    assert read_own(written(tmp_path, f"def f({arguments}): return 1")).names == ("f",)


def test_the_table_has_what_the_functions_say(tmp_path: Path) -> None:
    own = own_metrics(written(tmp_path))
    rows = {row["name"]: row for row in describe(own)}
    assert rows["kurtosis_max"] == {
        "name": "kurtosis_max",
        "family": "own",
        "definition": "Largest kurtosis of a coordinate.",
        "range": "(-∞, ∞)",
        "null": "not stated",
        "source": "own",
    }
    share = rows["positive_share"]
    assert (share["range"], share["null"], share["source"]) == ("[0, 1]", "0.5", "a paper")
    assert rows["undescribed"]["definition"] == "not said: `undescribed` has no docstring"
    assert list(rows)[-3:] == list(NAMES)
    assert [m.name for m in select(["positive_share", "id_mle"], own)] == ["id_mle", "positive_share"]
    assert [m.name for m in select(["own"], own)] == list(NAMES)
    assert own_metrics(None) == ()


def test_no_bytecode_is_left_beside_the_file(tmp_path: Path) -> None:
    load_own(written(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import no_such_module\ndef f(x): return 1", "ModuleNotFoundError on line 1: No module named"),
        ("def f(x): return 1\n\n1 / 0", "ZeroDivisionError on line 3: division by zero"),
        (
            "from lmshape.metrics.own import metric\n@metric(interval='bootstrap')\ndef f(x): return 1",
            'ValueError on line 2: `interval` is \'bootstrap\'; it must be "jackknife" or "draws"',
        ),
        (
            "from lmshape.metrics.own import metric\n@metric(low=1, high=0)\ndef f(x): return 1",
            "ValueError on line 2: `low` is 1 and `high` 0; `low` must be below `high`. Correct it.$",
        ),
        (
            "from lmshape.metrics.own import metric\n@metric('draws')\ndef f(x): return 1",
            "ValueError on line 2: `metric` got 'draws' without a name; write `interval='draws'`, say. Correct",
        ),
        ("import sys\ndef f(x): return 1\nsys.exit(3)", "SystemExit on line 3: 3. Correct it"),
        ("import sys\ndef f(x): return 1\nsys.exit()", "SystemExit on line 3. Correct it"),
    ],
)
def test_a_file_that_does_not_run_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=f"mine.py` cannot be run: {message}"):
        load_own(written(tmp_path, text))


def test_the_decorator_leaves_the_function_as_it_is() -> None:
    def f(x: np.ndarray) -> float:
        return 1.0

    assert metric(low=0)(f) is f
    assert metric(f) is f and f.declaration == Declaration()


@pytest.mark.parametrize(("last", "kind"), [("f = 3", "int"), ("del f", "NoneType"), ("f = f(0)", "float")])
def test_a_name_that_is_no_function_in_the_end_is_refused(tmp_path: Path, last: str, kind: str) -> None:
    path = written(tmp_path, f"def f(x): return 1.0\n{last}\n")
    with pytest.raises(
        InputError, match=f"mine.py`: `f` is a `{kind}` and not a function after the file has run"
    ):
        load_own(path)


def test_a_bare_decorator_declares_the_defaults(tmp_path: Path) -> None:
    text = "from lmshape.metrics.own import metric\n@metric\ndef f(x):\n    return x.sum()\n"
    (own,) = load_own(written(tmp_path, text))
    assert own.declaration == Declaration() and own.function(np.ones((2, 3))) == 6


def test_values_are_of_all_rows_without_each_draw_and_of_each_draw(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((200, 6)).astype(np.float32)
    mask = np.arange(200) % 7 > 0
    path = written(tmp_path)
    found = measured_own(path).statistics(own_layer(x, mask=mask))
    functions = {own.name: own.function for own in load_own(path)}
    for name, kept in {"all": np.ones(200, dtype=bool), "no_sink": mask}.items():
        arrays, attributes = found[name]
        rows, draw = x[kept].astype(np.float64), (np.arange(200) // 40)[kept]
        left_out = [functions["kurtosis_max"](rows[draw != j]) for j in range(5)]
        np.testing.assert_array_equal(arrays["kurtosis_max"], [functions["kurtosis_max"](rows), *left_out])
        shares = [np.mean(rows[draw == j] > 0) for j in range(5)]
        np.testing.assert_array_equal(arrays["positive_share"], shares)
        assert attributes == {"flag": ""}
    estimate = own_metrics(path)[1].compute(found["all"][0])
    half = t.ppf(0.975, 4) * np.std(found["all"][0]["positive_share"], ddof=1) / np.sqrt(5)
    assert estimate.high - estimate.value == pytest.approx(half, rel=1e-9)


def test_a_function_gets_float64_rows_that_it_may_change(tmp_path: Path) -> None:
    text = "def a(x):\n    x[:] = 0\n    return x.itemsize\ndef b(x): return x.sum()\n"
    x = np.ones((20, 2), dtype=np.float32)
    arrays, _ = measured_own(written(tmp_path, text)).statistics(own_layer(x))["all"]
    assert (arrays["a"] == 8).all()
    np.testing.assert_array_equal(arrays["b"], [40, *[32] * 5])
    assert (x == 1).all()


@pytest.mark.parametrize(
    ("body", "flag"),
    [
        ("raise ValueError('a constant\\n column')", "a constant column"),
        ("raise ValueError", "ValueError"),
        ("return float('nan')", "not finite: nan"),
        ("return float('inf')", "not finite: inf"),
    ],
)
def test_where_there_is_no_number_the_reason_stands(tmp_path: Path, body: str, flag: str) -> None:
    x = np.random.default_rng(0).standard_normal((50, 3))
    text = f"def f(x):\n    {body}\ndef g(x): return 1\n"
    arrays, attributes = measured_own(written(tmp_path, text)).statistics(own_layer(x))["all"]
    assert np.isnan(arrays["f"]).all() and (arrays["g"] == 1).all()
    assert attributes == {"flag": "", "flag_f": flag}


@pytest.mark.parametrize(
    ("declared", "flag"),
    [
        ("low=0, high=1", "2.0 is outside [0, 1], the `low` and `high` that it declares"),
        ("low=2.5", "2.0 is outside [2.5, ∞), the `low` and `high` that it declares"),
        (
            "high=1, interval='draws'",
            "2.0 is outside (-∞, 1], the `low` and `high` that it declares (draw 0)",
        ),
        ("low=2, high=3", ""),
    ],
)
def test_a_value_outside_its_own_bounds_is_none(tmp_path: Path, declared: str, flag: str) -> None:
    text = f"from lmshape.metrics.own import metric\n@metric({declared})\ndef f(x): return 2\n"
    arrays, attributes = measured_own(path := written(tmp_path, text)).statistics(
        own_layer(np.ones((50, 2)))
    )["all"]
    estimate = own_metrics(path)[0].compute(arrays)
    assert attributes.get("flag_f", "") == flag
    np.testing.assert_array_equal(
        [estimate.low, estimate.value, estimate.high], np.full(3, np.nan if flag else 2)
    )


def test_a_number_that_lacks_a_draw_has_no_interval_and_says_which(tmp_path: Path) -> None:
    text = "def f(x):\n    if x[0, 0] > 0: raise ValueError('odd')\n    return 2\n"
    x = np.zeros((50, 2))
    x[10, 0] = 1  # the first row where draw 0 is left out
    arrays, attributes = measured_own(path := written(tmp_path, text)).statistics(own_layer(x))["all"]
    estimate = own_metrics(path)[0].compute(arrays)
    assert estimate.value == 2 and np.isnan([estimate.low, estimate.high]).all()
    assert attributes["flag_f"] == "odd (without draw 0)"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return None", "TypeError: "),
        ("return y", "NameError on line 2: name 'y'"),
        ("return x", "TypeError: "),
        ("raise SystemExit", "SystemExit on line 2. Correct it, or"),
    ],
)
def test_any_other_error_ends_the_job_and_names_function_and_line(
    tmp_path: Path, body: str, message: str
) -> None:
    family = measured_own(written(tmp_path, f"def f(x):\n    {body}\n"))
    with pytest.raises(InputError, match=f"`f` of `.*mine.py` failed: {message}.* raise a ValueError where"):
        family.statistics(own_layer(np.ones((50, 2))))


def test_missing_has_the_same_arrays(tmp_path: Path) -> None:
    family = measured_own(written(tmp_path))
    found, _ = family.statistics(own_layer(np.random.default_rng(0).standard_normal((50, 3))))["all"]
    nothing = family.missing(rows=50, width=3, draws=5, rows_per_draw=None)
    assert {name: a.shape for name, a in found.items()} == {name: a.shape for name, a in nothing.items()}
    assert all(np.isnan(array).all() for array in nothing.values())


def test_the_family_without_a_file_is_refused() -> None:
    with pytest.raises(InputError, match="the family `own` is that of a file of functions; name the file"):
        measured_family("own")


def table_of(folder: Path, activations: Path, own: Path) -> pd.DataFrame:  # noqa: F811
    archive = folder / "own.h5"
    measure(activations, archive, family=measured_own(own), first=0, last=2, rows=["all", "no_sink"])
    gather([archive], [], folder / "t.parquet", study="s", metrics=["own"], own=own)
    return pq.read_table(folder / "t.parquet").to_pandas()


def test_from_activations_to_the_table(tmp_path: Path, activations: Path) -> None:  # noqa: F811
    own = written(tmp_path, FILE + "\ndef never(x):\n    raise ValueError('it is a test')\n")
    table = table_of(tmp_path, activations, own)
    assert len(table) == len(SITES) * 2 * 4
    first = table[(table["site"] == "block") & (table["layer"] == 1) & (table["rows"] == "no_sink")]
    assert list(first["metric"]) == [*NAMES, "never"]  # in the order of the file
    numbers = table[table["metric"] != "never"]
    assert (numbers["value"].between(numbers["ci_low"], numbers["ci_high"])).all()
    assert (numbers["flag"] == "").all() and (numbers["d"] == WIDTH).all()
    never = table[table["metric"] == "never"]
    assert never["value"].isna().all() and (never["flag"] == "it is a test").all()
    attributes, _ = read_statistics(tmp_path / "own.h5")
    assert (attributes["family"], attributes["model"]) == ("own", ROOT["model"])


def test_an_archive_of_another_file_is_named(tmp_path: Path, activations: Path) -> None:  # noqa: F811
    table_of(tmp_path, activations, own := written(tmp_path))
    own.write_text(FILE + "\ndef later(x): return 1\n")
    with pytest.raises(
        InputError, match="the archive of the family `own` holds no `later`; measure it again"
    ):
        gather([tmp_path / "own.h5"], [], tmp_path / "t.parquet", study="s", metrics=["own"], own=own)


def test_a_study_measures_all_own_metrics_unless_it_names_some(root: Path) -> None:  # noqa: F811
    written(root)
    study = study_of(root, own_metrics="mine.py", metrics=["angular"])
    assert study.metrics[-3:] == NAMES and study.measured_families == ("angular", "own")
    assert study.own_metrics.path == "mine.py"
    study = study_of(root, own_metrics="mine.py", metrics=["angular", "kurtosis_max"])
    assert study.metrics[-2:] == ("massive_count", "kurtosis_max")
    assert study_of(root, own_metrics="mine.py").metrics[-3:] == NAMES
    assert study_of(root).own_metrics is None


def test_a_wrong_own_file_or_name_ends_the_planning(root: Path) -> None:  # noqa: F811
    assert f"`own_metrics` = 'none.py': no such file in {root}" in refusal_of(root, own_metrics="none.py")
    assert "`own_metrics` = 3: must be text" in refusal_of(root, own_metrics=3)
    written(root)
    unknown = refusal_of(root, own_metrics="mine.py", metrics=["kurtosis_mx"])
    assert "unknown metric or metric family. Nearest: kurtosis_max" in unknown
    written(root, "def f(x:\n")
    both = refusal_of(root, own_metrics="mine.py", metrics=["f"], models=["run-c"])
    assert "not Python on line 1" in both and "run-c" in both and "unknown metric" not in both


def test_families_for_which_no_rows_are_left_are_told(root: Path) -> None:  # noqa: F811
    told = refusal_of(root, rows=["one_per_type"], metrics=["angular", "neighbor", "released"])
    assert "only neighbor and skdim take these rows, and `metrics` asks for angular too" in told
    assert study_of(root, rows=["one_per_type"], metrics=["neighbor"]).rows == ("one_per_type",)


def test_the_released_families_come_with_the_protocol_or_by_name(root: Path) -> None:  # noqa: F811
    (root / "book.txt").write_text("x" * 100_000)
    paper = {"protocol": "paper"}
    study = study_of(root, sampling=paper)
    assert {"id_released", "linearity_released"} <= set(study.metrics)
    assert {"released", "released_linearity"} <= set(study.measured_families)
    assert study_of(root, sampling=paper, metrics=["anisotropy"]).metrics == ("anisotropy",)
    assert "id_released" not in study_of(root).metrics
    assert study_of(root, metrics=["released"]).metrics == ("id_released", "linearity_released")
    assert metric_names(["id_released"]) == ("id_released",)


def test_planning_and_measuring_need_no_torch(tmp_path: Path) -> None:

    code = "import sys; from lmshape.metrics.own import load_own; from pathlib import Path\n"
    code += f"load_own(Path({str(written(tmp_path))!r}))\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_example_of_the_documentation_works(tmp_path: Path) -> None:
    text = (REPOSITORY / "config/README.md").read_text()
    (example,) = re.findall(r"```python\n(from lmshape.metrics.own import metric\n.*?)```", text, re.DOTALL)
    x = np.random.default_rng(0).standard_normal((5000, 4))
    arrays, _ = measured_own(path := written(tmp_path, example)).statistics(own_layer(x))["all"]
    kurtosis, share = (metric.compute(arrays) for metric in own_metrics(path))
    assert kurtosis.value == pytest.approx(3, abs=0.5) and kurtosis.low < kurtosis.value < kurtosis.high
    assert share.value == pytest.approx(0.5, abs=0.02) and 0 <= share.low < share.high <= 1
