"""Estimates of dimension against scikit-dimension, likelihoods, Pareto ratios and clouds of known dimension."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.spatial import cKDTree
from scipy.special import betaln
from skdim.id import GRIDE, MADA, MLE, TwoNN

from lmshape.errors import InputError
from lmshape.geometry.dimension import METHODS, gride, intrinsic_dimension, mada, mle, twonn, twonn_fit
from lmshape.geometry.distance_ratios import (
    gride_from_distances,
    local_mle_from_summary,
    mada_from_distances,
    mle_from_distances,
    mle_from_summary,
    twonn_fit_from_distances,
    twonn_from_distances,
)
from lmshape.geometry.neighbors import nearest_neighbors


def rotated(n: int, dimension: int, width: int, *, seed: int = 0) -> np.ndarray:
    """Standard normal rows, zero-padded and rotated."""
    raw = np.random.default_rng(seed).standard_normal((n, dimension))
    rotation = np.linalg.qr(np.random.default_rng(1).standard_normal((width, width)))[0]
    return raw @ rotation[:dimension]


def pareto(dimension: float, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    first = rng.uniform(0.5, 2, n)
    return first, first * (1 - rng.uniform(size=n)) ** (-1 / dimension)


@pytest.fixture(scope="module")
def distances() -> np.ndarray:
    return nearest_neighbors(rotated(999, 7, 40), 20).distances


def test_twonn_is_scikit_dimensions_maximum_likelihood(distances):
    estimator = TwoNN(discard_fraction=0, dist=True, method="mle")
    with np.errstate(divide="ignore"):  # its plotting data, not its estimate, takes the logarithm of 1 − n/n
        expected = estimator.fit(distances[:, :2]).dimension_
    assert twonn_from_distances(distances[:, 0], distances[:, 1]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("share", [0.9, 0.75, 0.5, 0.2])
def test_twonn_fit_is_scikit_dimensions_line(distances, share):
    # n = 999: here ⌊(1 − discarded) n⌋ is ⌊share n⌋ although 1 − 0.8 rounds below 0.2
    expected = TwoNN(discard_fraction=1 - share, dist=True).fit(distances[:, :2]).dimension_
    assert twonn_fit_from_distances(distances[:, 0], distances[:, 1], share=share) == pytest.approx(
        expected, rel=1e-12
    )


def test_twonn_fit_keeps_the_ratio_that_scikit_dimension_rounds_away(distances):
    first, second = distances[:995, 0], distances[:995, 1]
    log_ratios = np.sort(np.log(second / first))[:199]
    heights = -np.log(1 - np.arange(1, 200) / 995)
    slope = np.linalg.lstsq(log_ratios[:, None], heights, rcond=None)[0][0]
    assert twonn_fit_from_distances(first, second, share=0.2) == pytest.approx(slope, rel=1e-12)
    other = TwoNN(discard_fraction=0.8, dist=True).fit(distances[:995, :2])
    assert len(other.x_) == 198


@pytest.mark.parametrize("k", [2, 5, 20])
def test_levina_bickel_is_scikit_dimensions_mle(distances, k):
    arrays = (distances[:, :k], np.zeros((999, k), dtype=int))
    expected = MLE().fit(distances, precomputed_knn_arrays=arrays, comb="mle").dimension_
    assert mle_from_distances(distances[:, :k]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("k", [2, 5, 20])
def test_levina_bickel_needs_two_numbers_of_each_point(distances, k):
    sums = np.log(distances[:, : k - 1]).sum(axis=1)
    found = mle_from_summary(sums, distances[:, k - 1], k)
    assert found == pytest.approx(mle_from_distances(distances[:, :k]), rel=1e-12)


def test_with_two_neighbors_levina_bickel_is_twonn_but_for_its_bias(distances):
    expected = twonn_from_distances(distances[:, 0], distances[:, 1]) * 999 / 998
    assert mle_from_distances(distances[:, :2]) == pytest.approx(expected, rel=1e-12)


def test_scikit_dimension_reads_the_same_from_the_rows():
    x = rotated(400, 5, 30)
    assert intrinsic_dimension(x, "twonn_fit") == pytest.approx(TwoNN().fit(x).dimension_, rel=1e-9)
    assert intrinsic_dimension(x, "mle") == pytest.approx(MLE().fit(x, n_neighbors=20).dimension_, rel=1e-9)


def test_twonn_by_hand():
    """Σ ln μ = ln 2 + ln 4 + ln 8 = 6 ln 2."""
    assert twonn_from_distances([1, 1, 2], [2, 4, 16]) == pytest.approx(2 / (6 * math.log(2)), rel=1e-14)


def test_levina_bickel_by_hand():
    """Σ of ln(4/1) + ln(4/2) and of ln(8/8) + ln(8/2), in units of ln 2: 3 + 2."""
    assert mle_from_distances([[1, 2, 4], [2, 8, 8]]) == pytest.approx(4 / (5 * math.log(2)), rel=1e-14)


@pytest.mark.parametrize(("dimension", "expected"), [(5, 5.15), (10, 9.65), (20, 17.2), (40, 28.5)])
def test_normal_rows_read_the_tabulated_dimension(dimension, expected):
    """Within two standard deviations of 2.5 %."""
    assert intrinsic_dimension(rotated(4096, dimension, 128)) == pytest.approx(expected, rel=0.05)


def test_a_uniform_cube_reads_the_tabulated_dimension():
    x = np.random.default_rng(0).uniform(size=(4096, 20))
    assert intrinsic_dimension(x) == pytest.approx(15.6, rel=0.04)


def test_a_line_and_a_plane_in_many_dimensions():
    rng = np.random.default_rng(0)
    for dimension in (1, 2):
        x = rng.uniform(size=(2000, dimension)) @ rng.standard_normal((dimension, 50))
        for method in METHODS:
            assert intrinsic_dimension(x, method) == pytest.approx(dimension, rel=0.15)


def test_twonn_recovers_the_exponent_of_pareto_ratios_without_bias():
    rng = np.random.default_rng(0)
    readings = [twonn_from_distances(*pareto(20, 4096, rng)) for _ in range(200)]
    assert np.mean(readings) == pytest.approx(20, abs=3 * 20 / math.sqrt(4094 * 200))
    assert np.std(readings) == pytest.approx(20 / math.sqrt(4094), rel=0.2)


@pytest.mark.parametrize(("share", "noise"), [(0.9, 0.02), (0.2, 0.05)])
def test_line_fits_recover_the_exponent_of_pareto_ratios(share, noise):
    rng = np.random.default_rng(0)
    readings = [twonn_fit_from_distances(*pareto(20, 4096, rng), share=share) for _ in range(100)]
    assert np.mean(readings) == pytest.approx(20, rel=noise / 4)
    assert np.std(readings) < 20 * noise


def test_levina_bickel_recovers_the_dimension_of_poisson_neighbors():
    """In a Poisson process volumes up to the j-th neighbor are sums of j exponentials: r_j = v_j^(1/d)."""
    rng = np.random.default_rng(0)
    volumes = rng.exponential(size=(4000, 20)).cumsum(axis=1)
    assert mle_from_distances(volumes ** (1 / 12)) == pytest.approx(12, abs=4 * 12 / math.sqrt(4000 * 19))


@pytest.mark.parametrize("method", METHODS)
def test_scale_translation_rotation_and_row_order_change_nothing(method):
    x = rotated(400, 6, 12)
    rotation = np.linalg.qr(np.random.default_rng(2).standard_normal((12, 12)))[0]
    moved = 0.03 * np.random.default_rng(3).permutation(x) @ rotation + 1000.0
    assert intrinsic_dimension(moved, method) == pytest.approx(intrinsic_dimension(x, method), rel=1e-8)


@pytest.mark.parametrize("method", METHODS)
def test_copies_change_nothing(method):
    x = rotated(400, 6, 12)
    copied = np.concatenate([x[:50], x, x[:50], x[:50]])
    assert intrinsic_dimension(copied, method) == pytest.approx(intrinsic_dimension(x, method), rel=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_one_row_moved_very_far_changes_next_to_nothing(method):
    x = rotated(1000, 6, 12)
    x[0] += 1e5
    assert intrinsic_dimension(x, method) == pytest.approx(intrinsic_dimension(x[1:], method), rel=0.02)


@pytest.mark.parametrize("method", METHODS)
def test_points_at_one_distance_have_no_finite_dimension(method):
    assert intrinsic_dimension(1.7 * np.eye(30), method) == math.inf


@pytest.mark.parametrize("distance", [1e-7, 0.3, 1.0, 1e4 / 3])
def test_a_summary_of_equal_distances_is_infinite_although_logarithms_round(distance):
    sums = np.log(np.full((30, 19), distance)).sum(axis=1)
    assert mle_from_summary(sums, np.full(30, distance), 20) == math.inf


def test_small_ratios_in_a_summary_are_not_taken_for_rounding():
    distances = 1e4 * (1 + 1e-9 * np.arange(1, 21)) * np.ones((50, 1))
    sums = np.log(distances[:, :-1]).sum(axis=1)
    found = mle_from_summary(sums, distances[:, -1], 20)
    assert found == pytest.approx(mle_from_distances(distances), rel=1e-3)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_distances_may_be_tensors_with_gradients(distances, dtype):
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(distances).to(getattr(torch, dtype)).requires_grad_()
    array = tensor.detach().double().numpy()
    assert not np.array_equal(array, distances) or dtype == "float64"
    pairs = (twonn_from_distances, twonn_fit_from_distances, mada_from_distances)
    for estimate in (*pairs, partial(gride_from_distances, n1=1, n2=2)):
        np.testing.assert_array_equal(
            estimate(tensor[:, 0], tensor[:, 4]), estimate(array[:, 0], array[:, 4])
        )
    assert mle_from_distances(tensor) == mle_from_distances(array)
    sums = np.log(array[:, :-1]).sum(axis=1)
    for estimate in (mle_from_summary, local_mle_from_summary):
        found = estimate(torch.from_numpy(sums).requires_grad_(), tensor[:, -1], 20)
        np.testing.assert_array_equal(found, estimate(sums, array[:, -1], 20))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: twonn_from_distances([0.0, 1.0], [1.0, 2.0]),
            "`first` has 1 of 2 distances that are zero, negative or not",
        ),
        (
            lambda: twonn_from_distances([1.0, 1.0], [np.nan, np.inf]),
            "`second` has 2 of 2 distances that are zero, negative",
        ),
        (lambda: twonn_from_distances([1.0, 2.0], [1.0, 1.5]), "`second` is below `first` for some points"),
        (
            lambda: twonn_from_distances([1.0], [2.0]),
            r"`first` \(1,\) and `second` \(1,\) must be \(n,\) of the same points",
        ),
        (lambda: twonn_from_distances([1.0, 2.0], [2.0]), r"`first` \(2,\) and `second` \(1,\) must be"),
        (
            lambda: twonn_fit_from_distances([1.0, 1.0], [2.0, 2.0], share=1.0),
            "`share` is 1.0; it must lie between 0 and 1",
        ),
        (
            lambda: twonn_fit_from_distances([1.0, 1.0], [2.0, 2.0], share=0.5),
            "`share` 0.5 of 2 ratios leaves 1 to fit",
        ),
        (
            lambda: mle_from_distances([1.0, 2.0]),
            r"`distances` has shape \(2,\); it must be \(points, 2 or more",
        ),
        (lambda: mle_from_distances([[1.0]]), r"`distances` has shape \(1, 1\)"),
        (lambda: mle_from_distances([[0.0, 1.0]]), "`distances` has 1 of 2 distances that are zero"),
        (lambda: mle_from_distances([[2.0, 1.0]]), "`distances` fall within a row; they must ascend"),
        (
            lambda: mle_from_summary([0.0], [1.0], 1),
            "`k` is 1; ratios of distances need at least 2",
        ),
        (
            lambda: mle_from_summary([0.0, 1.0], [1.0], 2),
            r"`log_distance_sum` \(2,\) and `last` \(1,\)",
        ),
        (lambda: mle_from_summary([0.0], [0.0], 2), "`last` has 1 of 1 distances that are zero"),
        (lambda: mle_from_summary([-np.inf], [1.0], 2), "`log_distance_sum` is not finite"),
        (lambda: mle_from_summary([1.0], [1.0], 3), r"exceeds \(k − 1\) ln r_k for `k` 3"),
        (
            lambda: intrinsic_dimension(np.eye(9), "gride", 5),
            "`k` is 5; gride compares the neighbors k/2 and k",
        ),
        (lambda: intrinsic_dimension(np.eye(9), "mle", 1), "`k` is 1; mle compares the k nearest distances"),
        (lambda: intrinsic_dimension(np.eye(30), "mle", 20.0), "`k` is 20.0; a whole number is needed"),
        (lambda: intrinsic_dimension(np.eye(30), "gride", "2"), "`k` is '2'; a whole number is needed"),
        (lambda: intrinsic_dimension(np.eye(3), "mle"), "3 unique rows of 3; 20 neighbors need at least 21"),
    ],
)
def test_what_has_no_dimension_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_an_unknown_method_is_refused_with_the_nearest_names():
    with pytest.raises(InputError, match="unknown method `two_nn`. Nearest: twonn"):
        intrinsic_dimension(np.eye(30), "two_nn")


SCALES = (2, 4, 8, 16, 32, 64)


@pytest.fixture(scope="module")
def spread() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((600, 8)) * np.geomspace(1, 4, 8)


@pytest.fixture(scope="module")
def to_64th(spread) -> np.ndarray:
    return nearest_neighbors(spread, 64).distances


def at_scale(distances: np.ndarray, n2: int) -> float:
    return gride_from_distances(distances[:, n2 // 2 - 1], distances[:, n2 - 1], n1=n2 // 2, n2=n2)


@pytest.mark.parametrize("n2", SCALES)
def test_the_estimate_is_scikit_dimensions(spread, to_64th, n2):
    assert at_scale(to_64th, n2) == pytest.approx(GRIDE(n1=n2 // 2).fit(spread).dimension_, rel=1e-7)


@pytest.mark.parametrize(("n1", "n2"), [(1, 2), (2, 4), (32, 64), (1, 20), (3, 7)])
def test_the_estimate_maximizes_the_likelihood(to_64th, n1, n2):
    mu = to_64th[:, n2 - 1] / to_64th[:, n1 - 1]

    def negative_log_likelihood(d: float) -> float:
        log_density = (n2 - n1 - 1) * np.log(np.expm1(d * np.log(mu))) - ((n2 - 1) * d + 1) * np.log(mu)
        return -((len(mu) - 1) * np.log(d) + log_density.sum() - len(mu) * betaln(n2 - n1, n1))

    best = minimize_scalar(
        negative_log_likelihood, bounds=(0.5, 40), method="bounded", options={"xatol": 1e-9}
    )
    assert gride_from_distances(to_64th[:, n1 - 1], to_64th[:, n2 - 1], n1=n1, n2=n2) == pytest.approx(
        best.x, rel=1e-6
    )


def test_two_neighbors_are_twonn(to_64th):
    assert at_scale(to_64th, 2) == pytest.approx(
        twonn_from_distances(to_64th[:, 0], to_64th[:, 1]), rel=1e-13
    )


@pytest.mark.parametrize("n2", SCALES)
def test_poisson_neighbors_give_their_dimension_without_bias(n2):
    """Volumes up to the j-th neighbor are sums of j exponentials: r_j = v_j^(1/d), independent points."""
    rng = np.random.default_rng(n2)
    readings = []
    for _ in range(40):
        radii = rng.exponential(size=(1000, n2)).cumsum(axis=1) ** (1 / 12)
        readings.append(at_scale(radii, n2))
    assert np.mean(readings) == pytest.approx(12, abs=4 * np.std(readings) / math.sqrt(40))
    assert np.std(readings) < 12 / math.sqrt(1000) * 1.4


def mean_share(dimension: int, *, size: float | None) -> np.ndarray:
    """Mean reading over five uniform clouds of 2000 points, as a share of the dimension, at each scale."""
    shares = []
    for seed in range(5):
        x = np.random.default_rng(seed).uniform(size=(2000, dimension))
        distances = cKDTree(x, boxsize=size).query(x, 65)[0][:, 1:]
        shares.append([at_scale(distances, n2) / dimension for n2 in SCALES])
    return np.mean(shares, axis=0)


@pytest.mark.parametrize("dimension", [2, 5])
def test_without_edges_no_scale_is_biased(dimension):
    """A cube whose opposite faces are one: to 3 %, two to three standard errors at the smallest scale."""
    np.testing.assert_allclose(mean_share(dimension, size=1.0), 1, atol=0.03)


@pytest.mark.parametrize(
    ("dimension", "smallest", "largest"), [(2, 1.0, 0.96), (5, 0.95, 0.84), (10, 0.83, 0.76)]
)
def test_on_a_uniform_cube_it_is_low_and_lower_at_larger_scales(dimension, smallest, largest):
    """Points near a face have neighbors on one side: a bias that grows with dimension and scale."""
    shares = mean_share(dimension, size=None)
    assert shares[0] == pytest.approx(smallest, abs=0.03)
    assert shares[-1] == pytest.approx(largest, abs=0.02)


def test_scale_and_order_change_nothing_and_rounding_little(to_64th):
    shuffled = np.random.default_rng(2).permutation(to_64th)
    for factor in (1e-30, 1.0, 1e30):
        assert at_scale(shuffled * factor, 16) == pytest.approx(at_scale(to_64th, 16), rel=1e-12)


@pytest.mark.parametrize("factor", [1e-3, 1e-1, 1e3, 1e6])
def test_dimensions_of_any_size_are_found(factor):
    """Where ln μ is f times smaller the dimension is f times larger."""
    logs = -np.log(np.random.default_rng(3).beta(8, 8, size=500)) / 5
    expected = gride_from_distances(np.ones(500), np.exp(logs), n1=8, n2=16) * factor
    assert gride_from_distances(np.ones(500), np.exp(logs / factor), n1=8, n2=16) == pytest.approx(
        expected, rel=1e-7
    )


def test_a_ratio_of_one_is_the_limit_of_ratios_above_it(to_64th):
    first, second = to_64th[:, 3].copy(), to_64th[:, 7].copy()
    second[0] = first[0] * (1 + 1e-12)
    near = gride_from_distances(first, second, n1=4, n2=8)
    second[0] = first[0]
    assert gride_from_distances(first, second, n1=4, n2=8) == pytest.approx(near, rel=1e-10)
    assert gride_from_distances(first, first, n1=4, n2=8) == math.inf


@pytest.mark.parametrize(
    ("first", "orders", "message"),
    [
        ([1.0, 1.0], (2, 2), "`n1` is 2 and `n2` 2; orders of neighbors need 1 ≤ n1 < n2"),
        ([1.0, 1.0], (0, 2), "`n1` is 0 and `n2` 2"),
        ([0.0, 1.0], (1, 2), "`first` has 1 of 2 distances that are zero"),
        ([3.0, 1.0], (1, 2), "`second` is below `first`"),
    ],
)
def test_what_has_no_gride_is_refused(first, orders, message):
    with pytest.raises(ValueError, match=message):
        gride_from_distances(first, [2.0, 2.0], n1=orders[0], n2=orders[1])


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((300, 6))


@pytest.fixture(scope="module")
def to_20th(points) -> np.ndarray:
    return nearest_neighbors(points, 20).distances


def local(to_20th: np.ndarray, k: int = 20) -> np.ndarray:
    return local_mle_from_summary(np.log(to_20th[:, : k - 1]).sum(axis=1), to_20th[:, k - 1], k)


def test_mada_is_scikit_dimensions(points, to_20th):
    expected = MADA().fit(points, n_neighbors=20).dimension_pw_
    np.testing.assert_allclose(mada_from_distances(to_20th[:, 9], to_20th[:, 19]), expected, rtol=1e-8)


@pytest.mark.parametrize("k", [3, 20])
def test_local_levina_bickel_is_scikit_dimensions(to_20th, k):
    arrays = (to_20th[:, :k], np.zeros((300, k), dtype=int))
    expected = MLE(unbiased=True).fit(to_20th, precomputed_knn_arrays=arrays).dimension_pw_
    np.testing.assert_allclose(local(to_20th, k), expected, rtol=1e-10)


def test_the_harmonic_mean_is_levina_bickel(to_20th):
    expected = mle_from_distances(to_20th) * 18 / 19
    assert 1 / np.mean(1 / local(to_20th)) == pytest.approx(expected, rel=1e-12)


def test_on_poisson_points_the_mean_and_the_spread_are_known():
    volumes = np.random.default_rng(1).exponential(size=(40_000, 20)).cumsum(axis=1)
    radii = volumes ** (1 / 10)
    found = local(radii)
    assert found.mean() == pytest.approx(10, abs=4 * 10 / np.sqrt(17 * 40_000))
    assert found.std() == pytest.approx(10 / np.sqrt(17), rel=0.05)
    quartiles = np.quantile(mada_from_distances(radii[:, 9], radii[:, 19]), [0.25, 0.5, 0.75])
    np.testing.assert_allclose(quartiles, [8.08, 10.0, 12.56], rtol=0.02)


def test_equal_distances_are_infinite():
    ones = np.full(5, 0.3)
    assert np.isposinf(mada_from_distances(ones, ones)).all()
    assert np.isposinf(local_mle_from_summary(19 * np.log(ones), ones, 20)).all()


def test_too_few_neighbors_are_refused():
    with pytest.raises(ValueError, match="`k` is 2; the estimate without bias needs at least 3 neighbors"):
        local_mle_from_summary([0.0], [1.0], 2)
    with pytest.raises(ValueError, match="`second` is below `first`"):
        mada_from_distances([2.0, 2.0], [1.0, 1.0])


def test_a_regular_grid_has_no_finite_dimension():
    grid = np.stack(np.meshgrid(*[np.arange(8.0)] * 3), axis=-1).reshape(-1, 3)
    assert intrinsic_dimension(grid) == math.inf
    assert intrinsic_dimension(grid + np.random.default_rng(0).uniform(-0.5, 0.5, grid.shape)) < 5


@pytest.mark.parametrize(
    ("estimate", "theirs"),
    [
        (twonn, lambda x: TwoNN(discard_fraction=0, method="mle").fit(x).dimension_),
        (twonn_fit, lambda x: TwoNN(discard_fraction=0.1).fit(x).dimension_),
        (partial(mle, k=12), lambda x: MLE(K=12, unbiased=False).fit(x).dimension_),
        (partial(gride, k=16), lambda x: GRIDE(n1=8, n2=16).fit(x).dimension_),
        (partial(mada, k=20), lambda x: np.median(MADA().fit_transform_pw(x, n_neighbors=20))),
    ],
    ids=["twonn", "twonn_fit", "mle", "gride", "mada"],
)
def test_estimators_take_a_cloud_and_count_a_repeated_row_once(estimate, theirs):
    x = rotated(500, 4, 9)
    with np.errstate(divide="ignore"):
        assert estimate(np.concatenate([x, x[:40]])) == pytest.approx(theirs(x), rel=0.02)
    assert estimate(x.astype(np.float32)) == pytest.approx(estimate(x), rel=1e-5)
