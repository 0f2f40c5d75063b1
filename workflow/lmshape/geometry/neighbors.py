"""Exact nearest neighbors: candidates from float32 matrix products, distances from direct differences, a certificate.

‖x‖² + ‖y‖² − 2xy is fast and loses small distances beside large norms; Σ(x − y)² loses nothing and is slow.
So the fast form is turned into a lower bound of the exact one: the most that rounding can do to it is
subtracted inside the matrix product itself. The points with the smallest bounds are measured directly, and a
point whose k-th distance does not lie under the bounds of all others is measured against each that could be
nearer. Where float32 leaves too many of those, its bounds are found again in float64. The result is that of measuring
all pairs directly, whatever the norms, offsets or ties in the data.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.distance import cdist

from lmshape.geometry.arrays import Array, Device, device_of, double, in_memory, on, squared_lengths
from lmshape.geometry.checks import as_stored_matrix, as_whole
from lmshape.geometry.differences import distances_of_pairs
from lmshape.geometry.rows import unique_rows
from lmshape.geometry.threads import product_threads, product_threads_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike


GROUPS = 8  # of columns for each candidate: 7 % more candidates than asked for
FAST_GROUPS = 512  # so many columns lie together that a minimum over them is fast
SPARE_CANDIDATES = 4  # measured beside the k, so that a near tie at the k-th distance needs no second search
MOST_CANDIDATES = 4  # times k: a row that float32 leaves more is searched in float64
TABLE_BYTES = 2**28  # most that the bounds of all pairs take; half of them are mirrored, not multiplied
PADDING = 16  # columns: rows a power of two apart would share a few places of the cache
TILE_ENTRIES = 2**24  # bounds of larger clouds held at a time: 64 MiB, and as much for their partition
FACTOR_BYTES = 2**29  # of the centered points; a larger cloud is centered anew, a piece at a time
SHORTEST = 1e-123  # norm of a scaled row in float64: products far below are lost
CENTER_ROWS = 101  # about as many give the center
DEVICE_ENTRIES = 2**26  # of bounds, and of differences, that a device holds at a time: 512 MiB each
AUDITED_BYTES = 2**26  # of float64 rows measured against all others at a time

# Distances and indices (rows, k), and how many rows were searched again.
Found = tuple[np.ndarray, np.ndarray, int]


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


def nearest_neighbors(
    x: ArrayLike,
    k: int,
    *,
    tile: int = 512,
    assume_unique: bool = False,
    leading: int | None = None,
    device: Device = None,
) -> Neighbors:
    """Find the k nearest other rows of every unique row, exactly.

    Parameters
    ----------
    x : (n, d) array or tensor of any real dtype, rows are points; of repeated rows the first is kept
    k : number of neighbors
    tile : most query rows at a time; the result does not depend on it
    assume_unique : no row repeats another, which is not checked then; a repeated row would be a neighbor at distance 0
    leading : of rows in their principal axes, the columns from which on all are small: they count by their norm as
        candidates are looked for, ‖x − y‖ ≥ |‖x‖ − ‖y‖|, in less time. The result does not depend on it
    device : torch device with float64 where the search is made; None: where a tensor `x` is, if that is a CUDA GPU,
        else in memory

    Returns
    -------
    The neighbors by Euclidean distance; equal distances in the order of the rows.

    Raises
    ------
    ValueError
        When `k` or `tile` is not a whole number or not positive, `leading` is negative, or fewer than k + 1 unique rows
        exist.

    Notes
    -----
    m²d multiplications in float32, half as many up to m = 8192, and m (k + 4) direct distances. Memory beside `x`: a
    copy in float32, and up to 0.5 GiB, half of which a thread keeps for its next search; where rows repeat, the unique
    ones as they are stored.
    Where many rows tie at the k-th distance the result is as exact, after up to m² direct distances.
    Differences under 1e-154 have a square of 0, here as in SciPy; float32 ends at 1e-45.
    """
    k, tile = as_whole(k, name="k"), as_whole(tile, name="tile")
    if k < 1 or tile < 1:
        raise ValueError(f"`k` is {k} and `tile` {tile}; both must be at least 1.")
    if leading is not None and as_whole(leading, name="leading") < 0:
        raise ValueError(f"`leading` is {leading}; a number of columns is at least 0.")
    rows = as_stored_matrix(x)
    unique = np.arange(len(rows)) if assume_unique else unique_rows(rows)
    if len(unique) <= k:
        raise ValueError(
            f"{len(unique)} unique rows of {len(rows)}; {k} neighbors need at least {k + 1}. "
            "Add rows or lower `k`."
        )
    points = rows if len(unique) == len(rows) else rows[unique]
    place = device_of(x) if device is None else device
    found = _search(points, k, tile, leading=leading) if place is None else _search_on(place, points, k, tile)
    return Neighbors(found[0], unique[found[1]], unique, found[2])


def nearest_among(x: ArrayLike, neighbors: Neighbors, kept: ArrayLike, k: int) -> Neighbors:
    """Find the k nearest among some rows of a cloud whose neighbors are known: the known ones without the others.

    Parameters
    ----------
    x : (n, d) array or tensor that `neighbors` were found in
    neighbors : of it, a few more than k where few rows are left out
    kept : (s,) rows of `x`, ascending, each of `neighbors.unique`
    k : number of neighbors

    Returns
    -------
    What `nearest_neighbors` finds in `x[kept]`, to the last bit, with the numbers of the rows of `x`. `recomputed` are
    the rows with fewer than k known neighbors among `kept`, which were searched again.

    Raises
    ------
    ValueError
        When `k` is not positive, fewer than k + 1 rows are kept, or one of them is not in `neighbors.unique`.
    """
    k, kept = as_whole(k, name="k"), np.asarray(kept)
    if not 1 <= k < len(kept):
        raise ValueError(f"`k` is {k} and `kept` has {len(kept)} rows; k must be at least 1, and below them.")
    own = np.searchsorted(neighbors.unique, kept)
    if (neighbors.unique[np.minimum(own, len(neighbors.unique) - 1)] != kept).any():
        raise ValueError("`kept` has rows that `neighbors` does not know. Pass rows of `neighbors.unique`.")
    inside = np.zeros(neighbors.unique[-1] + 1, dtype=bool)
    inside[kept] = True
    known = inside[neighbors.indices[own]]
    order = np.argsort(~known, axis=1, kind="stable")[:, :k]
    distances, indices = np.full((len(kept), k), np.inf), np.empty((len(kept), k), dtype=np.int64)
    distances[:, : order.shape[1]] = np.take_along_axis(neighbors.distances[own], order, axis=1)
    indices[:, : order.shape[1]] = np.take_along_axis(neighbors.indices[own], order, axis=1)
    short = np.flatnonzero(np.count_nonzero(known, axis=1) < k)
    if len(short):
        points = as_stored_matrix(x)[kept]
        distances[short], again, _ = _search(points, k, len(points), short)
        indices[short] = kept[again]
    return Neighbors(distances, indices, kept, len(short))


def largest_error(
    x: ArrayLike, neighbors: Neighbors, *, rows: int = 200, seed: int = 0, device: Device = None
) -> float:
    """Return the largest relative error of the distances of some random rows, found independently.

    Parameters
    ----------
    x : (n, d) array or tensor that `neighbors` were found in
    neighbors : of it
    rows : how many are checked, all distances of each; all rows where there are fewer
    seed : of the choice
    device : torch device with float64 where all distances of these rows are measured; None: in memory

    Returns
    -------
    max |r − s| / s over the distances r and those, s, that are measured in float64 between these rows and all others,
    by SciPy's `cdist` or, on a device, from differences: about 1e-15. Infinite where a neighbor is missing at a
    distance of 0. O(rows · m · d).

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
    found, truth = neighbors.distances[chosen], _audited(points, chosen, k, device)
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = np.abs(found - truth) / truth
    return float(np.where(found == truth, 0.0, errors).max())


def _audited(points: np.ndarray, chosen: np.ndarray, k: int, device: Device) -> np.ndarray:
    """Return the k smallest distances of the chosen rows to all others, ascending."""
    m, d = points.shape
    queries, nearest = double(points[chosen], device), np.empty((len(chosen), 0))
    step = max(1, AUDITED_BYTES // (8 * d))
    for start in range(0, m, step):
        others = double(points[start : start + step], device)
        # with the queries first SciPy takes 1.6 times as long
        distances = cdist(others, queries).T if device is None else _differences_on(queries, others)
        own = np.flatnonzero((chosen >= start) & (chosen < start + step))
        distances[own, chosen[own] - start] = np.inf
        nearest = np.sort(np.hstack([nearest, distances]), axis=1)[:, :k]
    return nearest


def _differences_on(queries: Array, others: Array) -> np.ndarray:
    """Return the distances (q, m) of rows on a device, from differences, one row at a time."""
    return np.sqrt(np.stack([in_memory(squared_lengths(others - query)) for query in queries]))


def _search(
    points: np.ndarray, k: int, tile: int, rows: np.ndarray | None = None, *, leading: int | None = None
) -> Found:
    """Search the neighbors of some rows, or of all, by bounds in float32; by float64 those it leaves too many of."""
    rows = np.arange(len(points)) if rows is None else rows
    distances, indices, recomputed = _search_by(np.float32, points, k, tile, rows, leading)
    coarse = np.flatnonzero(np.isnan(distances[:, -1]))
    if len(coarse):
        distances[coarse], indices[coarse], _ = _search_by(np.float64, points, k, tile, rows[coarse])
    return distances, indices, recomputed


def _search_on(device: Device, points: np.ndarray, k: int, tile: int) -> Found:
    """Search on a device, all in float64; rows whose candidates are not proved complete are searched in memory."""
    cloud, m = BoundedCloud(points, np.float64, kept=False), len(points)
    whole = double(points, device)
    factor = cloud.factor_on(whole)
    count = min(k + SPARE_CANDIDATES, m - 1)
    step = max(1, min(tile, DEVICE_ENTRIES // m, DEVICE_ENTRIES // (count * points.shape[1])))
    found = [
        _search_block_on(cloud, factor, whole, np.arange(start, min(start + step, m)), k, count)
        for start in range(0, m, step)
    ]
    distances, indices, proved = (np.concatenate(parts) for parts in zip(*found, strict=True))
    again = np.flatnonzero(~proved)
    if len(again):
        distances[again], indices[again], _ = _search(points, k, tile, again)
    return distances, indices, len(again)


def _search_block_on(
    cloud: BoundedCloud, factor: Array, whole: Array, block: np.ndarray, k: int, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return distances (b, k), indices (b, k), and whether they are proved (b,), of the rows of a block."""
    own = slice(int(block[0]), int(block[-1]) + 1)
    bounds = cloud.query(1 * factor[own]) @ factor.T
    bounds.diagonal(own.start).fill_(np.inf)
    reached, candidates = bounds.topk(count, largest=False)
    candidates, _ = candidates.sort(1)  # equal distances stay in the order of the rows
    squares = squared_lengths((whole[own][:, None] - whole[candidates]).flatten(0, 1)).reshape(
        candidates.shape
    )
    squares, order = squares.sort(dim=1, stable=True)
    distances = np.sqrt(in_memory(squares[:, :k]))
    proved = (count == len(whole) - 1) | (cloud.limits(distances[:, -1]) <= in_memory(reached[:, -1]))
    return distances, in_memory(candidates.gather(1, order[:, :k])), proved


def _search_by(
    dtype: DTypeLike, points: np.ndarray, k: int, tile: int, rows: np.ndarray, leading: int | None = None
) -> Found:
    """Search by bounds in one dtype; a row that float32 leaves too many candidates has distances of NaN."""
    cloud, m = BoundedCloud(points, dtype, leading=leading), len(points)
    mirrored = len(rows) == m and cloud.dtype.itemsize * m * m <= TABLE_BYTES
    step = max(1, tile if mirrored else min(tile, TILE_ENTRIES // m))
    blocks = [rows[start : start + step] for start in range(0, len(rows), step)]
    threads = product_threads()  # of which the limit below leaves one
    with product_threads_of(1), ThreadPoolExecutor(threads) as pool:
        table = _table(cloud, step, pool) if mirrored else None

        def search(block: np.ndarray) -> Found:
            bounds = cloud.lower_bounds(block) if table is None else table[block[0] : block[-1] + 1]
            return _search_block(cloud, block, bounds, k)

        distances, indices, recomputed = zip(*pool.map(search, blocks), strict=True)
    return np.concatenate(distances), np.concatenate(indices), sum(recomputed)


class _Room(threading.local):
    """Memory of a thread for the table of its searches: where it is fragmented, new pages take as long as products."""

    held = np.empty(0, dtype=np.uint8)

    def entries(self, count: int, dtype: np.dtype) -> np.ndarray:
        if self.held.nbytes < count * dtype.itemsize:
            self.held = np.empty(count * dtype.itemsize, dtype=np.uint8)
        return self.held[: count * dtype.itemsize].view(dtype)


_room = _Room()


def _table(cloud: BoundedCloud, step: int, pool: ThreadPoolExecutor) -> np.ndarray:
    """Return the bounds of all pairs (m, m): half of them from products, the others mirrored."""
    m = len(cloud.points)
    table = _room.entries(m * (m + PADDING), cloud.dtype).reshape(m, m + PADDING)[:, :m]

    def fill(start: int) -> None:
        own = slice(start, min(start + step, m))
        cloud.lower_bounds(np.arange(m)[own], since=start, out=table[own, start:])
        for other in range(start + step, m, step):
            table[other : other + step, own] = table[own, other : other + step].T

    list(pool.map(fill, range(0, m, step)))
    return table


def _search_block(cloud: BoundedCloud, block: np.ndarray, bounds: np.ndarray, k: int) -> Found:
    reached = _reached(bounds, min(k + SPARE_CANDIDATES, bounds.shape[1] - 2))
    distances, indices = _nearest_of(cloud, block, bounds <= reached[:, None], k)
    limits = cloud.limits(distances[:, -1])
    uncertain = np.flatnonzero(limits > reached)
    if len(uncertain):
        near = bounds[uncertain] <= limits[uncertain, None]
        distances[uncertain], indices[uncertain] = _nearest_of(cloud, block[uncertain], near, k)
    return distances, indices, len(uncertain) + int(np.count_nonzero(np.isnan(limits)))


def _reached(bounds: np.ndarray, count: int) -> np.ndarray:
    """Return for each row a number (b,) that over `count` of its bounds (b, m) do not exceed, and hardly more.

    Of the least bounds of groups of columns: a minimum over columns is vectorized, a partition of all of them is not.
    """
    fewest = GROUPS * (count + 1)
    for groups in (max(fewest, FAST_GROUPS), fewest):  # the few columns that are left are cheap to move
        deep = bounds.shape[1] // groups
        if deep > 1:
            bounds = bounds[:, : deep * groups].reshape(len(bounds), deep, groups).min(axis=1)
    return np.partition(bounds, count, axis=1)[:, count]


def _nearest_of(
    cloud: BoundedCloud, block: np.ndarray, near: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Measure some rows directly.

    Parameters
    ----------
    cloud : of m points
    block : (b,) rows of it
    near : (b, m) bool, the rows that each is measured against, k or more
    k : number of neighbors

    Returns
    -------
    (b, k) distances, ascending, and (b, k) rows; equal distances in the order of the rows. NaN and 0 for a row that
    has more candidates than the dtype of the bounds is good for.
    """
    rows, columns = np.divmod(np.flatnonzero(near), near.shape[1])
    counts = np.bincount(rows, minlength=len(near))
    coarse = (
        counts > MOST_CANDIDATES * (k + SPARE_CANDIDATES) if cloud.is_coarse else np.zeros(len(near), bool)
    )
    if coarse.any():
        fine = ~coarse[rows]
        rows, columns, counts = rows[fine], columns[fine], np.where(coarse, 0, counts)
    present = np.arange(counts.max(initial=k)) < counts[:, None]
    others, distances = np.zeros(present.shape, dtype=np.int64), np.full(present.shape, np.inf)
    others[present] = columns
    distances[present] = distances_of_pairs(cloud.points, block[rows], columns)
    distances[coarse] = np.nan
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, order, axis=1), np.take_along_axis(others, order, axis=1)


class BoundedCloud:
    """The points, and what their lower bounds are made of.

    With u the unit of rounding of the dtype, 2⁻²⁴ or 2⁻⁵³, a and b two centered points of d coordinates: rounding
    moves the matrix product that a bound is by at most (d + 3)u (‖a‖ + ‖b‖)², the squares in it by du ‖a‖² and
    du ‖b‖², the coordinates a product by 2u · 2‖a‖‖b‖, and centering the squared distance by 2u (‖a‖ + ‖b‖)².
    `rounding` = (2d + 8)u exceeds what these add up to for each of the terms ‖a‖², 2‖a‖‖b‖ and ‖b‖², and the (d + 3)u
    by which a directly measured distance is off in its square (Higham 2002, chapter 3). Coordinates are in units
    of the power of two near the largest.
    The columns past the `leading` ones are one coordinate, their norm, which makes no distance larger. It is found in
    float64, so that in float32 it is rounded as every other coordinate is: with `leading` the dtype must be float32.

    Attributes
    ----------
    points : (m, d) as they came; direct differences are taken of these, so that centering costs no digit
    dtype : of the bounds
    scale : the power of two that coordinates are multiplied by
    rounding : the relative error that none of the terms exceeds
    """

    def __init__(
        self, points: np.ndarray, dtype: DTypeLike, *, kept: bool = True, leading: int | None = None
    ) -> None:
        m, d = points.shape
        self.points, self.dtype = points, np.dtype(dtype)
        self._leading = d if leading is None else min(leading, d)
        self.rounding = (d + 4) * float(np.finfo(self.dtype).eps)
        # any center is right; one that no far row moves leaves the others short
        self._center = np.median(points[:: max(1, m // CENTER_ROWS)].astype(np.float64), axis=0)
        largest = max(
            np.abs(points.max(axis=0) - self._center).max(), np.abs(points.min(axis=0) - self._center).max()
        )
        self.scale = 2.0 ** -np.round(np.log2(largest)) if largest > 0 else 1.0
        kept &= self.dtype.itemsize * m * d <= FACTOR_BYTES
        self._whole = self._factor(slice(0, m)) if kept else None

    @property
    def is_coarse(self) -> bool:
        """Whether a finer dtype is left."""
        return self.dtype == np.float32

    def lower_bounds(self, block: np.ndarray, *, since: int = 0, out: np.ndarray | None = None) -> np.ndarray:
        """Return (len(block), m − since) numbers that no scaled ‖a − b‖² is below; infinite for a = b.

        since : the first of the points b
        out : where the bounds are written, if anywhere
        """
        query = self.query(self._factor(block) if self._whole is None else self._whole[block])
        bounds = np.empty((len(block), len(self.points) - since), dtype=self.dtype) if out is None else out
        for start, factor in self._factors(since):
            np.matmul(query, factor.T, out=bounds[:, start - since : start - since + len(factor)])
        bounds[np.arange(len(block)), block - since] = np.inf
        return bounds

    def query(self, factor: Array) -> Array:
        """Make of a factor (b, d + 3) what that of all points is multiplied with for the bounds of these rows."""
        factor[:, :-3] *= -2
        factor[:, -3:-1] = factor[:, [-2, -3]]
        factor[:, -1] *= -2 * self.rounding
        return factor

    def factor_on(self, points: Array) -> Array:
        """Return what `factor` does of all points, float64 on a device, and there."""
        import torch

        centered = (points - on(self._center, points.device)) * self.scale
        squares = squared_lengths(centered)[:, None]
        norms = squares.sqrt().clamp(min=SHORTEST)
        return torch.cat([centered, (1 - self.rounding) * squares, torch.ones_like(squares), norms], 1)

    def limits(self, radii: np.ndarray) -> np.ndarray:
        """Return what a lower bound must exceed for its pair to be measured at more than the radius."""
        limits = (1 + self.rounding) * np.square(self.scale * radii)
        return np.nextafter(limits.astype(self.dtype), np.array(np.inf, dtype=self.dtype))

    def _factors(self, since: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the first row and the factor of the rows from `since` on, in pieces where it is too large to keep."""
        m, d = self.points.shape
        if self._whole is not None:
            yield since, self._whole[since:]
            return
        step = max(1, FACTOR_BYTES // (64 * d))
        for start in range(since, m, step):
            yield start, self._factor(slice(start, min(start + step, m)))

    def _factor(self, rows: slice | np.ndarray) -> np.ndarray:
        """Return the columns b, the small ones of b as their norm, (1 − rounding)‖b‖², 1, ‖b‖ of some rows."""
        centered = self.points[rows] - self._center
        centered *= self.scale
        squares = np.einsum("ij,ij->i", centered, centered)
        head, rest = centered[:, : self._leading], centered[:, self._leading :]
        columns = self._leading + (rest.shape[1] > 0)
        factor = np.empty((len(centered), columns + 3), dtype=self.dtype)
        factor[:, : self._leading] = head
        if rest.shape[1]:
            factor[:, self._leading] = np.sqrt(np.einsum("ij,ij->i", rest, rest))
        factor[:, -3] = (1 - self.rounding) * squares
        factor[:, -2] = 1
        # products far below are lost in the dtype; a larger norm only lowers a bound
        factor[:, -1] = np.maximum(np.sqrt(squares), np.finfo(self.dtype).tiny ** 0.4)
        return factor
