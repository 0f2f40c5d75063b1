"""The few rows that can be among the k nearest of each row of a large cloud, from half of its distance matrix.

Tiles of rows meet in pairs, each pair once, in rounds in which no tile has two meetings: the meetings of a
round write to different rows and run side by side. The number of leading axes in the matrix products is the one
with the least work on a sample of rows; where no axis can be spared all are taken, and nothing is tried in vain.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

from lmshape.geometry.axes import UNIT, PrincipalCloud
from lmshape.geometry.meeting import PATIENCE, WIDEN, Search, meet, reach_of, tighten_all

if TYPE_CHECKING:
    from collections.abc import Iterator

TILE = 1024  # rows; the coordinates of a tile and the products of two stay in the cache
CHUNK = 64  # coordinates added to a bound at a time
QUERIES = 128  # rows that the number of leading axes is chosen on
PAIR_COST = (
    2500  # a pair that is not dropped at once costs as much as the product of two rows of as many axes
)
SHARE_OF_PAIRS = 0.03  # that can be measured one by one; with more the plain search is no slower
LEADING_AXES = (16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048)  # numbers of axes to choose from


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
    Memory: (m, d) in float32, 24 (4k + 64) m bytes, and 4 MiB for each thread. Numba's cache is kept beside
    the modules, or in the user's cache folder; without it the first call compiles for some seconds.
    """
    cloud = PrincipalCloud.of(points)
    depth = None if cloud is None else leading_axes(cloud, k)
    if depth is None:
        return None
    search = _prepared(cloud, depth, k)
    rounding = _rounding(points.shape[1])
    _meet_all(search, k, rounding, min(tile, TILE))
    tighten_all(search, k, rounding)
    return _by_original_rows(search, cloud.order)


def leading_axes(cloud: PrincipalCloud, k: int) -> int | None:
    """Return how many leading axes make the least work, all where no pair could be dropped with fewer.

    Measured on a sample of rows against all: the work of p axes is p a pair, and more for each pair that p axes
    and the norms of the rest do not put beyond the k-th distance. None where too many pairs are left for any p.
    """
    m, d = cloud.coordinates.shape
    queries = np.linspace(0, m - 1, min(QUERIES, m)).astype(np.int64)
    sizes = [*(p for p in LEADING_AXES if p < d), d]
    *_, (_, bounds) = _sampled_bounds(cloud, queries, sizes)
    bounds[np.arange(len(queries)), queries] = np.inf
    radii = np.partition(bounds, k - 1, axis=1)[:, k - 1 : k]
    squares = np.square(cloud.tail_norms([0])[0])[queries, None]
    radii += 4 * _rounding(d) * (squares + np.abs(radii))
    shares = {p: float((bounds <= radii).mean()) for p, bounds in _sampled_bounds(cloud, queries, sizes)}
    best = min(sizes, key=lambda p: p + 2 * PAIR_COST * shares[p])
    return best if shares[best] - (k + 1) / m <= SHARE_OF_PAIRS else None


def _sampled_bounds(
    cloud: PrincipalCloud, queries: np.ndarray, sizes: list[int]
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield numbers of leading axes with the lower bounds (queries, m) of squared distances they give."""
    m, d = cloud.coordinates.shape
    tails = np.concatenate([cloud.tail_norms([0, *sizes[:-1]]), np.zeros((1, m), dtype=np.float32)])
    squares, products = np.square(tails[0]), np.zeros((len(queries), m), dtype=np.float32)
    for start, stop, tail in zip([0, *sizes[:-1]], sizes, tails[1:], strict=True):
        part = cloud.coordinates[:, start:stop]
        products += part[queries] @ part.T
        bounds = (squares[queries, None] + squares) * np.float32(1 - _rounding(stop))
        bounds -= 2 * tail[queries, None] * tail
        bounds -= 2 * products
        yield stop, bounds


def _rounding(d: int) -> float:
    """Return what a float32 sum of d products is off by at most, relative to the norms, with room to spare."""
    return (d + 32) * UNIT


def _prepared(cloud: PrincipalCloud, depth: int, k: int) -> Search:
    m, d = cloud.coordinates.shape
    stops = [*range(depth, d, CHUNK), d] if depth < d else [d]
    tails = cloud.tail_norms(stops[:-1]) if depth < d else np.zeros((1, m), dtype=np.float32)
    leading = cloud.coordinates[:, :depth]
    squares = np.einsum("ij,ij->i", leading, leading, dtype=np.float64) + np.square(
        tails[0], dtype=np.float64
    )
    half = ((1 - _rounding(depth)) * squares - (1 + 1 / WIDEN) * np.square(cloud.error)) / 2
    capacity = 4 * k + 64
    return Search(
        coordinates=cloud.coordinates,
        tails=tails,
        stops=np.array(stops),
        half=half.astype(np.float32),
        error=cloud.error,
        reach=np.full(m, np.inf, dtype=np.float32),
        radius=np.full(m, np.inf),
        lower=np.empty((m, capacity), dtype=np.float32),
        upper=np.empty((m, capacity), dtype=np.float32),
        index=np.empty((m, capacity), dtype=np.int32),
        count=np.zeros(m, dtype=np.int64),
        due=np.full(m, k + PATIENCE),
    )


def _meet_all(search: Search, k: int, rounding: float, tile: int) -> None:
    m, depth = len(search.half), int(search.stops[0])
    workers = max(
        (pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"), default=1
    )
    spaces = [np.empty((tile, tile), dtype=np.float32) for _ in range(workers)]

    def meetings(worker: int, pairs: list[tuple[int, int]]) -> None:
        for first, second in pairs[worker::workers]:
            left = search.coordinates[first * tile : (first + 1) * tile, :depth]
            right = search.coordinates[second * tile : (second + 1) * tile, :depth]
            products = spaces[worker].ravel()[: len(left) * len(right)].reshape(len(left), len(right))
            if first == second and k < len(left):
                _first_radii(search, slice(first * tile, (first + 1) * tile), k, rounding, products)
            np.matmul(left, right.T, out=products)
            meet(search, products, first * tile, second * tile, k, rounding)

    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(workers) as pool:
        for pairs in _rounds(-(-m // tile)):
            list(pool.map(meetings, range(workers), [pairs] * workers))


def _first_radii(search: Search, rows: slice, k: int, rounding: float, space: np.ndarray) -> None:
    """Bound the k-th distance of the rows of a tile from above by those within the tile.

    Here rounding is added, where lower bounds subtract it.
    """
    points, error = search.coordinates[rows], search.error[rows]
    squares = np.einsum("ij,ij->i", points, points, dtype=np.float64)
    own = ((1 + rounding) * squares).astype(np.float32)
    others = ((1 + rounding) * squares + (1 + 1 / WIDEN) * np.square(error)).astype(np.float32)
    bounds = np.matmul(points, points.T, out=space)
    bounds *= -2
    bounds += others
    np.fill_diagonal(bounds, np.inf)
    bounds.partition(k - 1, axis=1)
    kth = np.maximum(bounds[:, k - 1] + own, 0).astype(np.float64)
    search.radius[rows] = np.sqrt((1 + WIDEN) * kth) * (1 + rounding) + error
    search.reach[rows] = reach_of(search.radius[rows], error, rounding)


def _rounds(tiles: int) -> Iterator[list[tuple[int, int]]]:
    """Yield the meetings of all tiles, each with itself first, then with each other once: a round-robin."""
    yield [(tile, tile) for tile in range(tiles)]
    seats = [*range(tiles), *([-1] if tiles % 2 else [])]
    for _ in range(len(seats) - 1):
        pairs = zip(seats[: len(seats) // 2], seats[: len(seats) // 2 - 1 : -1], strict=True)
        yield [(min(pair), max(pair)) for pair in pairs if min(pair) >= 0]
        seats = [seats[0], seats[-1], *seats[1:-1]]


def _by_original_rows(search: Search, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    m = len(order)
    missing = np.arange(search.index.shape[1]) >= search.count[:, None]
    search.index[missing] = 0
    rows = order[search.index]
    rows[missing] = m
    rows.sort(axis=1)
    width = int(search.count.max())
    found, given_up = np.empty((m, width), dtype=np.int64), np.empty(m, dtype=bool)
    found[order], given_up[order] = rows[:, :width], search.radius < 0
    return found, given_up
