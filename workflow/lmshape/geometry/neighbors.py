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

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.distance import cdist

from lmshape.geometry.checks import as_stored_matrix, as_whole
from lmshape.geometry.rows import unique_rows

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


COMPILED_PRODUCTS = 4e9  # multiplications from which compiled code is worth its start: 2 600 rows of 576
LOADED_PRODUCTS = 1e9  # and itself, once it is loaded: 1 300 rows of 576
MEASURED_PAIRS = 2**16  # candidates measured by a thread at a time
SPARE_CANDIDATES = 4  # measured beside the k, so that a near tie at the k-th distance needs no second search
TILE_ENTRIES = 2**24  # bounds held at a time: 128 MiB, and as much again for the order of them
FACTOR_BYTES = 2**29  # of the centered float64 points; a larger cloud is centered anew, a piece at a time
DIRECT_ENTRIES = 2**16  # coordinates gathered at a time: 512 KiB stays in the cache
AUDITED_BYTES = 2**26  # of float64 rows measured against all others at a time

Found = tuple[
    np.ndarray, np.ndarray, int
]  # distances and indices (rows, k), and how many rows were searched again


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


def nearest_neighbors(x: ArrayLike, k: int, *, tile: int = 1024) -> Neighbors:
    """Find the k nearest other rows of every unique row, exactly.

    Parameters
    ----------
    x : (n, d) array or tensor of any real dtype, rows are points; of repeated rows the first is kept. A tensor on a
        device is copied to the CPU and searched there
    k : number of neighbors
    tile : most query rows at a time; the result does not depend on it

    Returns
    -------
    The neighbors by Euclidean distance; equal distances in the order of the rows.

    Raises
    ------
    ValueError
        When `k` or `tile` is no whole number or not positive, or fewer than k + 1 unique rows exist.

    Notes
    -----
    m²d multiplications, plus m (k + 4) direct distances. From m²d = 4e9 on (1e9, once compiled code is loaded) the
    candidates come from half the pairs and as few leading axes as prove enough. Memory beside `x`: a copy in
    float32 then, 48 k + 512 bytes a row, and 0.5 GiB; where rows repeat, the unique ones as they are stored.
    Where many rows tie at the k-th distance the result is as exact, after up to m² direct distances.
    Differences under 1e-154 have a square of 0, here as in SciPy; float32 ends at 1e-45.
    """
    k, tile = as_whole(k, name="k"), as_whole(tile, name="tile")
    if k < 1 or tile < 1:
        raise ValueError(f"`k` is {k} and `tile` {tile}; both must be at least 1.")
    rows = as_stored_matrix(x)
    unique = unique_rows(rows)
    if len(unique) <= k:
        raise ValueError(
            f"{len(unique)} unique rows of {len(rows)}; {k} neighbors need at least {k + 1}. "
            "Add rows or lower `k`."
        )
    points = rows if len(unique) == len(rows) else rows[unique]
    m, d = points.shape
    search = _search_pruned if m * m * d >= _products_worth_compiling() else _search_plain
    distances, indices, recomputed = search(points, k, tile)
    return Neighbors(distances, unique[indices], unique, recomputed)


def largest_error(x: ArrayLike, neighbors: Neighbors, *, rows: int = 200, seed: int = 0) -> float:
    """Return the largest relative error of the distances of some random rows, found independently.

    Parameters
    ----------
    x : (n, d) array or tensor that `neighbors` were found in
    neighbors : of it
    rows : how many are checked, all distances of each; all rows where there are fewer
    seed : of the choice

    Returns
    -------
    max |r − s| / s over the distances r and those, s, that SciPy's `cdist` measures in float64 between these rows
    and all others: about 1e-15. Infinite where a neighbor is missing at a distance of 0. O(rows · m · d).

    Raises
    ------
    ValueError
        When `x` has fewer rows than the cloud of `neighbors`, or `rows` is not positive. Another cloud of as many
        rows is not noticed: its error is large.
    """
    rows = as_whole(rows, name="rows")
    if rows < 1:
        raise ValueError(f"`rows` is {rows}; at least 1 row must be checked. The default is 200.")
    cloud = as_stored_matrix(x)
    if len(cloud) <= neighbors.unique.max():
        raise ValueError(
            f"`x` has {len(cloud)} rows, and `neighbors` are of row {neighbors.unique.max()}, counted from 0. "
            "Pass the cloud that they were found in."
        )
    points = cloud[neighbors.unique]
    m, k = neighbors.distances.shape
    chosen = np.sort(np.random.default_rng(seed).choice(m, min(rows, m), replace=False))
    found, truth = neighbors.distances[chosen], _audited(points, chosen, k)
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = np.abs(found - truth) / truth
    return float(np.where(found == truth, 0.0, errors).max())


def _audited(points: np.ndarray, chosen: np.ndarray, k: int) -> np.ndarray:
    """Return the k smallest distances of the chosen rows to all others by SciPy, ascending."""
    m, d = points.shape
    queries, nearest = points[chosen].astype(np.float64), np.empty((len(chosen), 0))
    step = max(1, AUDITED_BYTES // (8 * d))
    for start in range(0, m, step):
        distances = cdist(queries, points[start : start + step].astype(np.float64))
        own = np.flatnonzero((chosen >= start) & (chosen < start + step))
        distances[own, chosen[own] - start] = np.inf
        nearest = np.sort(np.hstack([nearest, distances]), axis=1)[:, :k]
    return nearest


def _products_worth_compiling() -> float:
    return LOADED_PRODUCTS if "lmshape.geometry.tiles" in sys.modules else COMPILED_PRODUCTS


def _search_pruned(points: np.ndarray, k: int, tile: int) -> Found:
    """Search by the candidates of half the pairs, and plainly the points that have too many of them."""
    from lmshape.geometry.candidates import candidates, product_threads  # numba takes half a second to import

    found = candidates(points, k, tile=tile)
    if found is None:
        return _search_plain(points, k, tile)
    columns, given_up = found
    distances, indices = np.empty((len(points), k)), np.empty((len(points), k), dtype=np.int64)
    settled, again = np.flatnonzero(~given_up), np.flatnonzero(given_up)
    step = max(1, MEASURED_PAIRS // max(columns.shape[1], 1))
    blocks = [settled[start : start + step] for start in range(0, len(settled), step)]

    def measure(block: np.ndarray) -> None:
        distances[block], indices[block] = _nearest_of(points, block, columns[block], k)

    with ThreadPoolExecutor(product_threads()) as pool:
        list(pool.map(measure, blocks))
    if len(again):
        distances[again], indices[again], _ = _search_plain(points, k, tile, again)
    return distances, indices, len(again)


def _search_plain(points: np.ndarray, k: int, tile: int, rows: np.ndarray | None = None) -> Found:
    """Search by the bounds of all pairs of some rows, or of all rows."""
    rows = np.arange(len(points)) if rows is None else rows
    cloud = BoundedCloud(points)
    step = min(tile, max(1, TILE_ENTRIES // len(points)))
    found = [_search_block(cloud, rows[start : start + step], k) for start in range(0, len(rows), step)]
    distances, indices, recomputed = zip(*found, strict=True)
    return np.concatenate(distances), np.concatenate(indices), sum(recomputed)


def _search_block(cloud: BoundedCloud, block: np.ndarray, k: int) -> Found:
    bounds = cloud.lower_bounds(block)
    count = min(k + SPARE_CANDIDATES, bounds.shape[1] - 1)
    order = np.argpartition(bounds, count, axis=1)
    distances, indices = _nearest_of(cloud.points, block, np.sort(order[:, :count], axis=1), k)
    limits = cloud.limits(block, distances[:, -1])
    others = np.take_along_axis(bounds, order[:, count : count + 1], axis=1)[:, 0]
    uncertain = np.flatnonzero(others <= limits)
    for row in uncertain:
        columns = np.flatnonzero(bounds[row] <= limits[row])
        again = _nearest_of(cloud.points, block[row : row + 1], columns[None], k)
        distances[row], indices[row] = again[0][0], again[1][0]
    return distances, indices, len(uncertain)


class BoundedCloud:
    """The points, and what their lower bounds are made of.

    With u = 2⁻⁵³, a and b two centered points of d coordinates: rounding moves the matrix product by at
    most (d + 2)u (2‖a‖‖b‖ + ‖b‖²), ‖b‖² itself by du‖b‖², and centering moves the squared distance by
    2u (‖a‖ + ‖b‖)². `rounding` = (2d + 8)u exceeds what these add up to for each of the terms ‖a‖², 2‖a‖‖b‖
    and ‖b‖², and the (d + 3)u by which a directly measured distance is off in its square (Higham 2002,
    chapter 3).

    Attributes
    ----------
    points : (m, d) as they came; direct differences are taken of these, so that centering costs no digit
    center : (d,) float64
    rounding : the relative error that none of the terms exceeds
    squares : (m,) float64, ‖b‖² less its share of the rounding
    """

    def __init__(self, points: np.ndarray) -> None:
        m, d = points.shape
        self.points = points
        self.center = points.mean(axis=0, dtype=np.float64)
        self.rounding = (d + 4) * float(np.finfo(np.float64).eps)
        self._whole = self._factor(slice(0, m)) if 8 * m * d <= FACTOR_BYTES else None
        self.squares = np.concatenate([factor[:, -2] for _, factor in self._factors()])

    def lower_bounds(self, block: np.ndarray) -> np.ndarray:
        """Return (len(block), m) numbers that no ‖a − b‖² − ‖a‖² is below; infinite for a = b."""
        query = -2 * self._factor(block)
        query[:, -2] = 1
        query[:, -1] *= self.rounding
        bounds = np.empty((len(block), len(self.points)))
        for piece, factor in self._factors():
            np.matmul(query, factor.T, out=bounds[:, piece])
        bounds[np.arange(len(block)), block] = np.inf
        return bounds

    def limits(self, block: np.ndarray, radii: np.ndarray) -> np.ndarray:
        """Return what a lower bound must exceed for its pair to be measured at more than the radius."""
        return (1 + self.rounding) * np.square(radii) - self.squares[block]

    def _factors(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield the factor of all rows, in pieces where it is too large to be kept."""
        m, d = self.points.shape
        if self._whole is not None:
            yield slice(0, m), self._whole
            return
        step = max(1, FACTOR_BYTES // (64 * d))
        for start in range(0, m, step):
            piece = slice(start, min(start + step, m))
            yield piece, self._factor(piece)

    def _factor(self, rows: slice | np.ndarray) -> np.ndarray:
        """Return the columns b, (1 − rounding)‖b‖², ‖b‖ of some rows."""
        points = self.points[rows]
        m, d = points.shape
        factor = np.empty((m, d + 2))
        centered = np.subtract(points, self.center, out=factor[:, :d])
        squares = np.einsum("ij,ij->i", centered, centered)
        factor[:, d] = (1 - self.rounding) * squares
        factor[:, d + 1] = np.sqrt(squares)
        return factor


def _nearest_of(
    points: np.ndarray, block: np.ndarray, columns: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k smallest distances of each row of a block to some rows, and which these are.

    Parameters
    ----------
    points : (n, d)
    block : (m,) rows of it
    columns : (m, c) rows of it, ascending, c ≥ k; n and above stand for none
    k : number of neighbors

    Returns
    -------
    (m, k) distances, ascending, and (m, k) rows; equal distances in the order of the rows.
    """
    present = columns < len(points)
    distances = np.full(columns.shape, np.inf)
    queries = np.repeat(block, np.count_nonzero(present, axis=1))
    distances[present] = _direct_distances(points, queries, columns[present])
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, order, axis=1), np.take_along_axis(columns, order, axis=1)


def _direct_distances(points: np.ndarray, queries: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the Euclidean distance (m,) of each query (m,) to the row beside it in `others` (m,).

    points : (n, d) of any real dtype; differences and their squares are float64.
    """
    squares = np.empty(len(queries))
    step = max(1, DIRECT_ENTRIES // points.shape[1])
    for start in range(0, len(squares), step):
        pairs = slice(start, start + step)
        difference = points[queries[pairs]].astype(np.float64, copy=False)
        difference -= points[others[pairs]]
        np.einsum("ij,ij->i", difference, difference, out=squares[pairs])
    return np.sqrt(squares)
