"""Compiled: two tiles of points meet, and each point keeps those of the other tile that may be near it.

A pair is looked at for both of its points at once. It is dropped as soon as the leading coordinates and the
norms of the others prove it further apart than either point needs: first from the matrix product, then with
more coordinates. What is left is measured in float32, between a lower and an upper bound of the distance.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

BLOCK = 64  # pairs that are looked at together
COARSE = 2.0**-6  # of a squared distance: the most that rounding may leave open before it is measured
WIDEN = 2.0**-10  # (r + e)² ≤ (1 + w) r² + (1 + 1/w) e²: makes the test of a pair a sum over its points

# Sums in any order, as fast as they go: every bound holds for any order. No NaN gets this far, and the sign of a
# zero means nothing here; infinities do occur. Nothing is allocated, so that arrays need not be counted: counting
# each use of each of them took more time than all else.
OPTIONS = {
    "_nrt": False,
    "nogil": True,
    "fastmath": {"reassoc", "contract", "nnan", "nsz"},
    "error_model": "numpy",
}
compiled = numba.njit(cache=True, **OPTIONS)
# part of its callers: to hand over all arrays of a search costs more than most of what is done with them
inlined = numba.njit(forceinline=True, **OPTIONS)


class Search(NamedTuple):
    """All that the meetings read and write; rows in spatial order.

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
    lower : (m, capacity) float32, lower bounds of the distances to the candidates
    index : (m, capacity) int32, the candidates
    count : (m,) int64, how many there are
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
    lower: np.ndarray
    index: np.ndarray
    count: np.ndarray
    rounding: np.float32


@compiled
def meet(search, closeness, first, second):
    """Let the rows from `first` meet the rows from `second`.

    closeness : (rows, others) float32, none below minus half the square of the distance of the pair
    """
    # indices without a sign: compiled without a look for negative ones, which would keep a loop from vectors
    first, second = np.uintp(first), np.uintp(second)
    reach, others = search.reach, np.uintp(closeness.shape[1])
    for row in range(np.uintp(closeness.shape[0])):
        start = row + np.uintp(1) if first == second else np.uintp(0)
        for block in range(start, others, np.uintp(BLOCK)):
            end = min(block + np.uintp(BLOCK), others)
            if _count_near(closeness, reach, row, block, end, first, second):
                for column in range(block, end):
                    half = closeness[row, column]
                    farther = max(reach[first + row], reach[second + column])
                    if half >= -farther:
                        square = _with_all_axes(search, first + row, second + column, half, farther)
                        if square < np.inf:
                            _offer(search, first + row, second + column, square)


@inlined
def _count_near(closeness, reach, row, start, end, first, second):
    """Count the pairs within the reach of one of their points: counting, and not a test, becomes vectors."""
    near, own = 0, reach[first + row]
    for column in range(start, end):
        other = reach[second + column]
        farther = other if other > own else own
        near += closeness[row, column] >= -farther
    return near


@inlined
def _with_all_axes(search, i, j, half, reach):
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
def _offer(search, i, j, square):
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
def _squared(coordinates, i, j, start, end):
    total = np.float32(0)
    for c in range(start, end):
        difference = coordinates[i, c] - coordinates[j, c]
        total += difference * difference
    return total


@inlined
def _keep(search, i, j, lower, upper):
    if lower > search.radius[i]:
        return
    if upper < search.best[i, -1]:
        _insert(search.best[i], upper)
        tighten(search, i)
    count = search.count[i]
    if count == search.lower.shape[1]:
        drop_far(search, i)
        count = search.count[i]
    if count == search.lower.shape[1]:
        search.reach[i], search.radius[i] = -np.inf, -np.inf
    else:
        search.lower[i, count], search.index[i, count] = lower, j
        search.count[i] = count + 1


@inlined
def _insert(ascending, value):
    """Put a value in its place among others; the largest falls out."""
    place = len(ascending) - 1
    while place > 0 and ascending[place - 1] > value:
        ascending[place] = ascending[place - 1]
        place -= 1
    ascending[place] = value


@inlined
def tighten(search, i):
    """Set the radius of a row by its k-th upper bound, and its reach by the radius."""
    if search.best[i, -1] < search.radius[i]:
        search.radius[i] = search.best[i, -1]
        beyond = search.radius[i] + search.error[i]
        search.reach[i] = (np.float32(1 + WIDEN) + 4 * search.rounding) * beyond * beyond / 2


@inlined
def drop_far(search, i):
    """Drop the candidates of a row that are beyond its radius."""
    kept = 0
    for c in range(search.count[i]):
        if search.lower[i, c] <= search.radius[i]:
            search.lower[i, kept], search.index[i, kept] = search.lower[i, c], search.index[i, c]
            kept += 1
    search.count[i] = kept


@compiled
def drop_all_far(search):
    """Drop what is beyond the radius of any row."""
    for i in range(len(search.count)):
        drop_far(search, i)


@compiled
def first_radii(search, closeness, first):
    """Bound the k-th distance of the rows of a tile from above by those within the tile.

    closeness : (rows, rows) float32, none above minus half the square of the distance of the pair
    """
    rows = closeness.shape[0]
    for row in range(rows):
        i = first + row
        nearest = search.best[i]
        for column in range(rows):
            square = -2 * closeness[row, column]
            if column != row and square < nearest[-1]:
                _insert(nearest, max(square, np.float32(0)))
        for c in range(len(nearest)):
            nearest[c] = np.sqrt(nearest[c] * np.float32(1 + WIDEN)) * (1 + search.rounding)
        tighten(search, i)
        nearest[:] = np.inf  # the same pairs are measured when the tile meets itself
