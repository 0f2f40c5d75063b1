"""The released estimators give what the released package gives, its faults included, and say what they lack."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from test_gather import SITES, activations  # noqa: F401 (a fixture)

from lmshape.geometry import intrinsic_dimension
from lmshape.geometry.released import (
    RELEASED_ROWS,
    released_anisotropy,
    released_dimension,
    released_distances,
    released_linearity,
)
from lmshape.metrics.block import measure
from lmshape.metrics.layer import Layer
from lmshape.metrics.registry import MEASURED, METRICS
from lmshape.metrics.released import linearity, missing, missing_linearity, statistics
from lmshape.store.activations import Activations, Rows
from lmshape.tables.gather import gather

# intrinsic_dimension, calculate_anisotropy_torch and procrustes_similarity(x, tanh(x)) of llm-microscope 0.0.6 on
# `clouds()` as float32, with torch 2.13 on a CPU
GOLDEN = {
    "plain": (11.279909017784691, 0.2260250300168991, 0.4359738826751709),
    "copied": (56.665480949894665, 0.22590015828609467, 0.4459359049797058),
    "lattice": (np.nan, 0.5088963508605957, 0.8353433609008789),
    "ties": (11.587298233794806, 0.22253502905368805, 0.4409881830215454),
    "far": (11.064599907228086, 0.9434714913368225, 0.2722986936569214),
}


def clouds() -> dict[str, np.ndarray]:
    """Rows of 24 columns; a sixth of them copied; on lattices, where copies and ties abound; some of them far."""
    rows = np.random.default_rng(0).standard_normal((1003, 24)) * np.geomspace(0.1, 2, 24) + 3
    plain = rows.astype(np.float32)
    copied, far = plain.copy(), plain.copy()
    copied[800:967] = copied[:167]
    copied[967] = copied[0]
    far[::100] *= 1000
    lattice, ties = np.round(plain[:, :4] * 2) / 2, np.round(plain * 2) / 2
    return {"plain": plain, "copied": copied, "lattice": lattice, "ties": ties, "far": far}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_released_package_gives_the_same_numbers(name: str) -> None:
    x = clouds()[name]
    dimension, share, linearity = GOLDEN[name]
    # 1e-7: heights in float32; 1e-6: their float32 spectrum; 2e-5: two float32 solvers of one least squares problem
    assert released_dimension(x) == pytest.approx(dimension, rel=1e-7, nan_ok=True)
    assert released_anisotropy(x) == pytest.approx(share, rel=1e-6)
    assert released_linearity(x, np.tanh(x)) == pytest.approx(linearity, rel=2e-5)


def published_dimension(x: np.ndarray) -> float:
    """The published loop in NumPy, line by line, with its zero distances."""
    x = x - x.mean(axis=0)
    x = x / np.linalg.norm(x, axis=1).mean()
    first, second = np.sort(cdist(x, x) + np.diag(np.full(len(x), np.inf)), axis=1)[:, :2].T
    bad = first < 1e-8
    mu = np.sort(np.where(bad, -1, second / np.where(bad, 1, first)))
    useless = int((mu <= 1 + 1e-8).sum())
    mu = mu[useless:]
    n = len(mu)
    heights = -np.log(1 - (np.arange(1 + useless, n + 1 + useless) / (n + useless))[: min(n // 5, n - 1)])
    logs = np.log(mu)[: min(n // 5, n - 1)]
    return float((logs * heights).sum() / (logs * logs).sum()) if len(logs) else np.nan


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(3, 150),
    copies=st.integers(0, 100),
    step=st.sampled_from([0, 0.5]),
)
def test_any_cloud_of_copies_and_ties_equals_the_published_loop(
    seed: int, rows: int, copies: int, step: float
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, 3))
    x = np.round(x / step) * step if step else x
    x = np.concatenate([x, x[rng.integers(rows, size=copies)]])[rng.permutation(rows + copies)]
    assert released_dimension(x) == pytest.approx(published_dimension(x), rel=1e-5, nan_ok=True)


def test_distances_are_those_to_any_other_row_and_in_units_of_the_mean_length() -> None:
    x = clouds()["copied"].astype(np.float64)
    unit = np.linalg.norm(x - x.mean(axis=0), axis=1).mean()
    expected = np.sort(cdist(x, x) + np.diag(np.full(len(x), np.inf)), axis=1)[:, :2] / unit
    alone = expected[:, 0] > 0
    found = released_distances(x)
    np.testing.assert_allclose(found[alone], expected[alone], rtol=1e-12)
    assert (found[~alone] == 0).all() and np.count_nonzero(~alone) == 335


def test_copies_raise_the_released_dimension_and_not_the_corrected_one() -> None:
    """10 true dimensions: with a fifth of the rows copied 68 in the place of 9.9."""
    x = np.random.default_rng(0).standard_normal((4096, 10))
    copied = x.copy()
    copied[-819:] = x[:819]
    assert released_dimension(x) == pytest.approx(9.9, abs=0.5)
    assert released_dimension(copied) == pytest.approx(68, abs=2)
    assert intrinsic_dimension(copied) == pytest.approx(intrinsic_dimension(x), rel=0.05)


@pytest.mark.parametrize(
    "x", [np.ones((9, 4)), np.eye(3)[[0, 0, 1, 1, 1]], np.eye(30)], ids=["equal", "two", "simplex"]
)
def test_a_cloud_without_ratios_has_no_dimension(x: np.ndarray) -> None:
    assert np.isnan(released_dimension(x))


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(ValueError, match=r"has shape \(2, 4\); 3 rows"):
        released_distances(np.ones((2, 4)))


def test_linearity_is_one_for_a_linear_map_and_columns_over_rows_for_noise() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 2000, 40))
    assert released_linearity(x, x @ rng.standard_normal((40, 40)) + 5) == pytest.approx(1, abs=1e-12)
    assert released_linearity(x, y) == pytest.approx(40 / 2000, abs=0.005)


def test_dependent_columns_make_the_released_linearity_rounding_noise() -> None:
    """A least squares fit on the first 12 columns explains as much as one on 24 that repeat them in other units."""
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((2000, 12)) + 3).astype(np.float32)
    doubled = np.concatenate([x, x], axis=1)
    y = np.abs(x - 3)
    right = released_linearity(x, y)
    assert abs(released_linearity(doubled, np.concatenate([y, y], axis=1)) - right) > 1e-3


def test_equal_rows_have_no_linearity() -> None:
    x = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)
    assert np.isnan(released_linearity(np.ones_like(x), x)) and np.isnan(
        released_linearity(x, np.ones_like(x))
    )


def test_equal_rows_have_no_released_anisotropy() -> None:
    with pytest.raises(ValueError, match="`x` has zero variance: all rows are equal"):
        released_anisotropy(np.ones((9, 3), dtype=np.float32))


def test_linearity_takes_lists_halves_and_tensors_in_float32() -> None:
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).standard_normal((60, 4)).astype(np.float16)
    y = np.tanh(x)
    single = released_linearity(x.astype(np.float32), y.astype(np.float32))
    assert released_linearity(x, y) == single
    assert released_linearity(torch.from_numpy(x).requires_grad_(), torch.from_numpy(y)) == single
    double = released_linearity(x.astype(np.float64), y.astype(np.float64))
    assert released_linearity(x.tolist(), y.tolist()) == double != single


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.ones((9, 3)), np.ones((8, 3)), r"`x` has shape \(9, 3\), `y` \(8, 3\); they must hold the same"),
        (np.ones((9, 3)), np.ones((9, 2)), r"`x` has shape \(9, 3\), `y` \(9, 2\)"),
        (np.ones((9, 3)), np.full((9, 3), np.nan), "`y` is not finite in 9 of 9 rows"),
        (np.full((9, 3), np.inf), np.ones((9, 3)), "`x` is not finite in 9 of 9 rows"),
        (np.ones((0, 3)), np.ones((0, 3)), r"`x` has shape \(0, 3\); 2 rows"),
        (np.ones(3), np.ones(3), r"`x` has shape \(3,\)"),
    ],
)
def test_layers_without_a_linearity_are_refused(x: np.ndarray, y: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        released_linearity(x, y)


def layer_of(x: np.ndarray, before: np.ndarray | None = None, mask: np.ndarray | None = None) -> Layer:
    n = len(x)
    return Layer(
        rows=Rows(x),
        other=None if before is None else Rows(before),
        draw=np.arange(n) * 5 // n,
        sequence=np.arange(n) // 10,
        kept={"all": np.ones(n, dtype=bool) if mask is None else mask},
        rows_per_draw={"all": None},
    )


def values(arrays: dict[str, np.ndarray], family: str) -> dict[str, float]:
    return {name: metric.compute(arrays).value for name, metric in METRICS.items() if metric.family == family}


def test_the_dimension_is_that_of_the_first_4096_rows_and_the_linearity_that_of_all() -> None:
    x = np.random.default_rng(0).standard_normal((5000, 6)).astype(np.float32)
    x[4000:4010] = x[:10]
    arrays, attributes = statistics(layer_of(x))["all"]
    expected = {"id_released": released_dimension(x[:RELEASED_ROWS])}
    assert values(arrays, "released") == pytest.approx(expected, rel=1e-12)
    assert attributes == {"n_rows": 4096, "n_unique": 4086, "draws": 1, "flag": ""}
    arrays, attributes = linearity(layer_of(np.tanh(x), before=x))["all"]
    expected = {"linearity_released": released_linearity(x, np.tanh(x))}
    assert values(arrays, "released_linearity") == pytest.approx(expected, rel=1e-12)
    assert attributes == {"draws": 1, "flag": ""}


def test_there_is_one_sample_and_so_no_interval() -> None:
    x = np.random.default_rng(0).standard_normal((300, 6))
    arrays, _ = statistics(layer_of(x))["all"]
    paired, _ = linearity(layer_of(np.tanh(x), before=x))["all"]
    for name, kept in (("id_released", arrays), ("linearity_released", paired)):
        estimate = METRICS[name].compute(kept)
        assert np.isnan([estimate.low, estimate.high]).all() and estimate.draws == 1
        reason = "no interval: the released protocol takes one sample"
        assert METRICS[name].missing_interval(estimate) == reason


def test_rows_without_statistics_have_the_same_arrays() -> None:
    x = np.random.default_rng(0).standard_normal((300, 6))
    found, _ = statistics(layer_of(x))["all"]
    nothing = missing(rows=300, width=6, draws=5, rows_per_draw=None)
    assert {name: a.shape for name, a in found.items()} == {name: a.shape for name, a in nothing.items()}
    assert np.isnan(list(values(nothing, "released").values())).all()
    nothing = missing_linearity(rows=300, width=6, draws=5, rows_per_draw=None)
    assert np.isnan(list(values(nothing, "released_linearity").values())).all()


def test_two_rows_are_too_few() -> None:
    x = np.random.default_rng(0).standard_normal((300, 6))
    arrays, attributes = statistics(layer_of(x, mask=np.arange(300) < 2))["all"]
    assert attributes["flag"] == "too few rows: 2; two neighbors need 3"
    assert np.isnan(list(values(arrays, "released").values())).all()


def test_from_activations_to_the_table(tmp_path: Path, activations: Path) -> None:  # noqa: F811
    archives = [tmp_path / "released.h5", tmp_path / "released_linearity.h5"]
    for archive in archives:
        measure(activations, archive, family=MEASURED[archive.stem], first=0, last=2, rows=["all"])
    gather(archives, [], tmp_path / "t.parquet", study="s", metrics=["released"])
    table = pq.read_table(tmp_path / "t.parquet").to_pandas()
    assert len(table) == len(SITES) * 2 and table["ci_low"].isna().all()
    blocks = table["site"] == "block"
    without = table[~blocks & (table["metric"] == "linearity_released")]
    assert without["value"].isna().all() and without["flag"].str.startswith("no layer before").all()
    others = table.drop(without.index)
    assert others["value"].notna().all()
    assert set(others["flag"]) == {"no interval: the released protocol takes one sample"}
    with Activations(activations) as store:
        before, after = (store.read(site) for site in SITES[1:3])
    second = table[blocks & (table["layer"] == 2)].set_index("metric")["value"]
    assert second["linearity_released"] == pytest.approx(released_linearity(before, after), rel=1e-6)
    assert second["id_released"] == pytest.approx(released_dimension(after), rel=1e-12)
    assert set(table.loc[others.index, "n_rows"]) == {len(after)}
