"""GRIDE against scikit-dimension, a numerical maximum of its likelihood, and clouds of known dimension."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.spatial import cKDTree
from scipy.special import betaln
from skdim.id import GRIDE

from lmshape.geometry.dimension import gride, twonn
from lmshape.geometry.neighbors import nearest_neighbors

SCALES = (2, 4, 8, 16, 32, 64)


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((600, 8)) * np.geomspace(1, 4, 8)


@pytest.fixture(scope="module")
def distances(x) -> np.ndarray:
    return nearest_neighbors(x, 64).distances


def at_scale(distances: np.ndarray, n2: int) -> float:
    return gride(distances[:, n2 // 2 - 1], distances[:, n2 - 1], n1=n2 // 2, n2=n2)


@pytest.mark.parametrize("n2", SCALES)
def test_the_estimate_is_scikit_dimensions(x, distances, n2):
    assert at_scale(distances, n2) == pytest.approx(GRIDE(n1=n2 // 2).fit(x).dimension_, rel=1e-7)


@pytest.mark.parametrize(("n1", "n2"), [(1, 2), (2, 4), (32, 64), (1, 20), (3, 7)])
def test_the_estimate_maximizes_the_likelihood(distances, n1, n2):
    mu = distances[:, n2 - 1] / distances[:, n1 - 1]

    def negative_log_likelihood(d: float) -> float:
        log_density = (n2 - n1 - 1) * np.log(np.expm1(d * np.log(mu))) - ((n2 - 1) * d + 1) * np.log(mu)
        return -((len(mu) - 1) * np.log(d) + log_density.sum() - len(mu) * betaln(n2 - n1, n1))

    best = minimize_scalar(
        negative_log_likelihood, bounds=(0.5, 40), method="bounded", options={"xatol": 1e-9}
    )
    assert gride(distances[:, n1 - 1], distances[:, n2 - 1], n1=n1, n2=n2) == pytest.approx(best.x, rel=1e-6)


def test_two_neighbors_are_twonn(distances):
    assert at_scale(distances, 2) == pytest.approx(twonn(distances[:, 0], distances[:, 1]), rel=1e-13)


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


def test_scale_and_order_change_nothing_and_rounding_little(distances):
    shuffled = np.random.default_rng(2).permutation(distances)
    for factor in (1e-30, 1.0, 1e30):
        assert at_scale(shuffled * factor, 16) == pytest.approx(at_scale(distances, 16), rel=1e-12)


@pytest.mark.parametrize("factor", [1e-3, 1e-1, 1e3, 1e6])
def test_dimensions_of_any_size_are_found(factor):
    """Where ln μ is f times smaller the dimension is f times larger."""
    logs = -np.log(np.random.default_rng(3).beta(8, 8, size=500)) / 5
    expected = gride(np.ones(500), np.exp(logs), n1=8, n2=16) * factor
    assert gride(np.ones(500), np.exp(logs / factor), n1=8, n2=16) == pytest.approx(expected, rel=1e-7)


def test_a_ratio_of_one_is_the_limit_of_ratios_above_it(distances):
    first, second = distances[:, 3].copy(), distances[:, 7].copy()
    second[0] = first[0] * (1 + 1e-12)
    near = gride(first, second, n1=4, n2=8)
    second[0] = first[0]
    assert gride(first, second, n1=4, n2=8) == pytest.approx(near, rel=1e-10)
    assert gride(first, first, n1=4, n2=8) == math.inf


@pytest.mark.parametrize(
    ("first", "orders", "message"),
    [
        ([1.0, 1.0], (2, 2), "`n1` is 2 and `n2` 2; orders of neighbors need 1 ≤ n1 < n2"),
        ([1.0, 1.0], (0, 2), "`n1` is 0 and `n2` 2"),
        ([0.0, 1.0], (1, 2), "`first` has 1 of 2 distances that are zero"),
        ([3.0, 1.0], (1, 2), "`second` is below `first`"),
    ],
)
def test_what_has_no_dimension_is_refused(first, orders, message):
    with pytest.raises(ValueError, match=message):
        gride(first, [2.0, 2.0], n1=orders[0], n2=orders[1])
