"""Intrinsic dimension of a cloud, each estimator a function of its rows: how fast the points within a radius grow.

The neighbors are searched exactly, and repeated rows count once: a copy at distance 0 is not a neighbor. All estimators
are biased low in high dimension (standard normal rows of 5, 10, 20, 40 dimensions read 5.1, 9.7, 17, 29 by `twonn` at
n = 4096): report them with their n, never as the truth. For neighbors that were searched before there is each in
`lmshape.geometry.distance_ratios`, from distances. O(n² d) time: `lmshape.geometry.neighbors`.

All raise `ValueError` where fewer than k + 1 different rows exist, or an argument is outside its range, and return
infinity where the neighbors of a row are equally far, as on a regular grid: there is no scale to tell a dimension from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from lmshape.errors import unknown
from lmshape.geometry.checks import as_whole
from lmshape.geometry.distance_ratios import (
    gride_from_distances,
    mada_from_distances,
    mle_from_distances,
    twonn_fit_from_distances,
    twonn_from_distances,
)
from lmshape.geometry.neighbors import nearest_neighbors

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

Method = Literal["twonn", "twonn_fit20", "twonn_fit", "mle", "gride", "mada"]
METHODS: tuple[Method, ...] = get_args(Method)


def twonn(x: ArrayLike) -> float:
    """Estimate the dimension of a cloud (n, d) by maximum likelihood from two neighbors: `twonn_from_distances`."""
    return twonn_from_distances(*nearest_neighbors(x, 2).distances.T)


def twonn_fit(x: ArrayLike, *, share: float = 0.9) -> float:
    """Estimate the dimension of a cloud (n, d) by a line through `share` of the ratios: `twonn_fit_from_distances`."""
    return twonn_fit_from_distances(*nearest_neighbors(x, 2).distances.T, share=share)


def mle(x: ArrayLike, *, k: int = 20) -> float:
    """Estimate the dimension of a cloud (n, d) as Levina and Bickel do from k ≥ 2 neighbors: `mle_from_distances`."""
    k = as_whole(k, name="k")
    if k < 2:
        raise ValueError(f"`k` is {k}; mle compares the k nearest distances and needs at least 2.")
    return mle_from_distances(nearest_neighbors(x, k).distances)


def gride(x: ArrayLike, *, k: int = 20) -> float:
    """Estimate the dimension of a cloud (n, d) from the neighbors k/2 and k, k even: `gride_from_distances`."""
    half, full = _half_and_full(x, k, "gride")
    return gride_from_distances(half, full, n1=k // 2, n2=k)


def mada(x: ArrayLike, *, k: int = 20) -> float:
    """Estimate the dimension of a cloud (n, d), the median over points from the neighbors k/2 and k, k even.

    `mada_from_distances` has those of the points.
    """
    return float(np.median(mada_from_distances(*_half_and_full(x, k, "mada"))))


def _half_and_full(x: ArrayLike, k: int, method: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the distances (n,) to the neighbors k/2 and k of the different rows."""
    k = as_whole(k, name="k")
    if k < 2 or k % 2:
        raise ValueError(f"`k` is {k}; {method} compares the neighbors k/2 and k and needs an even number.")
    distances = nearest_neighbors(x, k).distances
    return distances[:, k // 2 - 1], distances[:, -1]


def intrinsic_dimension(x: ArrayLike, method: Method = "twonn", k: int = 20) -> float:
    """Estimate the dimension of the set that the rows of a cloud lie on, at the scale of their neighbors.

    Parameters
    ----------
    x : (n, d) array or tensor, rows are points; repeated rows count once
    method : name of a function of this module: "twonn", "twonn_fit" and "twonn_fit20", a share of 90 and 20 %, "mle",
        "gride", "mada"
    k : neighbors of "mle", "gride" and "mada"; the others use 2

    Returns
    -------
    Positive or infinite.

    Raises
    ------
    ValueError
        When `method` is unknown, `k` is not a whole number or does not suit it, or there are at most k different rows.
    """
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    k = as_whole(k, name="k")
    estimators: Mapping[str, Callable[[ArrayLike], float]] = {
        "twonn": twonn,
        "twonn_fit": twonn_fit,
        "twonn_fit20": partial(twonn_fit, share=0.2),
        "mle": partial(mle, k=k),
        "gride": partial(gride, k=k),
        "mada": partial(mada, k=k),
    }
    return estimators[method](x)
