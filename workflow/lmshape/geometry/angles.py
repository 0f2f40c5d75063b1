"""Angles between the rows of a cloud: the mean cosine over all pairs, without forming a pair."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lmshape.geometry.centering import centered
from lmshape.geometry.checks import as_matrix
from lmshape.geometry.directions import DirectionSums
from lmshape.geometry.draws import leave_one_out_masks

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def mean_cosine(x: ArrayLike, *, center: bool = False) -> float:
    """Return the mean cosine between two different rows: how far the cloud points one way.

    2/(n(n − 1)) Σ_{i<j} cos(x_i, x_j) = (‖Σu_i‖² − n)/(n(n − 1)) with u_i = x_i/‖x_i‖, in O(n d).

    Parameters
    ----------
    x : (n, d) array or tensor, rows are points
    center : subtract the mean of all rows first

    Returns
    -------
    Between −1/(n − 1) and 1; 0 for directions without preference. Zero rows have no direction and are left
    out.

    Raises
    ------
    ValueError
        When fewer than two rows have a direction; with `center`, equal rows have none.

    References
    ----------
    Ethayarajh 2019, arXiv 1909.00512.

    Examples
    --------
    >>> mean_cosine([[2.0, 0.0], [0.0, 3.0], [0.0, 0.0]])
    0.0
    """
    cosine = _mean_cosine(as_matrix(x), center=center)
    if np.isnan(cosine):
        point = "are their mean" if center else "are zero"
        raise ValueError(
            f"`x` has fewer than 2 rows with a direction: all others {point}. A cosine needs 2; add other rows."
        )
    return cosine


def leave_one_out_mean_cosine(x: ArrayLike, draw: ArrayLike, *, center: bool) -> np.ndarray:
    """Return the mean cosine of all rows, and of all rows but those of one draw.

    Parameters
    ----------
    x : (n, d), rows are points
    draw : (n,) integers, the draw of each row; K ≥ 2 different ones
    center : subtract the mean of the rows that are used

    Returns
    -------
    (K + 1,) float64: entry 0 pooled, entry j without the j-th of the draws in ascending order; NaN where fewer than
    two of its rows have a direction. O(K n d).
    """
    rows = as_matrix(x)
    masks = leave_one_out_masks(draw, len(rows))
    return np.array([_mean_cosine(rows[mask], center=center) for mask in masks])


def _mean_cosine(rows: np.ndarray, *, center: bool) -> float:
    mean = centered(rows)[1] if center else np.zeros(rows.shape[1])
    sums = DirectionSums(mean, mean[None])
    sums.update(rows, [0])
    return float(sums.mean_cosines([[0]])[0])
