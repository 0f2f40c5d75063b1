"""The dimension at each point by itself: how it varies over a cloud, which one number does not say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lmshape.geometry.ratios import log_ratios, summed_log_ratios

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def mada(half: ArrayLike, full: ArrayLike) -> np.ndarray:
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
    return _inverse(np.log(2), log_ratios(half, full))


def local_levina_bickel(log_distance_sum: ArrayLike, last: ArrayLike, k: int) -> np.ndarray:
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
    times `levina_bickel`.

    References
    ----------
    Levina & Bickel 2004, "Maximum likelihood estimation of intrinsic dimension", the remark below equation 9.
    """
    if k < 3:
        raise ValueError(f"`k` is {k}; the estimate without bias needs at least 3 neighbors.")
    return _inverse(k - 2, summed_log_ratios(log_distance_sum, last, k))


def _inverse(numerator: float, denominators: np.ndarray) -> np.ndarray:
    infinite = np.full_like(denominators, np.inf)
    return np.divide(numerator, denominators, out=infinite, where=denominators > 0)
