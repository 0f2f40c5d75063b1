"""Nulls against simulation, against the Marchenko-Pastur law integrated, and at their ends."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad

from lmshape.geometry import scalars
from lmshape.geometry.nulls import anisotropy_null, effective_rank_null, participation_ratio_null

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
