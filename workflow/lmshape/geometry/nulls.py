"""Nulls: the values of metrics for isotropic Gaussian rows at the same n and d.

The eigenvalues of n isotropic rows spread by √(d/n) although all d variances are equal (Marchenko & Pastur 1967).
Compare a measured value with these numbers, not with the limit n → ∞.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from lmshape.geometry.checks import as_floats

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


ANGLES = 4096  # at which the Marchenko-Pastur law is integrated: shares are good to 1e-6


def anisotropy_null(n: int, d: int) -> float:
    """Return the anisotropy of n isotropic rows in d dimensions: (1 + √(d/n))²/d, at most 1.

    The upper edge of the Marchenko–Pastur law over the mean eigenvalue. Good to n^−2/3, the width of the
    distribution of the largest eigenvalue (Tracy & Widom).
    """
    _refuse_degenerate(n, d)
    return min((1 + math.sqrt(d / n)) ** 2 / d, 1.0)


def participation_ratio_null(n: int, d: int) -> float:
    """Return the participation ratio of n isotropic rows in d dimensions: (νd + 2)/(ν + d + 1), ν = n − 1.

    E(tr S)²/E tr S² of a Wishart matrix of ν degrees of freedom; about d/(1 + d/n): 434 for d = 768, n = 1000.
    """
    _refuse_degenerate(n, d)
    return ((n - 1) * d + 2) / (n + d)


def effective_rank_null(n: int, d: int) -> float:
    """Return the effective rank of n isotropic rows in d dimensions: m exp(−m/(2M)), at least 1.

    m and M are the smaller and the larger of n − 1 and d. Under the Marchenko–Pastur law of ratio c = m/M and
    mean 1 the integral of λ ln λ is c/2 (Page 1993, doi:10.1103/PhysRevLett.71.1291: the entropy of the shares
    is ln m − m/(2M)). Good to 1/m.
    """
    _refuse_degenerate(n, d)
    small, large = sorted((n - 1, d))
    return max(small * math.exp(-small / (2 * large)), 1.0)


def spectrum_null(n: int, d: int, ranks: ArrayLike) -> np.ndarray:
    """Return the shares λ_rank / Σλ of n isotropic rows in d dimensions: quantiles of the Marchenko–Pastur law.

    Parameters
    ----------
    n, d : rows and columns
    ranks : (r,) whole numbers from 1, the largest eigenvalue, to min(n − 1, d)

    Returns
    -------
    (r,) shares, descending; the sum over all ranks is 1 to 0.1/m. With m and M the smaller and larger of n − 1 and d,
    λ in units of its mean has the density √((b − x)(x − a)) / (2π c x) between a, b = (1 ∓ √c)², c = m/M; the
    eigenvalue of rank r is taken where a share (r − ½)/m of the law lies above.

    References
    ----------
    Marchenko & Pastur 1967.
    """
    _refuse_degenerate(n, d)
    small, large = sorted((n - 1, d))
    ratio = small / large
    # x = 1 + c + 2 √c cos φ, in which the law is (2/π) sin² φ / x dφ, without singularity
    edges = np.linspace(0, math.pi, ANGLES + 1)
    middles = (edges[1:] + edges[:-1]) / 2
    above = np.cumsum(np.square(np.sin(middles)) / (1 + ratio + 2 * math.sqrt(ratio) * np.cos(middles)))
    wanted = (np.asarray(ranks, dtype=np.float64) - 0.5) / small
    angle = np.interp(wanted, np.concatenate([[0.0], above / above[-1]]), edges)
    return (1 + ratio + 2 * math.sqrt(ratio) * np.cos(angle)) / small


def _refuse_degenerate(n: int, d: int) -> None:
    if n < 2 or d < 1:
        raise ValueError(f"`n`={n}, `d`={d}: a covariance needs 2 rows and 1 column.")


def gaussian_surrogate(
    eigenvalues: ArrayLike, n: int, *, seed: int | tuple[int, ...] = 0, deviates: np.ndarray | None = None
) -> np.ndarray:
    """Draw normal rows whose covariance has the given eigenvalues, in its principal axes, up to a scale.

    For statistics that rotation, translation and scale leave alone, as neighbors do, that is a sample with
    the covariance itself. The same seed gives the same deviates whatever the eigenvalues: estimates on two
    layers or checkpoints differ by their spectra and not by chance.

    Parameters
    ----------
    eigenvalues : (d,) of a covariance, not negative, not all 0
    n : rows to draw
    seed : of NumPy's default generator
    deviates : (n or more, d or more) standard normal numbers in place of those of the seed, from `normal_deviates`

    Returns
    -------
    (n, d) float64, column i of variance λ_i/λ_max. O(n d) time.
    """
    variances = as_floats(eigenvalues)
    usable = np.isfinite(variances).all() and (variances >= 0).all() and variances.any()
    if variances.ndim != 1 or not usable:
        raise ValueError(
            f"`eigenvalues` {variances.shape} must be (d,), finite, not negative and not all 0; "
            "rows that are all equal have no surrogate."
        )
    if n < 1:
        raise ValueError(f"`n` is {n}; a sample needs at least 1 row.")
    if deviates is None:
        deviates = normal_deviates(n, len(variances), seed=seed)
    return deviates[:n, : len(variances)] * np.sqrt(variances / variances.max())


def normal_deviates(n: int, d: int, *, seed: int | tuple[int, ...]) -> np.ndarray:
    """Draw (n, d) standard normal numbers, float64; the first rows of a seed are the same whatever n."""
    return np.random.default_rng(seed).standard_normal((n, d))
