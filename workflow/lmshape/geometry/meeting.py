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
PATIENCE = 16  # candidates that a row takes before its radius is set anew
WIDEN = 2.0**-10  # (r + e)² ≤ (1 + w) r² + (1 + 1/w) e²: makes the test of a pair a sum over its points

# sums in any order, as fast as they go; every bound holds for any order
compiled = numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract"}, error_model="numpy")


class Search(NamedTuple):
    """All that the meetings read and write; rows in spatial order.

    Attributes
    ----------
    coordinates : (m, d) float32
    tails : (stops, m) float32, norms of the coordinates from each stop on
    stops : (stops + 1,) int64, the first stop is the number of leading coordinates, the last is d
    half : (m,) float32, half the squared norm, less all that rounding can do to a product with it
    error : (m,) float64, how far a point can be from its coordinates
    reach : (m,) float32, half the square that a lower bound must exceed to be dropped; −inf: given up
    radius : (m,) float64, no k-th distance is larger; −inf: given up
    lower, upper : (m, capacity) float32, bounds of the distances to the candidates
    index : (m, capacity) int32, the candidates
    count : (m,) int64, how many there are
    due : (m,) int64, the count at which the radius is set anew
    """

    coordinates: np.ndarray
    tails: np.ndarray
    stops: np.ndarray
    half: np.ndarray
    error: np.ndarray
    reach: np.ndarray
    radius: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    index: np.ndarray
    count: np.ndarray
    due: np.ndarray


@compiled
def meet(search, products, first, second, k, rounding):
    """Let the rows from `first` meet the rows from `second`; `products` are those of leading coordinates."""
    half, reach, tail = search.half, search.reach, search.tails[0]
    for row in range(products.shape[0]):
        i = first + row
        start = row + 1 if first == second else 0
        for block in range(start, products.shape[1], BLOCK):
            end = min(block + BLOCK, products.shape[1])
            near, others = products[row, block:end], slice(second + block, second + end)
            if _any_near(near, half[others], tail[others], reach[others], half[i], tail[i], reach[i]):
                for column in range(block, end):
                    j = second + column
                    nearness = products[row, column] + tail[i] * tail[j] - half[j]
                    if nearness >= half[i] - reach[i] or nearness + reach[j] >= half[i]:
                        _approach(search, i, j, 2 * (half[i] - nearness), k, rounding)


@compiled
def _any_near(products, halves, tails, reaches, half, tail, reach):
    """Tell whether any pair of a point and some others is within the reach of one of its two points."""
    need, found = half - reach, False
    for c in range(len(products)):
        near = products[c] + tail * tails[c] - halves[c]
        found |= (near >= need) | (near + reaches[c] >= half)
    return found


@compiled
def reach_of(radius, error, rounding):
    """Return half the square that a lower bound must exceed for a point to be beyond the radius."""
    return (1 + WIDEN + 4 * rounding) * (radius + error) ** 2 / 2


@compiled
def tighten(search, i, k, rounding):
    """Set the radius of a row by its k-th upper bound, and drop the candidates beyond it."""
    lower, upper, index, count = search.lower[i], search.upper[i], search.index[i], search.count[i]
    if count >= k:
        search.radius[i] = min(search.radius[i], np.sort(upper[:count])[k - 1])
    kept = 0
    for c in range(count):
        if lower[c] <= search.radius[i]:
            lower[kept], upper[kept], index[kept] = lower[c], upper[c], index[c]
            kept += 1
    search.count[i] = kept
    search.due[i] = max(kept, k) + PATIENCE
    if search.due[i] > len(lower):
        search.reach[i], search.radius[i] = -np.inf, -np.inf
    else:
        search.reach[i] = reach_of(search.radius[i], search.error[i], rounding)


@compiled
def tighten_all(search, k, rounding):
    """Tighten every row that has not been given up."""
    for i in range(len(search.count)):
        if search.radius[i] >= 0:
            tighten(search, i, k, rounding)


@compiled
def _approach(search, i, j, square, k, rounding):
    """Add coordinates to the lower bound of a squared distance while it is short enough, then measure."""
    limit = 2 * max(search.reach[i], search.reach[j])
    tails, stops = search.tails, search.stops
    square -= tails[0, i] * tails[0, i] + tails[0, j] * tails[0, j] - 2 * tails[0, i] * tails[0, j]
    for stop in range(len(stops) - 1):
        across = tails[stop, i] - tails[stop, j]
        if square + across * across > limit:
            return
        square += _squared(search.coordinates, i, j, stops[stop], stops[stop + 1])
    if square > limit:
        return
    distance = np.sqrt(np.float64(_squared(search.coordinates, i, j, 0, search.coordinates.shape[1])))
    errors = search.error[i] + search.error[j]
    lower, upper = distance * (1 - rounding) - errors, distance * (1 + rounding) + errors
    _keep(search, i, j, lower, upper, k, rounding)
    _keep(search, j, i, lower, upper, k, rounding)


@compiled
def _keep(search, i, j, lower, upper, k, rounding):
    if lower > search.radius[i]:
        return
    count = search.count[i]
    search.lower[i, count], search.upper[i, count], search.index[i, count] = lower, upper, j
    search.count[i] = count + 1
    if count + 1 >= search.due[i]:
        tighten(search, i, k, rounding)


@compiled
def _squared(coordinates, i, j, start, end):
    a, b = coordinates[i], coordinates[j]
    total = np.float32(0)
    for c in range(start, end):
        total += (a[c] - b[c]) * (a[c] - b[c])
    return total
