"""Every metric against a closed form or a computation from raw rows, and the table that lists them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from layers import measured
from scipy.spatial.distance import cdist
from scipy.stats import t

from lmshape.errors import InputError
from lmshape.geometry.nulls import anisotropy_null, effective_rank_null, participation_ratio_null
from lmshape.metrics import angular, neighbor, spectral
from lmshape.metrics.registry import ALL, FAMILIES, METRIC_FAMILIES, METRICS, describe, select

DRAWS, ROWS, WIDTH = 4, 120, 24
DRAW = np.repeat(np.arange(DRAWS), ROWS)


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((DRAWS * ROWS, WIDTH)) * np.geomspace(1, 20, WIDTH) + 5
    rows[[7, 200, 201], [3, 3, 5]] = 2e4, -3e4, 1.5e4  # massive activations in two of the draws
    return rows.astype(np.float32)


@pytest.fixture(scope="module")
def arrays(x: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    modules = {"spectral": spectral, "angular": angular, "neighbor": neighbor}
    return {name: measured(module, x, DRAW, rows_per_draw=100)[0] for name, module in modules.items()}


def spectrum(x: np.ndarray, *, center: bool) -> np.ndarray:
    x = x.astype(np.float64)
    return np.linalg.svd(x - center * x.mean(axis=0), compute_uv=False) ** 2


def entropy_rank(lam: np.ndarray) -> float:
    p = lam / lam.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


def rankme(x: np.ndarray) -> float:
    sigma = np.linalg.svd(x - x.mean(axis=0, dtype=np.float64), compute_uv=False)
    p = sigma / sigma.sum() + 1e-7
    return float(np.exp(-(p * np.log(p)).sum()))


def standardized(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float64) / x.astype(np.float64).std(axis=0, ddof=1)


def variance_shares(x: np.ndarray) -> np.ndarray:
    variances = np.sort(x.astype(np.float64).var(axis=0))[::-1]
    return variances / variances.sum()


def components(x: np.ndarray, share: float) -> int:
    lam = spectrum(x, center=True)
    return next(k for k in range(1, len(lam) + 1) if lam[:k].sum() >= share * lam.sum())


def isoscore(x: np.ndarray) -> float:
    """Rudman et al. 2022, algorithm 1, step by step."""
    v, d = spectrum(x, center=True), x.shape[1]
    normalized = np.sqrt(d) * v / np.linalg.norm(v)
    delta = np.linalg.norm(normalized - 1) / np.sqrt(2 * (d - np.sqrt(d)))
    return ((d - delta**2 * (d - np.sqrt(d))) ** 2 - d) / (d * (d - 1))


def partial_components(x: np.ndarray, name: str) -> float:
    """Where the explained variance, joined by straight lines, reaches its share."""
    lam = spectrum(x, center=True)
    explained = np.concatenate([[0], lam.cumsum() / lam.sum()])
    return np.interp(int(name.removeprefix("components_")) / 100, explained, np.arange(len(explained)))


def alpha_req(x: np.ndarray) -> float:
    """Polynomial fit of numpy, whose weights multiply residuals before they are squared."""
    lam = spectrum(x, center=True)[10:100]
    ranks = np.arange(11, 11 + len(lam))
    return -np.polyfit(np.log(ranks), np.log(lam), 1, w=1 / np.sqrt(ranks))[0]


def corrected_participation_ratio(x: np.ndarray) -> float:
    """Averages over rows i, j, k, l that all differ, from traces of the Gram matrix without its diagonal."""
    gram = (x := x.astype(np.float64) - x[0]) @ x.T
    off = gram - np.diag(np.diag(gram))
    n, diagonal, sums = len(x), np.diag(gram), off.sum(axis=1)
    pairs = (off**2).sum() / (n * (n - 1))
    triples = (sums @ sums - (off**2).sum()) / (n * (n - 1) * (n - 2))
    quadruple = off.sum() ** 2 - 4 * sums @ sums + 2 * (off**2).sum()
    quadruples = quadruple / (n * (n - 1) * (n - 2) * (n - 3))
    traces = (diagonal.sum() ** 2 - diagonal @ diagonal) / (n * (n - 1))
    trace_pairs = (diagonal.sum() * off.sum() - 2 * diagonal @ sums) / (n * (n - 1) * (n - 2))
    return (traces - 2 * trace_pairs + quadruples) / (pairs - 2 * triples + quadruples)


def massive(x: np.ndarray) -> float:
    """Count as many as all rows would have."""
    size = np.abs(x.astype(np.float64))
    hits = ((size > 100) & (size > 1000 * np.median(size))).sum()
    return hits * DRAWS * ROWS / len(x)


REFERENCES = {
    "anisotropy_standardized": lambda x: (
        spectrum(standardized(x), center=True)[0] / spectrum(standardized(x), center=True).sum()
    ),
    "rogue_share_1": lambda x: variance_shares(x)[0],
    "rogue_share_3": lambda x: variance_shares(x)[:3].sum(),
    "rankme": rankme,
    "participation_ratio_corrected": corrected_participation_ratio,
    "components_90": lambda x: components(x, 0.90),
    "components_95": lambda x: components(x, 0.95),
    "components_99": lambda x: components(x, 0.99),
    "alpha_req": alpha_req,
    "isoscore": isoscore,
    "norm_median": lambda x: np.median(np.linalg.norm(x.astype(np.float64), axis=1)),
    "norm_max": lambda x: np.linalg.norm(x.astype(np.float64), axis=1).max(),
    "activation_max": lambda x: np.abs(x).max(),
    "massive_count": massive,
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
    metric, value = METRICS[name], REFERENCES[name](x)
    estimate = metric.compute(arrays[metric.family])
    assert estimate.value == pytest.approx(value, rel=1e-9, abs=1e-12)
    assert estimate.draws == DRAWS
    if metric.no_interval:
        assert np.isnan([estimate.low, estimate.high]).all()
        return
    unrounded = partial_components if metric.step else lambda x, _: REFERENCES[name](x)
    left_out = np.array([unrounded(x[DRAW != j], name) for j in range(DRAWS)])
    square = (DRAWS - 1) / DRAWS * ((left_out - left_out.mean()) ** 2).sum() + metric.step**2 / 12
    error = np.sqrt(square)
    half_width = t.ppf(0.975, DRAWS - 1) * error
    assert estimate.high == pytest.approx(min(value + half_width, metric.high), rel=1e-7)
    assert estimate.low == pytest.approx(max(value - half_width, metric.low), rel=1e-7)


def test_every_spectral_and_angular_metric_has_a_reference() -> None:
    nulls = {"anisotropy_null", "effective_rank_null", "participation_ratio_null"}
    elsewhere = {"effective_rank_bulk"}  # needs wider rows than these: below
    measured = {*METRIC_FAMILIES["spectral"], *METRIC_FAMILIES["angular"]}
    assert measured == {*REFERENCES, *nulls, *elsewhere}


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


def skdim_twonn_fit(distances: np.ndarray) -> float:
    from skdim.id import TwoNN

    return TwoNN(dist=True).fit(distances[:, :2]).dimension_


def skdim_gride(distances: np.ndarray, *, n2: int) -> float:
    from skdim.id._GRIDE import _gride

    return _gride(distances, n2 // 2, n2)[0]


def median_mada(distances: np.ndarray) -> float:
    return float(np.median(np.log(2) / np.log(distances[:, 19] / distances[:, 9])))


def skdim_local(distances: np.ndarray) -> np.ndarray:
    from skdim.id import MLE

    nearest = (distances[:, :20], np.zeros((len(distances), 20), dtype=int))
    estimator = MLE(unbiased=True).fit(distances[:, :2], precomputed_knn_arrays=nearest, n_neighbors=20)
    return estimator.dimension_pw_


def skdim_mle(distances: np.ndarray) -> float:
    from skdim.id import MLE

    nearest = (distances[:, :20], np.zeros((len(distances), 20), dtype=int))
    return MLE().fit(distances[:, :2], precomputed_knn_arrays=nearest, n_neighbors=20, comb="mle").dimension_


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("id_twonn", skdim_twonn),
        ("id_twonn_fit", skdim_twonn_fit),
        ("id_twonn_fit20", skdim_twonn_fit20),
        *((f"id_gride_{n2}", partial(skdim_gride, n2=n2)) for n2 in (2, 4, 8, 16, 32, 64)),
        ("id_mle", skdim_mle),
        ("id_mada", median_mada),
        ("id_local_mean", lambda distances: skdim_local(distances).mean()),
        ("id_local_q25", lambda distances: np.quantile(skdim_local(distances), 0.25)),
        ("id_local_median", lambda distances: np.median(skdim_local(distances))),
        ("id_local_q75", lambda distances: np.quantile(skdim_local(distances), 0.75)),
    ],
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
    equal = {"eigenvalues": np.ones((3, 10)), "leading_uncentered": np.array([[1.0, 10]] * 3)}
    line = {"eigenvalues": np.eye(1, 10).repeat(3, axis=0)}
    assert METRICS["anisotropy"].compute(equal).value == pytest.approx(0.1, rel=1e-12)
    assert METRICS["anisotropy_uncentered"].compute(equal).value == pytest.approx(0.1, rel=1e-12)
    for name in ("effective_rank", "participation_ratio"):
        assert METRICS[name].compute(equal).value == pytest.approx(10, rel=1e-12)
        assert METRICS[name].compute(line).value == pytest.approx(1, rel=1e-12)
    assert METRICS["anisotropy"].compute(line).value == pytest.approx(1, rel=1e-12)


def test_the_bulk_is_what_the_leading_32_directions_leave() -> None:
    halves = {"eigenvalues": np.array([[*[1e6] * 32, 8, 4, 2, 1, 1]] * 3)}
    shares = np.array([8, 4, 2, 1, 1]) / 16
    bulk = METRICS["effective_rank_bulk"].compute(halves)
    assert bulk.value == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-12)
    equal = {"eigenvalues": np.ones((3, 40))}
    assert METRICS["effective_rank_bulk"].compute(equal).value == pytest.approx(8, rel=1e-12)


@pytest.mark.parametrize("spectrum", [np.ones(32), np.ones(5), [*np.ones(32), 1e-17, 1e-18], np.zeros(40)])
def test_a_spectrum_without_a_bulk_has_none(spectrum: np.ndarray) -> None:
    metric = METRICS["effective_rank_bulk"]
    assert np.isnan(metric.compute({"eigenvalues": np.array([spectrum] * 3)}).value)
    assert metric.undefined == "no variance past the 32nd eigenvalue"


def test_pareto_ratios_give_their_exponent() -> None:
    rng = np.random.default_rng(0)
    distances = np.ones((5, 4096, 9))
    distances[:, :, 1] = (1 - rng.random((5, 4096))) ** (-1 / 20)
    estimate = METRICS["id_twonn"].compute({"distances": distances, "log_distance_sum": np.zeros((5, 4096))})
    assert estimate.value == pytest.approx(20, abs=0.5)  # 3.6 standard errors
    assert estimate.low < 20 < estimate.high


def test_the_surrogate_is_twonn_of_its_distances_and_duplicates_are_shares() -> None:
    rng = np.random.default_rng(1)
    surrogate = 1 + rng.random((3, 60, 2)).cumsum(axis=2)
    estimate = METRICS["id_twonn_surrogate"].compute({"surrogate_distances": surrogate})
    draws = [59 / np.log(r[:, 1] / r[:, 0]).sum() for r in surrogate]
    half_width = t.ppf(0.975, 2) * np.std(draws, ddof=1) / np.sqrt(3)
    assert estimate.value == pytest.approx(np.mean(draws), rel=1e-12)
    assert estimate.high == pytest.approx(np.mean(draws) + half_width, rel=1e-7)
    shares = METRICS["duplicate_share"].compute({"duplicate_share": np.array([0.1, 0.0, 0.2])})
    assert (shares.value, shares.low) == (pytest.approx(0.1, rel=1e-12), 0)


def test_only_the_scales_that_need_more_rows_are_nan() -> None:
    x = np.random.default_rng(2).standard_normal((90, 6))
    found, attributes = measured(neighbor, x, np.repeat([0, 1], 45))
    values = {name: METRICS[name].compute(found).value for name in METRIC_FAMILIES["neighbor"]}
    assert [name for name, value in values.items() if np.isnan(value)] == ["id_gride_64"]
    assert attributes["flag"] == "" and "under 65 unique rows" in METRICS["id_gride_64"].undefined


def test_one_row_of_equal_distances_ends_the_mean_but_not_the_quartiles(arrays: dict) -> None:
    tied = {name: array.copy() for name, array in arrays["neighbor"].items()}
    tied["distances"][:, 0] = 0.5
    tied["log_distance_sum"][:, 0] = 19 * np.log(0.5)
    assert np.isnan(METRICS["id_local_mean"].compute(tied).value)
    for name in ("id_local_q25", "id_local_median", "id_local_q75", "id_mada", "id_mle", "id_gride_16"):
        before = METRICS[name].compute(arrays["neighbor"]).value
        assert METRICS[name].compute(tied).value == pytest.approx(before, rel=0.05)


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
    ties = {"distances": np.ones((3, 70, 9)), "log_distance_sum": np.zeros((3, 70))}
    ties["surrogate_distances"] = np.full((3, 70, 2), np.nan)
    ties |= {f"decimated_{share}": np.ones((3, 70 // share, 2)) for share in (2, 4, 8)}
    for name in METRIC_FAMILIES["neighbor"][:-1]:
        estimate = METRICS[name].compute(ties)
        assert np.isnan([estimate.value, estimate.low, estimate.high]).all() and estimate.draws == 3
    equal_rows, _ = measured(spectral, np.zeros((40, 5)), np.arange(40) % 4)
    for name in METRIC_FAMILIES["spectral"]:
        assert np.isnan(METRICS[name].compute(equal_rows).value) != name.endswith("_null")
    nothing = spectral.missing(rows=40, width=5, draws=4) | angular.missing(rows=40, width=5, draws=4)
    for name in METRIC_FAMILIES["spectral"] + METRIC_FAMILIES["angular"]:
        assert np.isnan(METRICS[name].compute(nothing).value)


@pytest.mark.parametrize(
    ("name", "n", "d"),
    [
        ("isoscore", 20, 20),
        ("isoscore", 50, 1),
        ("alpha_req", 50, 19),
        ("participation_ratio_corrected", 3, 4),
    ],
)
def test_too_few_rows_or_columns_are_nan_with_a_reason(name: str, n: int, d: int) -> None:
    rows = np.random.default_rng(0).standard_normal((n, d))
    arrays, _ = measured(spectral, rows, np.arange(n) % 3)
    assert np.isnan(METRICS[name].compute(arrays).value) and METRICS[name].undefined


def test_a_null_is_that_of_all_rows_and_known_without_error() -> None:
    rows = np.random.default_rng(0).standard_normal((200, 10))
    arrays, _ = measured(spectral, rows, np.repeat([0, 1, 2], [100, 60, 40]))
    nulls = {"anisotropy": anisotropy_null, "effective_rank": effective_rank_null}
    nulls["participation_ratio"] = participation_ratio_null
    for name, null in nulls.items():
        estimate = METRICS[f"{name}_null"].compute(arrays)
        found = [estimate.value, estimate.low, estimate.high]
        assert found == pytest.approx([null(200, 10)] * 3, rel=1e-12)


def test_a_count_without_a_draw_stands_for_as_many_rows() -> None:
    """Independent draws of 2, 0, 4 hits: the interval of their sum, not of two thirds of it."""
    arrays = {"massive_count": np.array([6.0, 4, 6, 2]), "rows": np.array([30.0, 20, 20, 20])}
    estimate = METRICS["massive_count"].compute(arrays)
    assert estimate.value == 6
    assert estimate.high == pytest.approx(6 + t.ppf(0.975, 2) * np.sqrt(3 * 4), rel=1e-12)
    assert estimate.low == 0


def test_a_metric_without_some_left_out_value_has_no_interval() -> None:
    estimate = METRICS["mean_cosine"].compute({"mean_cosine": np.array([0.5, 0.4, np.nan])})
    assert estimate.value == 0.5 and np.isnan([estimate.low, estimate.high]).all() and estimate.draws == 2
    reason = METRICS["mean_cosine"].missing_interval(estimate)
    assert reason == "no interval: not defined without one of its draws"


def test_a_metric_without_interval_is_its_first_number_alone() -> None:
    alone = replace(METRICS["norm_max"], values=lambda arrays: arrays["found"])
    for found, draws in (([7.0, 6.0, np.nan], 2), ([7.0], 1)):
        estimate = alone.compute({"found": np.array(found)})
        assert (estimate.value, estimate.draws) == (7, draws) and np.isnan(
            [estimate.low, estimate.high]
        ).all()
        assert alone.missing_interval(estimate) == "no interval: a maximum of a sample has none"
    assert alone.missing_interval(alone.compute({"found": np.array([np.nan])})) == ""


@pytest.mark.parametrize(("interval", "reason"), [("none", ""), ("draws", "why")])
def test_a_metric_has_an_interval_or_says_why_not(interval: str, reason: str) -> None:
    with pytest.raises(ValueError, match="`loss` has `interval` .*; give the reason if"):
        replace(METRICS["loss"], interval=interval, no_interval=reason)


def test_select_takes_families_and_metrics_in_the_order_of_the_table() -> None:
    names = [metric.name for metric in select(["id_mle", "angular", "mean_cosine"])]
    assert names == [*METRIC_FAMILIES["angular"], "id_mle"]
    assert [metric.name for metric in select(["loss"])] == ["loss", "bits_per_byte"]
    assert select(METRIC_FAMILIES) == list(ALL)
    with pytest.raises(
        InputError, match="unknown metric or metric family `id_twon`. Nearest: id_twonn, id_twonn_fit"
    ):
        select(["id_twon"])


def test_the_table_is_whole() -> None:
    assert len(METRICS) == len(ALL)  # no name twice
    assert {name for name, family in FAMILIES.items() if not family.metrics} == {"skdim", "own"}
    assert {name for name, family in FAMILIES.items() if not family.measured} == {"loss"}
    for row in describe():
        assert list(row) == ["name", "family", "definition", "range", "null", "source"]
        assert all(row.values())
    assert all(metric.low < metric.high and metric.undefined for metric in ALL)
