"""Ratios of neighbor distances, which all estimates of dimension are made of, and the orders that are kept.

A distance of zero is refused: repeated rows must go before the search, since a copy at distance 0 is a second
reading of one point and no neighbor.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from lmshape.geometry.checks import as_array

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

# Powers of two for GRIDE and TwoNN; 10 and 20 for MADA; 20, with a sum of logarithms, for Levina-Bickel.
KEPT_ORDERS = (1, 2, 4, 8, 10, 16, 20, 32, 64)


def log_ratios(first: ArrayLike, second: ArrayLike) -> np.ndarray:
    """Return ln(second/first), (n,) and not negative, of distances to two neighbors of the same n ≥ 2 points.

    `ValueError` for a distance that is not positive and finite, and where `second` is below `first`.
    """
    first, second = (np.asarray(as_array(values), dtype=np.float64) for values in (first, second))
    if first.shape != second.shape or first.ndim != 1 or len(first) < 2:
        raise ValueError(
            f"`first` {first.shape} and `second` {second.shape} must be (n,) of the same points, n ≥ 2."
        )
    refuse_unusable(first, name="first")
    refuse_unusable(second, name="second")
    if (second < first).any():
        raise ValueError("`second` is below `first` for some points; swap them or sort the distances.")
    return np.log(second / first)


def summed_log_ratios(log_distance_sum: ArrayLike, last: ArrayLike, k: int) -> np.ndarray:
    """Return Σ ln(r_k/r_j) over the neighbors j = 1 … k − 1 of each point from two numbers of it.

    Parameters
    ----------
    log_distance_sum : (n,) Σ ln r_j over the neighbors j = 1 … k − 1 of each point
    last : (n,) distance r_k to the k-th neighbor, positive
    k : number of neighbors, at least 2

    Returns
    -------
    (n,) not negative; 0 where only rounding keeps the logarithms of the distances apart.
    """
    if k < 2:
        raise ValueError(f"`k` is {k}; ratios of distances need at least 2 neighbors.")
    sums, last = (np.asarray(as_array(values), dtype=np.float64) for values in (log_distance_sum, last))
    if sums.shape != last.shape or sums.ndim != 1 or len(sums) < 1:
        raise ValueError(
            f"`log_distance_sum` {sums.shape} and `last` {last.shape} must be (n,) of the same points."
        )
    refuse_unusable(last, name="last")
    if not np.isfinite(sums).all():
        raise ValueError("`log_distance_sum` is not finite. Remove repeated rows before searching neighbors.")
    terms = (k - 1) * np.log(last) - sums
    # logarithms of equal distances differ by their rounding
    noise = 4 * np.finfo(np.float64).eps * k * np.maximum(np.abs(np.log(last)), 1)
    if (terms < -noise).any():
        raise ValueError(
            f"`log_distance_sum` exceeds (k − 1) ln r_k for `k` {k}; it must hold the nearer k − 1."
        )
    return np.where(terms > noise, terms, 0.0)


def refuse_unusable(distances: np.ndarray, *, name: str) -> None:
    """Raise `ValueError` for distances that are zero, negative or not finite."""
    bad = np.count_nonzero(~(np.isfinite(distances) & (distances > 0)))
    if bad:
        raise ValueError(
            f"`{name}` has {bad} of {distances.size} distances that are zero, negative or not finite. "
            "Remove repeated rows before searching neighbors."
        )


def divide(numerator: float, denominator: float) -> float:
    """Return the quotient of two numbers that are not negative, infinite where the denominator is 0."""
    return float(numerator / denominator) if denominator > 0 else math.inf
