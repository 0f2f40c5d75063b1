"""What rows without any structure read: isotropic Gaussian data of the same n and d.

n rows never show d equal variances, whatever they are: their eigenvalues spread as Marchenko & Pastur (1967)
say, by √(d/n). A measured value is to be read beside these numbers, not beside n → ∞.
"""

from __future__ import annotations

import math


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


def _refuse_degenerate(n: int, d: int) -> None:
    if n < 2 or d < 1:
        raise ValueError(f"`n`={n}, `d`={d}: a covariance needs 2 rows and 1 column.")
