"""Nulls against simulation and the Marchenko-Pastur law integrated; the Gaussian surrogate of a spectrum."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad

from lmshape.geometry import scalars
from lmshape.geometry.dimension import intrinsic_dimension
from lmshape.geometry.nulls import (
    anisotropy_null,
    effective_rank_null,
    gaussian_surrogate,
    participation_ratio_null,
)
from lmshape.geometry.spectrum import covariance_eigenvalues

NULLS = (anisotropy_null, effective_rank_null, participation_ratio_null)
SIZES = [(1001, 300), (300, 300), (200, 500), (2000, 64)]


def integrated_entropy_rank(n: int, d: int) -> float:
    """m exp(−∫ λ ln λ dλ) under the Marchenko–Pastur law of mean 1, by quadrature in an angle."""
    small, large = sorted((n - 1, d))
    ratio = small / large
    low, width = (1 - np.sqrt(ratio)) ** 2, 4 * np.sqrt(ratio)

    def integrand(angle: float) -> float:
        value = low + width * np.sin(angle) ** 2
        density = width * np.sin(angle) * np.cos(angle) / (2 * np.pi * ratio * value)
        return value * np.log(value) * density * width * 2 * np.sin(angle) * np.cos(angle)

    return small * np.exp(-quad(integrand, 0, np.pi / 2, epsabs=1e-12)[0])


@pytest.mark.parametrize(("n", "d"), [*SIZES, (10_000, 768), (768, 10_000)])
def test_the_effective_rank_is_the_entropy_of_marchenko_and_pastur(n, d):
    assert effective_rank_null(n, d) == pytest.approx(integrated_entropy_rank(n, d), rel=1e-9)


@pytest.mark.parametrize(("n", "d"), SIZES)
def test_isotropic_rows_read_the_nulls(n, d):
    rng = np.random.default_rng(n)
    x = [rng.standard_normal((n, d)) for _ in range(3)]
    assert np.mean([scalars.effective_rank(part) for part in x]) == pytest.approx(
        effective_rank_null(n, d), rel=5e-3
    )
    assert np.mean([scalars.participation_ratio(part) for part in x]) == pytest.approx(
        participation_ratio_null(n, d), rel=5e-3
    )
    assert np.mean([scalars.anisotropy(part) for part in x]) == pytest.approx(anisotropy_null(n, d), rel=0.05)


def test_the_value_that_is_stated():
    assert participation_ratio_null(1000, 768) == pytest.approx(434, abs=0.5)
    assert participation_ratio_null(10**7, 100) == pytest.approx(100 / (1 + 1e-5), rel=1e-6)


@pytest.mark.parametrize(("n", "d"), [(2, 1), (2, 500), (500, 1), (10**8, 1)])
def test_a_line_reads_one(n, d):
    assert participation_ratio_null(n, d) == pytest.approx(1, rel=1e-12)
    assert effective_rank_null(n, d) == 1
    assert anisotropy_null(n, d) <= 1


@pytest.mark.parametrize("null", NULLS)
def test_no_cloud_no_null(null):
    for n, d in ((1, 5), (5, 0)):
        with pytest.raises(ValueError, match=f"`n`={n}, `d`={d}: a covariance needs 2 rows and 1 column"):
            null(n, d)


def test_the_covariance_is_the_given_one_up_to_its_scale():
    eigenvalues = np.array([8.0, 4.0, 1.0, 0.0])
    sample = gaussian_surrogate(eigenvalues, 40_000, seed=0)
    covariance = np.cov(sample, rowvar=False)
    np.testing.assert_allclose(covariance, np.diag(eigenvalues) / 8, atol=0.02)
    np.testing.assert_allclose(sample.mean(axis=0), 0, atol=0.02)


def test_a_seed_gives_the_same_deviates_whatever_the_spectrum():
    one, other = (gaussian_surrogate(spectrum, 50, seed=(3, 1)) for spectrum in ([4.0, 1.0], [1.0, 1.0]))
    np.testing.assert_allclose(one[:, 0], other[:, 0], rtol=1e-15)
    np.testing.assert_allclose(2 * one[:, 1], other[:, 1], rtol=1e-15)
    assert not np.array_equal(one, gaussian_surrogate([4.0, 1.0], 50, seed=(3, 2)))


def test_a_tensor_is_a_spectrum():
    torch = pytest.importorskip("torch")
    spectrum = torch.tensor([4.0, 1.0], dtype=torch.bfloat16, requires_grad=True)
    np.testing.assert_array_equal(
        gaussian_surrogate(spectrum, 9, seed=0), gaussian_surrogate([4.0, 1.0], 9, seed=0)
    )


def test_tiny_and_huge_variances_are_as_good_as_others():
    for scale in (1e-300, 1e300):
        sample = gaussian_surrogate(scale * np.array([4.0, 1.0]), 10, seed=0)
        np.testing.assert_allclose(sample, gaussian_surrogate([4.0, 1.0], 10, seed=0), rtol=1e-12)


def test_gaussian_rows_read_what_their_surrogate_does_and_a_curved_line_does_not():
    rng = np.random.default_rng(1)
    rotation = np.linalg.qr(rng.standard_normal((12, 12)))[0]
    x = rng.standard_normal((1500, 12)) * np.geomspace(1, 5, 12) @ rotation
    angle = rng.uniform(0, 2 * np.pi, 1500)
    curve = np.stack([f(j * angle) for j in (1, 2, 3) for f in (np.sin, np.cos)], axis=1)
    for cloud, same in ((x, True), (curve, False)):
        sample = gaussian_surrogate(covariance_eigenvalues(cloud), 1500, seed=0)
        ratio = intrinsic_dimension(sample) / intrinsic_dimension(cloud)
        assert ratio == pytest.approx(1, abs=0.15) if same else ratio > 4


@pytest.mark.parametrize(
    ("eigenvalues", "n", "message"),
    [
        ([0.0, 0.0], 5, r"`eigenvalues` \(2,\) must be \(d,\), finite, not negative and not all 0"),
        ([1.0, -1.0], 5, "`eigenvalues`"),
        ([1.0, np.nan], 5, "`eigenvalues`"),
        ([[1.0]], 5, r"`eigenvalues` \(1, 1\)"),
        ([1.0], 0, "`n` is 0; a sample needs at least 1 row"),
    ],
)
def test_what_is_no_spectrum_is_refused(eigenvalues, n, message):
    with pytest.raises(ValueError, match=message):
        gaussian_surrogate(eigenvalues, n, seed=0)
