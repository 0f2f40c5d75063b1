"""Intrinsic dimension from distances to nearest neighbors: how fast the number of points grows with radius.

Each estimator is a function of distances alone and refuses a zero among them: repeated rows must go before
the search, since a copy at distance 0 is a second reading of one point and no neighbor. All are biased low in
high dimension (a uniform 20-cube reads 15.6 at n = 4096): report them with their n, never as the truth.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from lmshape.errors import unknown
from lmshape.geometry.checks import as_array, as_whole
from lmshape.geometry.gride import gride
from lmshape.geometry.local import mada
from lmshape.geometry.neighbors import nearest_neighbors
from lmshape.geometry.ratios import divide, log_ratios, refuse_unusable, summed_log_ratios

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

Method = Literal["twonn", "twonn_fit20", "twonn_fit", "mle", "gride", "mada"]
SHARES = {"twonn_fit20": 0.2, "twonn_fit": 0.9}
HALVING = ("gride", "mada")
METHODS = ("twonn", *SHARES, "mle", *HALVING)


def twonn(first: ArrayLike, second: ArrayLike) -> float:
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
    logs = log_ratios(first, second)
    return divide(len(logs) - 1, logs.sum())


def twonn_fit(first: ArrayLike, second: ArrayLike, *, share: float = 0.9) -> float:
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
    logs = np.sort(log_ratios(first, second))
    n = len(logs)
    used = int(share * n)
    if used < 2:
        raise ValueError(
            f"`share` {share} of {n} ratios leaves {used} to fit; at least 2 are needed. Add rows."
        )
    logs = logs[:used]
    heights = -np.log1p(-np.arange(1, used + 1) / n)
    return divide(logs @ heights, logs @ logs)


def levina_bickel(distances: ArrayLike) -> float:
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
    scikit-dimension's `MLE(unbiased=False)` with `comb="mle"`. For k = 2 it is n/(n − 1) times `twonn`.

    References
    ----------
    Levina & Bickel 2004, "Maximum likelihood estimation of intrinsic dimension"; averaged as in MacKay &
    Ghahramani 2005, "Comments on 'Maximum likelihood estimation of intrinsic dimension'".
    """
    distances = np.asarray(as_array(distances), dtype=np.float64)
    if distances.ndim != 2 or len(distances) < 1 or distances.shape[1] < 2:
        raise ValueError(
            f"`distances` has shape {distances.shape}; it must be (points, 2 or more neighbors)."
        )
    refuse_unusable(distances, name="distances")
    if (np.diff(distances, axis=1) < 0).any():
        raise ValueError("`distances` fall within a row; they must ascend. Sort each row.")
    # summed as ratios: sums of logarithms would leave rounding where all distances are equal
    logs = np.log(distances[:, -1:] / distances[:, :-1])
    return divide(logs.size, logs.sum())


def levina_bickel_from_summary(log_distance_sum: ArrayLike, last: ArrayLike, k: int) -> float:
    """Estimate what `levina_bickel` does from two numbers for each point instead of k.

    Parameters
    ----------
    log_distance_sum : (n,) Σ ln r_j over the neighbors j = 1 … k − 1 of each point
    last : (n,) distance r_k to the k-th neighbor, positive
    k : number of neighbors, at least 2

    Returns
    -------
    n (k − 1) / Σ_i ((k − 1) ln r_k − Σ ln r_j): positive, infinite where all neighbors are at one distance.
    """
    terms = summed_log_ratios(log_distance_sum, last, k)
    return divide((k - 1) * len(terms), terms.sum())


def intrinsic_dimension(x: ArrayLike, method: Method = "twonn", k: int = 20) -> float:
    """Estimate the dimension of the set that the rows of a cloud lie on, at the scale of their neighbors.

    Parameters
    ----------
    x : (n, d) array or tensor, rows are points; repeated rows count once
    method : "twonn" maximum likelihood from two neighbors, "twonn_fit" and "twonn_fit20" its line fits on the
        lowest 90 and 20 % of the ratios; "mle" Levina-Bickel with `k` neighbors; "gride" and "mada" from the
        neighbors k/2 and k, by maximum likelihood over all points and as the median of the points' own estimates
    k : neighbors of "mle", "gride" and "mada", even for the last two; the others use 2

    Returns
    -------
    Positive. Standard normal rows of 5, 10, 20, 40 dimensions read 5.1, 9.7, 17, 29 at n = 4096.

    Raises
    ------
    ValueError
        When `method` is unknown, `k` is no whole number or does not suit it, or fewer than k + 1 different rows exist.

    Notes
    -----
    O(n² d) time, see `lmshape.geometry.neighbors`.
    """
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    k = as_whole(k, name="k")
    if method == "mle" and k < 2:
        raise ValueError(f"`k` is {k}; mle compares the k nearest distances and needs at least 2.")
    if method in HALVING and (k < 2 or k % 2):
        raise ValueError(f"`k` is {k}; {method} compares the neighbors k/2 and k and needs an even number.")
    k = k if method in (*HALVING, "mle") else 2
    distances = nearest_neighbors(x, k).distances
    half, last = distances[:, k // 2 - 1], distances[:, -1]
    estimates = {
        "twonn": lambda: twonn(distances[:, 0], last),
        **{name: partial(twonn_fit, distances[:, 0], last, share=share) for name, share in SHARES.items()},
        "mle": lambda: levina_bickel(distances),
        "gride": lambda: gride(half, last, n1=k // 2, n2=k),
        "mada": lambda: float(np.median(mada(half, last))),
    }
    return estimates[method]()
