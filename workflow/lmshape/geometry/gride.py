"""The dimension as a function of scale: GRIDE, the two-neighbor estimate with neighbors further away."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from lmshape.geometry.ratios import log_ratios

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

MOST_STEPS = 100  # of Newton's method, which needs about six


def gride(first: ArrayLike, second: ArrayLike, *, n1: int, n2: int) -> float:
    """Estimate the dimension by maximum likelihood from the distances to the neighbors n1 and n2.

    With μ = r_n2/r_n1 and m = n2 − n1 − 1, the density d (μ^d − 1)^m / (B(n2 − n1, n1) μ^(d(n2 − 1) + 1)) holds
    where that of the points is constant over r_n2. Its logarithm is concave in d; the maximum solves
    n − 1 + m Σ h(d ln μ) = (n2 − 1) d Σ ln μ with h(y) = y/(1 − e^−y). The 1 less than the n of the likelihood
    takes the bias out of n2 = 2.

    Parameters
    ----------
    first, second : (n,) distances to the neighbors n1 and n2, 0 < first ≤ second, n ≥ 2
    n1, n2 : orders of the neighbors, 1 ≤ n1 < n2

    Returns
    -------
    Positive; infinite where every ratio is 1. A ratio of 1 counts as the limit of ratios above it. The larger
    n1, the less noisy and the less local. For n2 = 2 it is `twonn`.

    Notes
    -----
    scikit-dimension's `GRIDE`, and DADApy's, but that these leave out ratios of 1 and far above the median.

    References
    ----------
    Denti, Doimo, Laio & Mira 2022, doi:10.1038/s41598-022-20991-1.
    """
    if not 1 <= n1 < n2:
        raise ValueError(f"`n1` is {n1} and `n2` {n2}; orders of neighbors need 1 ≤ n1 < n2.")
    logs = log_ratios(first, second)
    logs = logs / (scale := logs.mean() or 1.0)
    if not logs.any():
        return math.inf
    return _root(logs, m=n2 - n1 - 1, slope=(n2 - 1) * len(logs)) / scale


def _root(logs: np.ndarray, *, m: int, slope: int) -> float:
    """Solve the score's equation for logarithms of mean 1.

    The score n − 1 + m Σ h(d L) − slope d falls and is convex in d: Newton's steps from 0 rise to its root and
    never pass it, until rounding ends them.
    """
    dimension = 0.0
    for _ in range(MOST_STEPS):
        values, slopes = _h(dimension * logs)
        step = (len(logs) - 1 + m * values.sum() - slope * dimension) / (slope - m * (slopes @ logs))
        dimension += step
        if step <= 16 * np.finfo(np.float64).eps * dimension:
            return dimension
    raise ArithmeticError(f"no maximum of the likelihood after {MOST_STEPS} steps, at {dimension}.")


def _h(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return y/(1 − e^−y), 1 at 0, and its derivative, 1/2 at 0, for y ≥ 0."""
    small = y < 1e-4  # the series below errs by y³/720 relative to 1: under 1e-14
    safe = np.where(small, 1.0, y)
    rest = -np.expm1(-safe)
    values = np.where(small, 1 + y / 2 + y * y / 12, safe / rest)
    slopes = np.where(small, 0.5 + y / 6, (1 - safe * np.exp(-safe) / rest) / rest)
    return values, slopes
