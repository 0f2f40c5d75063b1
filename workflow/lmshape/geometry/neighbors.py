"""Exact nearest neighbors: candidates from matrix products, distances from direct differences, a certificate.

‖x‖² + ‖y‖² − 2xy is fast and loses small distances beside large norms; Σ(x − y)² loses nothing and is slow.
So the fast form is turned into a lower bound of the exact one: the most that rounding can do to it is
subtracted inside the matrix product itself. The points with the smallest bounds are measured directly, and a
point whose k-th distance does not lie under the bounds of all others is measured against each that could be
nearer. The result is that of measuring all pairs directly, whatever the norms, offsets or ties in the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lmshape.geometry.checks import as_matrix

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

SPARE_CANDIDATES = 4  # measured beside the k, so that a near tie at the k-th distance needs no second search
TILE_ENTRIES = 2**24  # bounds held at a time: 128 MiB, and as much again for the order of them
DIRECT_ENTRIES = 2**16  # coordinates gathered at a time: 512 KiB stays in the cache


@dataclass(frozen=True, slots=True)
class Neighbors:
    """Nearest neighbors of the unique rows of a cloud.

    Attributes
    ----------
    distances : (m, k) float64, Euclidean distance to the neighbors 1 … k, ascending
    indices : (m, k) int64, the rows of the original matrix that they are
    unique : (m,) int64, the row of the original matrix that each entry belongs to
    recomputed : rows that the first candidates could not be proved complete for, and that were searched again
    """

    distances: np.ndarray
    indices: np.ndarray
    unique: np.ndarray
    recomputed: int


def unique_rows(x: ArrayLike) -> np.ndarray:
    """Return the first occurrence of every distinct row, in row order.

    Parameters
    ----------
    x : (n, d) array or tensor; 0.0 and −0.0 are the same

    Returns
    -------
    (m,) int64, ascending. O(n d log n) time, two copies of `x`.
    """
    rows = as_matrix(x, minimum_rows=1) + 0.0  # −0.0 + 0.0 is 0.0: equal rows get equal bytes
    keys = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    _, first = np.unique(keys, return_index=True)
    return np.sort(first)


def nearest_neighbors(x: ArrayLike, k: int, *, tile: int = 1024) -> Neighbors:
    """Find the k nearest other rows of every unique row, exactly.

    Parameters
    ----------
    x : (n, d) array or tensor of any real dtype, rows are points; of repeated rows the first is kept
    k : number of neighbors
    tile : most query rows at a time; the result does not depend on it

    Returns
    -------
    The neighbors by Euclidean distance; equal distances in the order of the rows.

    Raises
    ------
    ValueError
        When `k` or `tile` is not positive, or fewer than k + 1 unique rows exist.

    Notes
    -----
    m²d multiplications, plus m (k + 4) direct distances. Memory: five copies of `x` in float64 and 256 MiB.
    Where many rows tie at the k-th distance the result is as exact, after up to m² direct distances.
    Differences under 1e-154 have a square of 0, here as in SciPy; float32 ends at 1e-45.
    """
    rows = as_matrix(x)
    if k < 1 or tile < 1:
        raise ValueError(f"`k` is {k} and `tile` {tile}; both must be at least 1.")
    unique = unique_rows(rows)
    m = len(unique)
    if m <= k:
        raise ValueError(
            f"{m} unique rows of {len(rows)}; {k} neighbors need at least {k + 1}. Add rows or lower `k`."
        )
    cloud = _Cloud.of(rows if m == len(rows) else rows[unique])
    step = min(tile, max(1, TILE_ENTRIES // m))
    blocks = [np.arange(start, min(start + step, m)) for start in range(0, m, step)]
    distances, indices, recomputed = zip(*(_search(cloud, block, k) for block in blocks), strict=True)
    return Neighbors(np.concatenate(distances), unique[np.concatenate(indices)], unique, sum(recomputed))


@dataclass(frozen=True, slots=True)
class _Cloud:
    """The points, and what their lower bounds are made of.

    With u = 2⁻⁵³, a and b two centered points of d coordinates: rounding moves the matrix product by at
    most (d + 2)u (2‖a‖‖b‖ + ‖b‖²), ‖b‖² itself by du‖b‖², and centering moves the squared distance by
    2u (‖a‖ + ‖b‖)². `rounding` = (2d + 8)u exceeds what these add up to for each of the terms ‖a‖², 2‖a‖‖b‖
    and ‖b‖², and the (d + 3)u by which a directly measured distance is off in its square (Higham 2002,
    chapter 3).

    Attributes
    ----------
    points : (m, d) as they came; direct differences are taken of these, so that centering costs no digit
    factor : (m, d + 2), the columns b, (1 − rounding)‖b‖², ‖b‖
    rounding : the relative error that none of these terms exceeds
    """

    points: np.ndarray
    factor: np.ndarray
    rounding: float

    @classmethod
    def of(cls, points: np.ndarray) -> _Cloud:
        m, d = points.shape
        rounding = (d + 4) * float(np.finfo(np.float64).eps)
        factor = np.empty((m, d + 2))
        centered = np.subtract(points, points.mean(axis=0), out=factor[:, :d])
        squares = np.einsum("ij,ij->i", centered, centered)
        factor[:, d] = (1 - rounding) * squares
        factor[:, d + 1] = np.sqrt(squares)
        return cls(points, factor, rounding)

    def lower_bounds(self, block: np.ndarray) -> np.ndarray:
        """Return (len(block), m) numbers that no ‖a − b‖² − ‖a‖² is below; infinite for a = b."""
        query = -2 * self.factor[block]
        query[:, -2] = 1
        query[:, -1] *= self.rounding
        bounds = query @ self.factor.T
        bounds[np.arange(len(block)), block] = np.inf
        return bounds

    def limits(self, block: np.ndarray, radii: np.ndarray) -> np.ndarray:
        """Return what a lower bound must exceed for its pair to be measured at more than the radius."""
        return (1 + self.rounding) * np.square(radii) - self.factor[block, -2]

    def direct_distances(self, block: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return the distances of each point of the block to the points in its row of `columns`."""
        squares = np.empty(columns.size)
        queries, others = np.repeat(block, columns.shape[1]), columns.ravel()
        step = max(1, DIRECT_ENTRIES // self.points.shape[1])
        for start in range(0, len(squares), step):
            pairs = slice(start, start + step)
            difference = self.points[queries[pairs]]
            difference -= self.points[others[pairs]]
            np.einsum("ij,ij->i", difference, difference, out=squares[pairs])
        return np.sqrt(squares).reshape(columns.shape)

    def nearest(self, block: np.ndarray, columns: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the k smallest direct distances to the ascending `columns`, and those columns."""
        distances = self.direct_distances(block, columns)
        order = np.argsort(distances, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(distances, order, axis=1), np.take_along_axis(columns, order, axis=1)


def _search(cloud: _Cloud, block: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Return distances and indices of the k nearest of each point of a block, and how many it redid."""
    bounds = cloud.lower_bounds(block)
    count = min(k + SPARE_CANDIDATES, bounds.shape[1] - 1)
    order = np.argpartition(bounds, count, axis=1)
    distances, indices = cloud.nearest(block, np.sort(order[:, :count], axis=1), k)
    limits = cloud.limits(block, distances[:, -1])
    others = np.take_along_axis(bounds, order[:, count : count + 1], axis=1)[:, 0]
    uncertain = np.flatnonzero(others <= limits)
    for row in uncertain:
        columns = np.flatnonzero(bounds[row] <= limits[row])
        query = block[row : row + 1]
        distances[row], indices[row] = (found[0] for found in cloud.nearest(query, columns[None], k))
    return distances, indices, len(uncertain)
