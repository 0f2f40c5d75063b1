"""Every metric against a closed form or a computation from raw rows, and the table that lists them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import t

from lmshape.errors import InputError
from lmshape.families import METRIC_FAMILIES
from lmshape.measure import angular, families, neighbor, spectral
from lmshape.metrics import ALL, FAMILIES, METRICS, describe, select

DRAWS, ROWS, WIDTH = 4, 120, 16
DRAW = np.repeat(np.arange(DRAWS), ROWS)


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((DRAWS * ROWS, WIDTH)) * np.geomspace(1, 20, WIDTH) + 5
    return rows.astype(np.float32)


@pytest.fixture(scope="module")
def arrays(x: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    modules = {"spectral": spectral, "angular": angular, "neighbor": neighbor}
    return {name: module.statistics(x, DRAW, rows_per_draw=100)[0] for name, module in modules.items()}


def spectrum(x: np.ndarray, *, center: bool) -> np.ndarray:
    x = x.astype(np.float64)
    return np.linalg.svd(x - center * x.mean(axis=0), compute_uv=False) ** 2


def entropy_rank(lam: np.ndarray) -> float:
    p = lam / lam.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


REFERENCES = {
    "anisotropy": lambda x: spectrum(x, center=True)[0] / spectrum(x, center=True).sum(),
    "anisotropy_uncentered": lambda x: spectrum(x, center=False)[0] / spectrum(x, center=False).sum(),
    "effective_rank": lambda x: entropy_rank(spectrum(x, center=True)),
    "participation_ratio": lambda x: (
        spectrum(x, center=True).sum() ** 2 / (spectrum(x, center=True) ** 2).sum()
    ),
    "mean_cosine": lambda x: mean_over_pairs(x.astype(np.float64)),
    "mean_cosine_centered": lambda x: mean_over_pairs(x - x.mean(axis=0, dtype=np.float64)),
}


def mean_over_pairs(x: np.ndarray) -> float:
    return float((1 - cdist(x, x, "cosine"))[np.triu_indices(len(x), 1)].mean())


@pytest.mark.parametrize("name", list(REFERENCES))
def test_pooled_metrics_and_their_jackknife_equal_the_recomputation(
    name: str, x: np.ndarray, arrays: dict[str, dict[str, np.ndarray]]
) -> None:
    estimate = METRICS[name].compute(arrays[METRICS[name].family])
    left_out = np.array([REFERENCES[name](x[DRAW != j]) for j in range(DRAWS)])
    error = np.sqrt((DRAWS - 1) / DRAWS * ((left_out - left_out.mean()) ** 2).sum())
    value = REFERENCES[name](x)
    assert estimate.value == pytest.approx(value, rel=1e-9, abs=1e-12)
    half_width = t.ppf(0.975, DRAWS - 1) * error
    assert estimate.high == pytest.approx(min(value + half_width, METRICS[name].high), rel=1e-7)
    assert estimate.low == pytest.approx(max(value - half_width, METRICS[name].low), rel=1e-7)
    assert estimate.draws == DRAWS


def of_draw(x: np.ndarray, j: int) -> np.ndarray:
    rows = x[DRAW == j][:100].astype(np.float64)
    return np.sort(cdist(rows, rows), axis=1)[:, 1:]


def skdim_twonn(distances: np.ndarray) -> float:
    from skdim.id import TwoNN

    with np.errstate(divide="ignore"):  # log 0 in the points of a plot that nobody draws
        return TwoNN(discard_fraction=0, dist=True, method="mle").fit(distances[:, :2]).dimension_


def skdim_twonn_fit20(distances: np.ndarray) -> float:
    from skdim.id import TwoNN

    # 1 - 0.8 is less than 0.2 in float64: scikit-dimension would keep 19 of 100 ratios
    return TwoNN(discard_fraction=0.8 - 1e-9, dist=True).fit(distances[:, :2]).dimension_


def skdim_mle(distances: np.ndarray) -> float:
    from skdim.id import MLE

    nearest = (distances[:, :20], np.zeros((len(distances), 20), dtype=int))
    return MLE().fit(distances[:, :2], precomputed_knn_arrays=nearest, n_neighbors=20, comb="mle").dimension_


@pytest.mark.parametrize(
    ("name", "reference"),
    [("id_twonn", skdim_twonn), ("id_twonn_fit20", skdim_twonn_fit20), ("id_mle", skdim_mle)],
)
def test_dimensions_equal_scikit_dimension_on_scipys_distances(
    name: str, reference: callable, x: np.ndarray, arrays: dict[str, dict[str, np.ndarray]]
) -> None:
    estimate = METRICS[name].compute(arrays["neighbor"])
    draws = np.array([reference(of_draw(x, j)) for j in range(DRAWS)])
    half_width = t.ppf(0.975, DRAWS - 1) * draws.std(ddof=1) / np.sqrt(DRAWS)
    assert estimate.value == pytest.approx(draws.mean(), rel=1e-9)
    assert estimate.low == pytest.approx(max(draws.mean() - half_width, 0), rel=1e-7)
    assert estimate.high == pytest.approx(draws.mean() + half_width, rel=1e-7)
    assert estimate.draws == DRAWS


def test_closed_forms_of_spectra() -> None:
    equal = {"eigenvalues": np.ones((3, 10)), "eigenvalues_uncentered": np.ones((3, 10))}
    line = {"eigenvalues": np.eye(1, 10).repeat(3, axis=0)}
    assert METRICS["anisotropy"].compute(equal).value == pytest.approx(0.1, rel=1e-12)
    assert METRICS["anisotropy_uncentered"].compute(equal).value == pytest.approx(0.1, rel=1e-12)
    for name in ("effective_rank", "participation_ratio"):
        assert METRICS[name].compute(equal).value == pytest.approx(10, rel=1e-12)
        assert METRICS[name].compute(line).value == pytest.approx(1, rel=1e-12)
    assert METRICS["anisotropy"].compute(line).value == pytest.approx(1, rel=1e-12)


def test_pareto_ratios_give_their_exponent() -> None:
    rng = np.random.default_rng(0)
    distances = np.ones((5, 4096, 3))
    distances[:, :, 1] = (1 - rng.random((5, 4096))) ** (-1 / 20)
    estimate = METRICS["id_twonn"].compute({"distances": distances, "log_distance_sum": np.zeros((5, 4096))})
    assert estimate.value == pytest.approx(20, abs=0.5)  # 3.6 standard errors
    assert estimate.low < 20 < estimate.high


def test_loss_is_weighted_by_tokens_and_bits_by_bytes() -> None:
    card = {
        "nats": np.array([30.0, 50.0, 20.0]),
        "tokens": np.array([10, 30, 10]),
        "bytes": np.array([40.0, 90.0, 50.0]),
    }
    loss, bits = METRICS["loss"].compute(card), METRICS["bits_per_byte"].compute(card)
    left_out = np.array([70 / 40, 50 / 20, 80 / 40])
    error = np.sqrt(2 / 3 * ((left_out - left_out.mean()) ** 2).sum())
    assert loss.value == pytest.approx(2, rel=1e-12)
    assert loss.high == pytest.approx(2 + t.ppf(0.975, 2) * error, rel=1e-7)
    assert loss.low == pytest.approx(2 - t.ppf(0.975, 2) * error, rel=1e-7)
    assert bits.value == pytest.approx(100 / np.log(2) / 180, rel=1e-12)


def test_an_interval_ends_where_the_metric_does() -> None:
    loss = METRICS["loss"].compute({"nats": np.array([0.0, 50.0, 9.0]), "tokens": np.full(3, 10)})
    assert loss.low == 0
    line = np.zeros((3, 2))
    line[:] = [[0.99, 0.01], [0.9, 0.1], [1.0, 0.0]]
    assert METRICS["anisotropy"].compute({"eigenvalues": line}).high == 1


def test_a_metric_that_is_not_defined_is_nan() -> None:
    assert np.isnan(METRICS["loss"].compute({"nats": np.zeros(2), "tokens": np.zeros(2)}).value)
    ties = {"distances": np.ones((3, 50, 3)), "log_distance_sum": np.zeros((3, 50))}
    for name in ("id_twonn", "id_twonn_fit20", "id_mle"):
        estimate = METRICS[name].compute(ties)
        assert np.isnan([estimate.value, estimate.low, estimate.high]).all() and estimate.draws == 3
    empty = {"eigenvalues": np.zeros((4, 5)), "eigenvalues_uncentered": np.zeros((4, 5))}
    for name in METRIC_FAMILIES["spectral"]:
        assert np.isnan(METRICS[name].compute(empty).value)


def test_a_metric_without_some_left_out_value_has_no_interval() -> None:
    estimate = METRICS["mean_cosine"].compute({"mean_cosine": np.array([0.5, 0.4, np.nan])})
    assert estimate.value == 0.5 and np.isnan([estimate.low, estimate.high]).all() and estimate.draws == 2


def test_select_takes_families_and_metrics_in_the_order_of_the_table() -> None:
    names = [metric.name for metric in select(["id_mle", "angular", "mean_cosine"])]
    assert names == ["mean_cosine", "mean_cosine_centered", "id_mle"]
    assert [metric.name for metric in select(["loss"])] == ["loss", "bits_per_byte"]
    assert select(FAMILIES) == list(ALL)
    with pytest.raises(InputError, match="unknown metric `id_twon`. Nearest: id_twonn, id_twonn_fit20"):
        select(["id_twon"])


def test_the_table_is_whole() -> None:
    assert {
        family: tuple(m.name for m in ALL if m.family == family) for family in FAMILIES
    } == METRIC_FAMILIES
    assert set(FAMILIES) == {*families(), "loss"}
    for row in describe():
        assert list(row) == ["name", "family", "definition", "range", "null", "source"]
        assert all(row.values())
    assert all(metric.low < metric.high and metric.undefined for metric in ALL)
