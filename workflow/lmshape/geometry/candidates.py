"""The few rows that can be among the k nearest of each row of a large cloud, from half of its distance matrix.

Near rows form tiles. Each pair of tiles is compared once, in rounds in which no tile is in two pairs: the pairs of a
round write to different rows and run side by side. The nearest tiles come first, so that most rows know early how
near others must be. The number of leading axes in the matrix products is the one with the least work on a sample
of rows; where no axis can be spared all are taken.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

from lmshape.geometry.tiles import WIDEN, Search, compare_tiles, drop_all_far, first_radii

if TYPE_CHECKING:
    from collections.abc import Iterator


# The points on principal axes
UNIT = 2.0**-24  # the most that rounding to float32 changes a number, relative to it
FLOOR = 2.0**-50  # of the median norm: far above where products leave float32 at its lower end
SAMPLE = 2048  # rows that axes are taken from: any axes and any center are right, good ones fast
CENTER_SAMPLE = 512  # rows that the center is taken from
FEWEST_ROWS_PER_AXIS = 16  # with fewer, axes are not worth their search
SPLIT_AXES = 16  # a group of points is halved along one of as many axes
STEP = 2048  # points rotated at a time
SINGLE_AXES = 1024  # most that float32 may rotate to: with more its rounding is a part of the radii
FINE = 0.005  # of a radius: errors that cost nothing

# The comparison of tiles
TILE = 1024  # most rows of a tile; the products of two tiles stay in the cache
CHUNK = 64  # coordinates added to a bound at a time
SPARE = 64  # candidates that a row has room for beside three times k
NEAR_TILES = 8  # one of so many tiles is near
QUERIES, OTHERS = 64, 2048  # rows that the number of leading axes is chosen on
PAIR_COST = 1500  # of a pair that the products do not drop, in products of one axis
PLAIN_COST = 4  # of one axis in the plain search: float64, and both halves of the distance matrix
LEADING_AXES = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048)  # to choose from


def candidates(points: np.ndarray, k: int, *, tile: int = TILE) -> tuple[np.ndarray, np.ndarray] | None:
    """Return which rows may be among the k nearest of each, or None where float32 cannot tell.

    Parameters
    ----------
    points : (m, d) finite, rows different, m > k
    k : number of neighbors
    tile : most rows to a tile

    Returns
    -------
    rows (m, width) int64, ascending and filled up with m at the end: among them are all rows whose distance,
    even as float64 measures it, is not above the k-th of that row; given up (m,) bool, rows with too many of
    them.

    Notes
    -----
    Memory: (m, d) in float32, (28 k + 512) m bytes, and 4 MiB for each thread. Numba's cache is kept beside the
    modules, or in the user's cache folder; without it the first call compiles for some seconds.
    """
    group = min(tile, TILE) // 2 + 1  # half a tile: for the first radii a few hundred rows do
    single = points.shape[1] <= SINGLE_AXES
    with ThreadPoolExecutor(product_threads()) as pool:
        started = _started(points, k, pool, group=group, single=single)
        # float32 is twice as fast, and suffices unless near neighbors are far from the center
        if single and started is not None and _is_blurred(*started):
            started = _started(points, k, pool, group=group, single=False)
        if started is None:
            return None
        search, cloud = started
        with threadpool_limits(1, user_api="blas"):
            if not _compare_all(search, cloud, pool):
                return None
    drop_all_far(search)
    return _by_original_rows(search, cloud.order)


def product_threads() -> int:
    """Return as many threads as matrix products take here."""
    return max((pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"), default=1)


@dataclass(frozen=True, slots=True)
class PrincipalCloud:
    """The points on principal axes, and how far from the truth they are.

    Attributes
    ----------
    coordinates : (m, d) float32, largest variance first, in units near the median norm; near points together
    starts : (groups + 1,) int64, where groups of near points start; a power of two of them, of like sizes, those
        that were one group before the last halving side by side
    order : (m,) int64, the row of the cloud that each is
    error : (m,) float32, no point is further than this from where it would be without rounding
    """

    coordinates: np.ndarray
    starts: np.ndarray
    order: np.ndarray
    error: np.ndarray

    @classmethod
    def of(cls, points: np.ndarray, *, group: int, single: bool = False) -> PrincipalCloud | None:
        """Return the cloud of points (m, d) in groups of at most `group`, rotated in float32 if `single`.

        None where the norms of the points do not fit into float32 together.
        """
        m, d = points.shape
        center, axes, median = _center_and_axes(points)
        if not 2.0**-400 < median or not _is_orthogonal(axes):
            return None
        scale = 2.0 ** -np.round(np.log2(median))
        rotation = axes.astype(np.float32) if single and axes is not None else axes
        norms, coordinates = np.empty(m), np.empty((m, d), dtype=np.float32)
        for start in range(0, m, STEP):
            part = slice(start, start + STEP)
            differences = (points[part] - center) * scale
            norms[part] = np.sqrt(np.einsum("ij,ij->i", differences, differences))
            if norms[part].max() > 1 / FLOOR:
                return None
            if rotation is not None:
                differences = differences.astype(rotation.dtype, copy=False) @ rotation
            coordinates[part] = differences
        order, starts = _near_together(_widest(coordinates), group)
        # float32 for the coordinates and for a tail's norm, and what float64 did to the rotation: under 4 units
        error = (4 * UNIT + _rotation_error(rotation)) * norms[order] + FLOOR
        return cls(_permuted(coordinates, order), starts, order, error.astype(np.float32))


def _center_and_axes(points: np.ndarray) -> tuple[np.ndarray, np.ndarray | None, float]:
    """Return coordinatewise medians, principal axes as columns or None for the own, and the median norm.

    All of a sample. Rows are cut to the median norm first, so that the few with massive activations do not choose
    the axes.
    """
    m, d = points.shape
    center = np.median(points[_evenly(m, CENTER_SAMPLE)].astype(np.float64), axis=0)
    sample = points[_evenly(m, SAMPLE)] - center
    norms = np.linalg.norm(sample, axis=1)
    median = float(np.median(norms))
    if m < FEWEST_ROWS_PER_AXIS * d or median == 0:
        return center, None, median
    sample *= np.minimum(1, median / np.maximum(norms, median))[:, None] / median
    _, axes = np.linalg.eigh(sample.T @ sample)
    return center, np.ascontiguousarray(axes[:, ::-1]), median


def _evenly(count: int, most: int) -> np.ndarray:
    return np.linspace(0, count - 1, min(most, count)).astype(np.int64)


def _is_orthogonal(axes: np.ndarray | None) -> bool:
    return axes is None or np.abs(axes.T @ axes - np.eye(len(axes))).sum(axis=1).max() <= UNIT / 2


def _rotation_error(rotation: np.ndarray | None) -> float:
    """Return how far float32 can move a point of norm 1: (d + 4) units of each product, in each coordinate.

    The norm of the absolute values of the rotation, at most the root of its largest row sum and column sum, bounds
    what that comes to for all coordinates together. Nothing in float64, whose units are 2⁻²⁹ of float32's.
    """
    if rotation is None or rotation.dtype == np.float64:
        return 0.0
    sizes = np.abs(rotation.astype(np.float64))
    return (len(rotation) + 4) * UNIT * float(np.sqrt(sizes.sum(axis=0).max() * sizes.sum(axis=1).max()))


def _widest(coordinates: np.ndarray) -> np.ndarray:
    """Return the few coordinates (m, axes) of the largest magnitude, by a sample: on principal axes the first."""
    magnitudes = np.abs(coordinates[:: max(1, len(coordinates) // CENTER_SAMPLE)]).mean(axis=0)
    return coordinates[:, np.sort(np.argsort(-magnitudes, kind="stable")[:SPLIT_AXES])]


def _near_together(leading: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Halve the points (m, axes) along the axis of their largest spread until no group exceeds `most`.

    Returns the order (m,) that puts the groups one after another, and where each starts.
    """
    order, starts = np.arange(len(leading)), np.array([0, len(leading)])
    while np.diff(starts).max() > most:
        middles = (starts[:-1] + starts[1:]) // 2
        for start, middle, stop in zip(starts[:-1], middles, starts[1:], strict=True):
            group = leading[order[start:stop]]
            axis = np.argmax(np.abs(group - group[len(group) // 2]).mean(axis=0))
            halves = np.argpartition(group[:, axis], middle - start)
            order[start:stop] = order[start:stop][halves]
        starts = np.sort(np.concatenate([starts, middles]))
    return order, starts


def _permuted(rows: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Return rows[order], made a few columns at a time within `rows`, which is overwritten."""
    step = max(64, 2**24 // len(rows))
    for start in range(0, rows.shape[1], step):
        rows[:, start : start + step] = rows[order, start : start + step]
    return rows


@dataclass(frozen=True, slots=True)
class _Bounds:
    """What makes a_i · a_j + t_i t_j + h_i + h_j: leading coordinates, norms of the others, halves of squares.

    Attributes
    ----------
    leading : (m, p) float32, a
    tails : (m,) float32, t
    halves : (m,) float32, h
    """

    leading: np.ndarray
    tails: np.ndarray
    halves: np.ndarray

    def of(self, rows: slice, others: slice) -> np.ndarray:
        """Return (rows, others) float32, from one matrix product."""
        left, right = self._factor(rows), self._factor(others)
        left[:, -2], right[:, -1] = 1, 1
        left[:, -1], right[:, -2] = self.halves[rows], self.halves[others]
        return left @ right.T

    def _factor(self, rows: slice) -> np.ndarray:
        depth = self.leading.shape[1]
        factor = np.empty((rows.stop - rows.start, depth + 3), dtype=np.float32)
        factor[:, :depth], factor[:, depth] = self.leading[rows], self.tails[rows]
        return factor


def _started(
    points: np.ndarray, k: int, pool: ThreadPoolExecutor, *, group: int, single: bool
) -> tuple[Search, PrincipalCloud] | None:
    """Return a search whose radii are bounded, and the points on the axes that it is made on."""
    cloud = PrincipalCloud.of(points, group=group, single=single)
    if cloud is None:
        return None
    search = _empty_search(cloud, k)
    with threadpool_limits(1, user_api="blas"):
        _bound_radii(search, cloud, pool)
    return search, cloud


def _is_blurred(search: Search, cloud: PrincipalCloud) -> bool:
    return not np.median(cloud.error / search.radius) <= FINE


def _empty_search(cloud: PrincipalCloud, k: int) -> Search:
    m, d = cloud.coordinates.shape
    capacity = 3 * k + SPARE
    return Search(
        coordinates=cloud.coordinates,
        tails=np.empty((0, m), dtype=np.float32),
        stops=np.empty(0, dtype=np.uintp),
        error=cloud.error,
        lost=np.empty(0, dtype=np.float32),
        reach=np.full(m, np.inf, dtype=np.float32),
        radius=np.full(m, np.inf, dtype=np.float32),
        best=np.full((m, k), np.inf, dtype=np.float32),
        candidates=np.empty((m, capacity), dtype=np.int32),
        lower=np.empty((m, capacity), dtype=np.float32),
        used=np.zeros(m, dtype=np.int64),
        rounding=np.float32(_rounding(d)),
    )


def _rounding(d: int) -> float:
    """Return what a float32 sum of d products is off by at most, relative to the norms, with room to spare."""
    return (2 * d + 32) * UNIT


def _bound_radii(search: Search, cloud: PrincipalCloud, pool: ThreadPoolExecutor) -> None:
    """Bound the k-th distance of every row from above by the rows of its own group, with all axes."""
    [norms] = _tail_norms(cloud.coordinates, [0])
    squares = (1 + _rounding(cloud.coordinates.shape[1])) * np.square(norms, dtype=np.float64)
    # errors whole and squares by half: the errors of both points are added before they are squared
    halves = -(squares / 2 + _squared_errors(cloud)).astype(np.float32)
    bounds = _Bounds(cloud.coordinates, np.zeros_like(norms), halves)

    def bound(group: int) -> None:
        rows = slice(*cloud.starts[group : group + 2])
        first_radii(search, bounds.of(rows, rows), rows.start)

    list(pool.map(bound, range(len(cloud.starts) - 1)))


def _squared_errors(cloud: PrincipalCloud) -> np.ndarray:
    return (1 + 1 / WIDEN) * np.square(cloud.error, dtype=np.float64)


def _tail_norms(coordinates: np.ndarray, stops: list[int]) -> np.ndarray:
    """Return (len(stops), m) float32, the norms of the coordinates (m, d) from each stop on."""
    edges = [*stops, coordinates.shape[1]]
    squares = np.zeros((len(edges), len(coordinates)))
    for row in range(len(stops) - 1, -1, -1):
        part = coordinates[:, edges[row] : edges[row + 1]]
        np.einsum("ij,ij->i", part, part, out=squares[row], dtype=np.float64)
        squares[row] += squares[row + 1]
    return np.sqrt(squares[:-1]).astype(np.float32)


def _compare_all(search: Search, cloud: PrincipalCloud, pool: ThreadPoolExecutor) -> bool:
    """Compare all pairs of tiles. Return False where the plain search has less work.

    The number of leading axes is chosen anew after the nearest tiles, for radii that are small by then.
    """
    starts = cloud.starts if len(cloud.starts) == 2 else cloud.starts[::2]

    def compare(pair: tuple[int, int]) -> None:
        rows, others = (slice(*starts[tile : tile + 2]) for tile in pair)
        compare_tiles(search, bounds.of(rows, others), rows.start, others.start)

    depth, tiles = None, len(starts) - 1
    for step, pairs in enumerate(_rounds(tiles)):
        if step in (0, tiles // NEAR_TILES):
            before, depth = depth, leading_axes(search, cloud)
            if depth is None:
                return False
            if depth != before:
                search, bounds = _with_leading_axes(search, cloud, depth)
        list(pool.map(compare, pairs))
    return True


def _rounds(tiles: int) -> Iterator[list[tuple[int, int]]]:
    """Yield the pairs of a power of two of tiles: each with itself, then with its sibling, then its cousins."""
    for step in range(tiles):
        yield [(tile, tile ^ step) for tile in range(tiles) if tile <= tile ^ step]


def leading_axes(search: Search, cloud: PrincipalCloud) -> int | None:
    """Return how many leading axes make the least work, all where no pair could be dropped with fewer.

    Measured on a sample of pairs: the work of p axes is p a pair, and more for each pair that p axes and the norms
    of the rest do not put beyond the radii. None where the plain search has less.
    """
    m, d = cloud.coordinates.shape
    queries, others = _evenly(m, QUERIES), _evenly(m, OTHERS)
    reach = np.maximum(search.reach[queries, None], search.reach[others])
    reach[queries[:, None] == others] = -np.inf
    a, b = cloud.coordinates[queries], cloud.coordinates[others]
    sizes = [*(p for p in LEADING_AXES if p < d), d]
    tails_a, tails_b = (np.vstack([_tail_norms(x, [0, *sizes[:-1]]), 0 * x[:, 0]]) for x in (a, b))
    halves = (np.square(tails_a[0])[:, None] + np.square(tails_b[0])) * np.float32(0.5 - _rounding(d) / 2)
    costs, start = {}, 0
    for p, t, s in zip(sizes, tails_a[1:], tails_b[1:], strict=True):
        halves -= a[:, start:p] @ b[:, start:p].T
        share = float((halves - t[:, None] * s <= reach).mean())
        costs[p], start = p + PAIR_COST * share, p
    best = min(costs, key=lambda p: costs[p])
    return best if costs[best] <= PLAIN_COST * d else None


def _with_leading_axes(search: Search, cloud: PrincipalCloud, depth: int) -> tuple[Search, _Bounds]:
    """Return the search and the bounds for a number of leading axes."""
    d = cloud.coordinates.shape[1]
    leading, stops = cloud.coordinates[:, :depth], [*range(depth, d, CHUNK), d]
    tails = _tail_norms(cloud.coordinates, stops)
    squares = np.einsum("ij,ij->i", leading, leading, dtype=np.float64)
    squares += np.square(tails[0], dtype=np.float64)
    errors = _squared_errors(cloud)
    halves = ((errors - (1 - _rounding(d)) * squares) / 2).astype(np.float32)
    # the rounding that the bound allows for, as much again if all went the other way, and that of what is added
    lost = (errors + 3 * _rounding(d) * squares).astype(np.float32)
    search = search._replace(tails=tails, stops=np.array(stops, dtype=np.uintp), lost=lost)
    return search, _Bounds(leading, tails[0], halves)


def _by_original_rows(search: Search, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    m = len(order)
    missing = np.arange(search.candidates.shape[1]) >= search.used[:, None]
    search.candidates[missing] = 0
    rows = order[search.candidates]
    rows[missing] = m
    rows.sort(axis=1)
    width = int(search.used.max())
    found, given_up = np.empty((m, width), dtype=np.int64), np.empty(m, dtype=bool)
    found[order], given_up[order] = rows[:, :width], search.radius < 0
    return found, given_up
