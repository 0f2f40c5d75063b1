"""Exact nearest neighbors: candidates from matrix products, distances from direct differences, a certificate.

‖x‖² + ‖y‖² − 2xy is fast and loses small distances beside large norms; Σ(x − y)² loses nothing and is slow.
So the fast form is turned into a lower bound of the exact one: the most that rounding can do to it is
subtracted inside the matrix product itself. The points with the smallest bounds are measured directly, and a
point whose k-th distance does not lie under the bounds of all others is measured against each that could be
nearer. The result is that of measuring all pairs directly, whatever the norms, offsets or ties in the data.
Large clouds get their candidates from `lmshape.geometry.candidates`, which looks at half of the pairs and multiplies
leading axes only; what is measured, and how, is the same to the last bit.
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
HASHED_ENTRIES = 2**18
COMPILED_PRODUCTS = 4e10  # multiplications from which compiled code is worth its start: 8 300 rows of 576


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
    (m,) int64, ascending. O(n d) time; rows of the same hash are compared.
    """
    rows = as_matrix(x, minimum_rows=1)
    _, first, group = np.unique(_row_hashes(rows), return_index=True, return_inverse=True)
    again = np.flatnonzero(first[group] != np.arange(len(rows)))
    step = max(1, HASHED_ENTRIES // rows.shape[1])
    for start in range(0, len(again), step):
        part = again[start : start + step]
        if not (rows[part] == rows[first[group[part]]]).all():  # two rows of one hash: compare all of them
            _, first = np.unique(rows + 0.0, axis=0, return_index=True)
            break
    return np.sort(first)


def _row_hashes(rows: np.ndarray) -> np.ndarray:
    """Return 64 bits for each row, the same for equal rows and hardly ever for others."""
    random = np.random.default_rng(0)
    factors = random.integers(2**63, size=rows.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    hashes = np.empty(len(rows), dtype=np.uint64)
    step = max(1, HASHED_ENTRIES // rows.shape[1])
    for start in range(0, len(rows), step):
        bits = (rows[start : start + step] + 0.0).view(np.uint64)  # −0.0 + 0.0 is 0.0
        bits ^= bits >> np.uint64(32)  # what was float32 has zeros in its lower half
        bits *= factors
        hashes[start : start + step] = (bits ^ (bits >> np.uint64(29))).sum(axis=1)
    return hashes


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
    From m²d = 4e10 on, the candidates come from half the pairs and as few leading axes as prove enough.
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
    points = rows if m == len(rows) else rows[unique]
    search = _search_pruned if m * m * points.shape[1] >= COMPILED_PRODUCTS else _search_all
    distances, indices, recomputed = search(points, k, tile)
    return Neighbors(distances, unique[indices], unique, recomputed)


def _search_all(points: np.ndarray, k: int, tile: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Return distances and indices of the k nearest of each point, and how many were searched again."""
    return _search_rows(points, np.arange(len(points)), k, tile)


def _search_pruned(points: np.ndarray, k: int, tile: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Do the same by the candidates of half the pairs, and search the points again that have too many."""
    from lmshape.geometry.candidates import candidates  # numba takes half a second to import

    found = candidates(points, k, tile=tile)
    if found is None:
        return _search_all(points, k, tile)
    columns, given_up = found
    distances, indices = np.empty((len(points), k)), np.empty((len(points), k), dtype=np.int64)
    settled, again = np.flatnonzero(~given_up), np.flatnonzero(given_up)
    step = max(1, TILE_ENTRIES // columns.shape[1] // 16)
    for start in range(0, len(settled), step):
        block = settled[start : start + step]
        distances[block], indices[block] = _nearest(points, block, columns[block], k)
    if len(again):
        distances[again], indices[again], _ = _search_rows(points, again, k, tile)
    return distances, indices, len(again)


def _search_rows(
    points: np.ndarray, rows: np.ndarray, k: int, tile: int
) -> tuple[np.ndarray, np.ndarray, int]:
    cloud = _Cloud.of(points)
    step = min(tile, max(1, TILE_ENTRIES // len(points)))
    found = [_search(cloud, rows[start : start + step], k) for start in range(0, len(rows), step)]
    distances, indices, recomputed = zip(*found, strict=True)
    return np.concatenate(distances), np.concatenate(indices), sum(recomputed)


def _nearest(
    points: np.ndarray, block: np.ndarray, columns: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k smallest direct distances to the ascending `columns`, and those columns.

    Columns as large as the number of points are no candidates.
    """
    present = columns < len(points)
    distances = np.full(columns.shape, np.inf)
    queries = np.repeat(block, np.count_nonzero(present, axis=1))
    distances[present] = _direct_distances(points, queries, columns[present])
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, order, axis=1), np.take_along_axis(columns, order, axis=1)


def _direct_distances(points: np.ndarray, queries: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the distance of each query to the point beside it in `others`."""
    squares = np.empty(len(queries))
    step = max(1, DIRECT_ENTRIES // points.shape[1])
    for start in range(0, len(squares), step):
        pairs = slice(start, start + step)
        difference = points[queries[pairs]]
        difference -= points[others[pairs]]
        np.einsum("ij,ij->i", difference, difference, out=squares[pairs])
    return np.sqrt(squares)


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


def _search(cloud: _Cloud, block: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Return distances and indices of the k nearest of each point of a block, and how many it redid."""
    bounds = cloud.lower_bounds(block)
    count = min(k + SPARE_CANDIDATES, bounds.shape[1] - 1)
    order = np.argpartition(bounds, count, axis=1)
    distances, indices = _nearest(cloud.points, block, np.sort(order[:, :count], axis=1), k)
    limits = cloud.limits(block, distances[:, -1])
    others = np.take_along_axis(bounds, order[:, count : count + 1], axis=1)[:, 0]
    uncertain = np.flatnonzero(others <= limits)
    for row in uncertain:
        columns = np.flatnonzero(bounds[row] <= limits[row])
        query = block[row : row + 1]
        distances[row], indices[row] = (found[0] for found in _nearest(cloud.points, query, columns[None], k))
    return distances, indices, len(uncertain)
