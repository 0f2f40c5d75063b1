"""Compiled loops over a pair of tiles: each point keeps those of the other tile that may be near it.

A pair of points is looked at once for both. It is dropped as soon as the leading coordinates and the norms of the
others prove it further apart than either point needs: first from the matrix product, then with more coordinates.
What is left is measured in float32, between a lower and an upper bound of the distance.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np

BLOCK = 64  # pairs that are looked at together
COARSE = 2.0**-6  # of a squared distance: the most that rounding may leave open before it is measured
WIDEN = 2.0**-10  # (r + e)² ≤ (1 + w) r² + (1 + 1/w) e²: makes the test of a pair a sum over its points

OPTIONS: dict[str, Any] = {
    "nogil": True,
    # Every bound holds for sums in any order. No NaN gets this far, and the sign of a zero means nothing here;
    # infinities do occur.
    "fastmath": {"reassoc", "contract", "nnan", "nsz"},
    "error_model": "numpy",
    # Nothing is allocated here, so arrays need no reference counts. Numba has no public option for that. With counts,
    # all threads write to the same few of them at every candidate: a tenth of the time on one thread.
    "_nrt": False,
}
compiled = numba.njit(cache=True, **OPTIONS)
# compiled into its callers: passing all arrays of a search costs more than most of the work on them
inlined = numba.njit(forceinline=True, **OPTIONS)

Index = int | np.uintp


class Search(NamedTuple):
    """All that the loops read and write; rows in spatial order.

    Attributes
    ----------
    coordinates : (m, d) float32
    tails : (stops, m) float32, norms of the coordinates from each stop on
    stops : (stops,) uint64, ascending, from the number of leading coordinates to d
    error : (m,) float32, how far a point can be from its coordinates
    lost : (m,) float32, the most that a bound can be under the square of a distance, by one of its points
    reach : (m,) float32, half the square that a lower bound must exceed to be dropped; −inf: given up
    radius : (m,) float32, no k-th distance is larger; −inf: given up
    best : (m, k) float32, upper bounds of the k least distances found so far, ascending
    candidates : (m, capacity) int32, the rows that may be near each row
    lower : (m, capacity) float32, lower bounds of the distances to the candidates
    used : (m,) int64, how many candidates there are
    rounding : the relative error of a sum of d products in float32, with room to spare
    """

    coordinates: np.ndarray
    tails: np.ndarray
    stops: np.ndarray
    error: np.ndarray
    lost: np.ndarray
    reach: np.ndarray
    radius: np.ndarray
    best: np.ndarray
    candidates: np.ndarray
    lower: np.ndarray
    used: np.ndarray
    rounding: np.float32


@compiled
def compare_tiles(search: Search, closeness: np.ndarray, first: int, second: int) -> None:
    """Compare the rows from `first` with the rows from `second`; where these are the same, each pair once.

    closeness : (rows, others) float32, none below minus half the square of the distance of the pair
    """
    # unsigned indices: a check for negative ones would keep the compiler from vectorizing
    own, other, others = np.uintp(first), np.uintp(second), np.uintp(closeness.shape[1])
    for row in range(np.uintp(closeness.shape[0])):
        start = row + np.uintp(1) if own == other else np.uintp(0)
        for block in range(start, others, np.uintp(BLOCK)):
            end = min(block + np.uintp(BLOCK), others)
            if _count_near(search.reach, closeness, row, block, end, own, other):
                _compare_row(search, closeness, row, block, end, own, other)


@inlined
def _count_near(
    reach: np.ndarray, closeness: np.ndarray, row: Index, start: Index, end: Index, own: Index, other: Index
) -> int:
    """Count the pairs within the reach of one of their points: counting, and not a test, becomes vectors."""
    near, of_row = 0, reach[own + row]
    for column in range(start, end):
        of_column = reach[other + column]
        farther = of_column if of_column > of_row else of_row
        near += closeness[row, column] >= -farther
    return near


@inlined
def _compare_row(
    search: Search, closeness: np.ndarray, row: Index, start: Index, end: Index, own: Index, other: Index
) -> None:
    for column in range(start, end):
        i, j, half = own + row, other + column, closeness[row, column]
        farther = max(search.reach[i], search.reach[j])
        if half >= -farther:
            square = _with_all_axes(search, i, j, half, farther)
            if square < np.inf:
                _offer(search, i, j, square)


@inlined
def _with_all_axes(search: Search, i: Index, j: Index, half: np.float32, reach: np.float32) -> np.float32:
    """Add the other coordinates to the lower bound of a squared distance; infinite once it is beyond the reach."""
    tails, stops = search.tails, search.stops
    across = tails[0, i] - tails[0, j]
    square = -2 * half - across * across
    for stop in range(len(stops) - 1):
        square += _squared(search.coordinates, i, j, stops[stop], stops[stop + 1])
        across = tails[stop + 1, i] - tails[stop + 1, j]
        if square + across * across > 2 * reach:
            return np.float32(np.inf)
    return square


@inlined
def _offer(search: Search, i: Index, j: Index, square: np.float32) -> None:
    """Let each of two points have the other as a candidate, if it wants it.

    The distance lies between two bounds: by what rounding took from `square`, or by direct differences where that
    is much of it.
    """
    lost = search.lost[i] + search.lost[j]
    if lost > np.float32(COARSE) * square:
        square, lost = _squared(search.coordinates, i, j, np.uintp(0), search.stops[-1]), np.float32(0)
    errors = search.error[i] + search.error[j]
    lower = np.sqrt(square) * (1 - search.rounding) - errors
    upper = np.sqrt(square + lost) * (1 + search.rounding) + errors
    _keep(search, i, j, lower, upper)
    _keep(search, j, i, lower, upper)


@inlined
def _squared(coordinates: np.ndarray, i: Index, j: Index, start: Index, end: Index) -> np.float32:
    total = np.float32(0)
    for c in range(start, end):
        difference = coordinates[i, c] - coordinates[j, c]
        total += difference * difference
    return total


@inlined
def _keep(search: Search, i: Index, j: Index, lower: np.float32, upper: np.float32) -> None:
    """Make row j a candidate of row i; a row with more candidates than it has room for is given up."""
    if lower > search.radius[i]:
        return
    if upper < search.best[i, -1]:
        _insert(search.best[i], upper)
        _tighten(search, i)
    if search.used[i] == search.lower.shape[1]:
        _drop_far(search, i)
    used = search.used[i]
    if used == search.lower.shape[1]:
        search.reach[i], search.radius[i] = -np.inf, -np.inf
    else:
        search.lower[i, used], search.candidates[i, used] = lower, j
        search.used[i] = used + 1


@inlined
def _insert(ascending: np.ndarray, value: np.float32) -> None:
    """Put a value in its place among others; the largest falls out."""
    place = len(ascending) - 1
    while place > 0 and ascending[place - 1] > value:
        ascending[place] = ascending[place - 1]
        place -= 1
    ascending[place] = value


@inlined
def _tighten(search: Search, i: Index) -> None:
    """Set the radius of a row by its k-th upper bound, and its reach by the radius."""
    if search.best[i, -1] < search.radius[i]:
        search.radius[i] = search.best[i, -1]
        beyond = search.radius[i] + search.error[i]
        search.reach[i] = (np.float32(1 + WIDEN) + 4 * search.rounding) * beyond * beyond / 2


@inlined
def _drop_far(search: Search, i: Index) -> None:
    """Drop the candidates of a row that are beyond its radius."""
    kept = 0
    for c in range(search.used[i]):
        if search.lower[i, c] <= search.radius[i]:
            search.lower[i, kept], search.candidates[i, kept] = search.lower[i, c], search.candidates[i, c]
            kept += 1
    search.used[i] = kept


@compiled
def drop_all_far(search: Search) -> None:
    """Drop the candidates of all rows that are beyond their radius."""
    for i in range(len(search.used)):
        _drop_far(search, i)


@compiled
def first_radii(search: Search, closeness: np.ndarray, first: int) -> None:
    """Bound the k-th distance of the rows of a tile from above by those within the tile.

    closeness : (rows, rows) float32, none above minus half the square of the distance of the pair
    """
    rows = closeness.shape[0]
    for row in range(rows):
        nearest = search.best[first + row]
        for column in range(rows):
            square = -2 * closeness[row, column]
            if column != row and square < nearest[-1]:
                _insert(nearest, max(square, np.float32(0)))
        for c in range(len(nearest)):
            nearest[c] = np.sqrt(nearest[c] * np.float32(1 + WIDEN)) * (1 + search.rounding)
        _tighten(search, first + row)
        nearest[:] = np.inf  # the same pairs are measured when the tile is compared with itself
