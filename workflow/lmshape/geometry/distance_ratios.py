"""Intrinsic dimension from distances to nearest neighbors: how fast the number of points grows with radius.

Each estimator is a function of distances alone and refuses a zero among them: repeated rows must go before
the search, since a copy at distance 0 is a second reading of one point and no neighbor. All are biased low in
high dimension (a uniform 20-cube reads 15.6 at n = 4096): report them with their n, never as the truth.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from lmshape.geometry.checks import as_floats

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


# Powers of two for GRIDE and TwoNN; 10 and 20 for MADA; 20, with a sum of logarithms, for Levina-Bickel.
KEPT_ORDERS = (1, 2, 4, 8, 10, 16, 20, 32, 64)
MOST_STEPS = 100  # of Newton's method, which needs about six


def _log_ratios(first: ArrayLike, second: ArrayLike) -> np.ndarray:
    """Return ln(second/first), (n,) and not negative, of distances to two neighbors of the same n ≥ 2 points.

    `ValueError` for a distance that is not positive and finite, and where `second` is below `first`.
    """
    first, second = (as_floats(values) for values in (first, second))
    if first.shape != second.shape or first.ndim != 1 or len(first) < 2:
        raise ValueError(
            f"`first` {first.shape} and `second` {second.shape} must be (n,) of the same points, n ≥ 2."
        )
    _refuse_unusable(first, name="first")
    _refuse_unusable(second, name="second")
    if (second < first).any():
        raise ValueError("`second` is below `first` for some points; swap them or sort the distances.")
    return np.log(second / first)


def _summed_log_ratios(log_distance_sum: ArrayLike, last: ArrayLike, k: int) -> np.ndarray:
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
    sums, last = (as_floats(values) for values in (log_distance_sum, last))
    if sums.shape != last.shape or sums.ndim != 1 or len(sums) < 1:
        raise ValueError(
            f"`log_distance_sum` {sums.shape} and `last` {last.shape} must be (n,) of the same points."
        )
    _refuse_unusable(last, name="last")
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


def _refuse_unusable(distances: np.ndarray, *, name: str) -> None:
    bad = np.count_nonzero(~(np.isfinite(distances) & (distances > 0)))
    if bad:
        raise ValueError(
            f"`{name}` has {bad} of {distances.size} distances that are zero, negative or not finite. "
            "Remove repeated rows before searching neighbors."
        )


def _ratio(numerator: ArrayLike, denominators: np.ndarray) -> np.ndarray:
    """Return the quotients of numbers that are not negative, infinite where a denominator is 0."""
    infinite = np.full_like(denominators, np.inf)
    return np.divide(numerator, denominators, out=infinite, where=denominators > 0)


def gride_from_distances(first: ArrayLike, second: ArrayLike, *, n1: int, n2: int) -> float:
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
    n1, the less noisy and the less local. For n2 = 2 it is `twonn_from_distances`.

    Notes
    -----
    scikit-dimension's `GRIDE`, and DADApy's, but that these leave out ratios of 1 and far above the median.

    References
    ----------
    Denti, Doimo, Laio & Mira 2022, doi:10.1038/s41598-022-20991-1.
    """
    if not 1 <= n1 < n2:
        raise ValueError(f"`n1` is {n1} and `n2` {n2}; orders of neighbors need 1 ≤ n1 < n2.")
    logs = _log_ratios(first, second)
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


def mada_from_distances(half: ArrayLike, full: ArrayLike) -> np.ndarray:
    """Estimate the dimension at each point from how fast the ball around it fills: ln 2 / ln(r_k / r_(k/2)).

    Parameters
    ----------
    half, full : (n,) distances to the neighbors k/2 and k, 0 < half ≤ full, n ≥ 2

    Returns
    -------
    (n,) positive; infinite where both neighbors are at one distance. A single point's estimate is noisy and
    skewed: at k = 20 and d = 10 its quartiles are 8.1 and 12.6. Take the median over points.

    Notes
    -----
    scikit-dimension's `MADA`.

    References
    ----------
    Farahmand, Szepesvári & Audibert 2007, "Manifold-adaptive dimension estimation".
    """
    return _ratio(np.log(2), _log_ratios(half, full))


def local_mle_from_summary(log_distance_sum: ArrayLike, last: ArrayLike, k: int) -> np.ndarray:
    """Estimate the dimension at each point by maximum likelihood from its k nearest distances, without bias.

    (k − 2) / Σ_{j<k} ln(r_k/r_j): its mean is d where the density is constant over r_k, with a standard
    deviation of d/√(k − 3).

    Parameters
    ----------
    log_distance_sum : (n,) Σ ln r_j over the neighbors j = 1 … k − 1 of each point
    last : (n,) distance r_k to the k-th neighbor, positive
    k : number of neighbors, at least 3

    Returns
    -------
    (n,) positive; infinite where all neighbors are at one distance.

    Notes
    -----
    scikit-dimension's `MLE(unbiased=True).dimension_pw_`. One over the mean of one over these is (k − 2)/(k − 1)
    times `mle_from_distances`.

    References
    ----------
    Levina & Bickel 2004, "Maximum likelihood estimation of intrinsic dimension", the remark below equation 9.
    """
    if k < 3:
        raise ValueError(f"`k` is {k}; the estimate without bias needs at least 3 neighbors.")
    return _ratio(k - 2, _summed_log_ratios(log_distance_sum, last, k))


def twonn_from_distances(first: ArrayLike, second: ArrayLike) -> float:
    """Estimate the dimension by maximum likelihood from the ratio of the two nearest distances.

    (n − 1) / Σ ln μ with μ = r2/r1, which is Pareto of exponent d where the density is constant over r2.

    Parameters
    ----------
    first, second : (n,) distances to the first and second nearest neighbor, 0 < first ≤ second, n ≥ 2

    Returns
    -------
    Positive; infinite where every second distance equals its first, as on a simplex or a lattice. Unbiased on
    Pareto ratios, standard deviation d/√(n − 2).

    Notes
    -----
    scikit-dimension's `TwoNN(discard_fraction=0, method="mle")`.

    References
    ----------
    Facco et al. 2017, doi:10.1038/s41598-017-11873-y; Denti et al. 2022, doi:10.1038/s41598-022-20991-1.
    """
    logs = _log_ratios(first, second)
    return float(_ratio(len(logs) - 1, logs.sum()))


def twonn_fit_from_distances(first: ArrayLike, second: ArrayLike, *, share: float = 0.9) -> float:
    """Estimate the dimension as the slope of a line through 0 of −ln(1 − i/n) on the sorted ln μ.

    Parameters
    ----------
    first, second : (n,) distances to the first and second nearest neighbor, 0 < first ≤ second
    share : the share of the smallest ratios that the line is fitted to, between 0 and 1

    Returns
    -------
    Positive; infinite where all these ratios are 1.

    Notes
    -----
    ⌊share · n⌋ ratios enter. scikit-dimension's `TwoNN(discard_fraction=f)` takes ⌊(1 − f) · n⌋, one less
    where 1 − f rounds down (f = 0.8). It drops points with r1 = 0, which are refused here.

    References
    ----------
    Facco et al. 2017 for a share of 0.9; LLM-Microscope (arXiv 2311.05928) takes 0.2, about twice as noisy.
    """
    if not 0 < share < 1:
        raise ValueError(
            f"`share` is {share}; it must lie between 0 and 1: −ln(1 − i/n) is infinite at i = n."
        )
    logs = np.sort(_log_ratios(first, second))
    n = len(logs)
    used = int(share * n)
    if used < 2:
        raise ValueError(
            f"`share` {share} of {n} ratios leaves {used} to fit; at least 2 are needed. Add rows."
        )
    logs = logs[:used]
    heights = -np.log1p(-np.arange(1, used + 1) / n)
    return float(_ratio(logs @ heights, logs @ logs))


def mle_from_distances(distances: ArrayLike) -> float:
    """Estimate the dimension by maximum likelihood from the k nearest distances of every point.

    n (k − 1) / Σ_i Σ_{j<k} ln(r_k/r_j): one over the mean over points of one over the local estimates.

    Parameters
    ----------
    distances : (n, k) distances to the nearest neighbors 1 … k in ascending order, positive, k ≥ 2

    Returns
    -------
    Positive; infinite where each point has all its neighbors at one distance.

    Notes
    -----
    scikit-dimension's `MLE(unbiased=False)` with `comb="mle"`. For k = 2 it is n/(n − 1) times `twonn_from_distances`.

    References
    ----------
    Levina & Bickel 2004, "Maximum likelihood estimation of intrinsic dimension"; averaged as in MacKay &
    Ghahramani 2005, "Comments on 'Maximum likelihood estimation of intrinsic dimension'".
    """
    distances = as_floats(distances)
    if distances.ndim != 2 or len(distances) < 1 or distances.shape[1] < 2:
        raise ValueError(
            f"`distances` has shape {distances.shape}; it must be (points, 2 or more neighbors)."
        )
    _refuse_unusable(distances, name="distances")
    if (np.diff(distances, axis=1) < 0).any():
        raise ValueError("`distances` fall within a row; they must ascend. Sort each row.")
    # summed as ratios: sums of logarithms would leave rounding where all distances are equal
    logs = np.log(distances[:, -1:] / distances[:, :-1])
    return float(_ratio(logs.size, logs.sum()))


def mle_from_summary(log_distance_sum: ArrayLike, last: ArrayLike, k: int) -> float:
    """Estimate what `mle_from_distances` does from two numbers for each point instead of k.

    Parameters
    ----------
    log_distance_sum : (n,) Σ ln r_j over the neighbors j = 1 … k − 1 of each point
    last : (n,) distance r_k to the k-th neighbor, positive
    k : number of neighbors, at least 2

    Returns
    -------
    n (k − 1) / Σ_i ((k − 1) ln r_k − Σ ln r_j): positive, infinite where all neighbors are at one distance.
    """
    terms = _summed_log_ratios(log_distance_sum, last, k)
    return float(_ratio((k - 1) * len(terms), terms.sum()))
