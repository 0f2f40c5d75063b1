"""Sums of many rows in one pass: the spectra and fourth moments of all and of parts, to the last digits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layers import layer_of

from lmshape.geometry import spectrum
from lmshape.geometry.scalars import effective_rank_of
from lmshape.geometry.spectrum import MomentSums
from lmshape.metrics import spectral


def sums_of(x: np.ndarray, sizes: list[int], center: np.ndarray) -> MomentSums:
    sums = MomentSums(center)
    for batch in np.split(x, np.unique(np.cumsum(sizes).clip(max=len(x) - 1))):
        sums.update(batch)
    sums.finish()
    return sums


@settings(max_examples=40, deadline=None)
@given(
    st.integers(2, 60), st.integers(1, 9), st.lists(st.integers(1, 25), min_size=1), st.integers(0, 2**32 - 1)
)
def test_sums_are_those_of_numpy_whatever_the_batches(n: int, d: int, sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d)) * 10.0 ** rng.uniform(-3, 3, d) + 10.0 ** rng.uniform(-3, 5, d)
    sums = sums_of(x, sizes, x[0])
    differences = (x - x[0]) - (x - x[0]).mean(axis=0)
    size = np.sqrt(np.square(differences).sum())
    assert sums.covariance.count == n
    np.testing.assert_allclose(sums.mean, x.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(sums.covariance.scatter, differences.T @ differences, atol=1e-13 * size**2)
    fourth = np.square(np.square(differences).sum(axis=1)).sum() / (n - 1)
    assert sums.fourth_moment() == pytest.approx(fourth, rel=1e-10)


def test_merged_sums_are_those_of_all_rows_and_leave_their_parts_alone() -> None:
    x = np.random.default_rng(0).standard_normal((500, 6)) * np.geomspace(1, 100, 6) + 1000
    x[250:] += 30
    parts = [sums_of(part, [7, 40], x[3]) for part in np.split(x, [10, 250])]
    before = parts[1].covariance.scatter.copy()
    merged, direct = MomentSums.merged(parts), sums_of(x, [500], x[3])
    np.testing.assert_allclose(merged.covariance.scatter, direct.covariance.scatter, rtol=1e-11, atol=1e-7)
    assert merged.fourth_moment() == pytest.approx(direct.fourth_moment(), rel=1e-12)
    assert merged.covariance.count == 500
    np.testing.assert_array_equal(parts[1].covariance.scatter, before)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_effective_rank_under_a_direction_of_nearly_all_variance(dtype: type, offset: float) -> None:
    """Issue: relative error ≤ 1e-9 against a float64 SVD with one direction holding 99.98 % of the variance."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3000, 96)) * np.arange(1, 97) ** -0.7
    direction = rng.standard_normal(96)
    x += np.outer(rng.standard_normal(3000), direction / np.linalg.norm(direction)) * 130
    x = (x + offset).astype(dtype)
    singular = np.linalg.svd(x - x.astype(np.float64).mean(axis=0), compute_uv=False)
    shares = singular**2 / np.square(singular).sum()
    assert 0.9997 < shares[0] < 0.9999
    expected = np.exp(-(shares * np.log(shares)).sum())
    arrays, _ = spectral.statistics(layer_of(x, np.arange(3000) * 5 // 3000))["all"]
    assert effective_rank_of(arrays["eigenvalues"])[0] == pytest.approx(expected, rel=1e-11)


def wide(n: int, d: int, *, isotropic: bool = False) -> np.ndarray:
    rng = np.random.default_rng(1)
    return rng.standard_normal((n, d)) * (
        1.0 if isotropic else np.arange(1, d + 1) ** -0.5
    ) + rng.standard_normal(d)


@pytest.mark.parametrize("isotropic", [False, True])
def test_the_leading_eigenvalue_alone_is_that_of_all(
    monkeypatch: pytest.MonkeyPatch, isotropic: bool
) -> None:
    x, draw = wide(400, 60, isotropic=isotropic), np.arange(400) % 4
    whole = spectrum.leave_one_out_spectra(x, draw)
    monkeypatch.setattr(spectrum, "ITERATED_WIDTH", 8)
    alone = spectrum.leave_one_out_spectra(x, draw)
    for name in ("leading_uncentered", "leading_standardized"):
        np.testing.assert_allclose(getattr(alone, name), getattr(whole, name), rtol=1e-12)


@pytest.mark.parametrize(
    "x", [np.outer(np.arange(90.0), np.ones(20)), np.full((90, 20), 0.1), np.zeros((90, 20))]
)
def test_the_leading_eigenvalue_of_few_directions(monkeypatch: pytest.MonkeyPatch, x: np.ndarray) -> None:
    monkeypatch.setattr(spectrum, "ITERATED_WIDTH", 1)
    spectra = spectrum.leave_one_out_spectra(x, np.arange(90) % 3)
    uncentered = np.square(np.linalg.svd(x, compute_uv=False)[0]) / 89
    assert spectra.leading_uncentered[0] == pytest.approx([uncentered, uncentered], rel=1e-12)
    correlated = 20 * (np.ptp(x) > 0)
    assert spectra.leading_standardized[0] == pytest.approx([correlated, correlated], rel=1e-12)


def test_an_iteration_that_does_not_end_is_replaced_by_the_decomposition(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from scipy.sparse import linalg

    def endless(*_: object, **__: object) -> None:
        raise linalg.ArpackNoConvergence("no convergence", np.empty(0), np.empty((0, 0)))

    x, draw = wide(200, 30), np.arange(200) % 2
    whole = spectrum.leave_one_out_spectra(x, draw).leading_uncentered
    monkeypatch.setattr(spectrum, "ITERATED_WIDTH", 8)
    monkeypatch.setattr(linalg, "eigsh", endless)
    np.testing.assert_array_equal(spectrum.leave_one_out_spectra(x, draw).leading_uncentered, whole)
