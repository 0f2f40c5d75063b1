"""Dimension at each point against scikit-dimension and its known distribution on Poisson points."""

from __future__ import annotations

import numpy as np
import pytest
from skdim.id import MADA, MLE

from lmshape.geometry.dimension import levina_bickel, local_levina_bickel, mada
from lmshape.geometry.neighbors import nearest_neighbors


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((300, 6))


@pytest.fixture(scope="module")
def distances(x) -> np.ndarray:
    return nearest_neighbors(x, 20).distances


def local(distances: np.ndarray, k: int = 20) -> np.ndarray:
    return local_levina_bickel(np.log(distances[:, : k - 1]).sum(axis=1), distances[:, k - 1], k)


def test_mada_is_scikit_dimensions(x, distances):
    expected = MADA().fit(x, n_neighbors=20).dimension_pw_
    np.testing.assert_allclose(mada(distances[:, 9], distances[:, 19]), expected, rtol=1e-8)


@pytest.mark.parametrize("k", [3, 20])
def test_local_levina_bickel_is_scikit_dimensions(distances, k):
    arrays = (distances[:, :k], np.zeros((300, k), dtype=int))
    expected = MLE(unbiased=True).fit(distances, precomputed_knn_arrays=arrays).dimension_pw_
    np.testing.assert_allclose(local(distances, k), expected, rtol=1e-10)


def test_the_harmonic_mean_is_levina_bickel(distances):
    expected = levina_bickel(distances) * 18 / 19
    assert 1 / np.mean(1 / local(distances)) == pytest.approx(expected, rel=1e-12)


def test_on_poisson_points_the_mean_and_the_spread_are_known():
    volumes = np.random.default_rng(1).exponential(size=(40_000, 20)).cumsum(axis=1)
    radii = volumes ** (1 / 10)
    found = local(radii)
    assert found.mean() == pytest.approx(10, abs=4 * 10 / np.sqrt(17 * 40_000))
    assert found.std() == pytest.approx(10 / np.sqrt(17), rel=0.05)
    quartiles = np.quantile(mada(radii[:, 9], radii[:, 19]), [0.25, 0.5, 0.75])
    np.testing.assert_allclose(quartiles, [8.08, 10.0, 12.56], rtol=0.02)


def test_equal_distances_are_infinite():
    ones = np.full(5, 0.3)
    assert np.isposinf(mada(ones, ones)).all()
    assert np.isposinf(local_levina_bickel(19 * np.log(ones), ones, 20)).all()


def test_too_few_neighbors_are_refused():
    with pytest.raises(ValueError, match="`k` is 2; the estimate without bias needs at least 3 neighbors"):
        local_levina_bickel([0.0], [1.0], 2)
    with pytest.raises(ValueError, match="`second` is below `first`"):
        mada([2.0, 2.0], [1.0, 1.0])
