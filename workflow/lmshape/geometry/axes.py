"""A cloud on its principal axes in float32, with the most that each stored point can be off.

Distances do not change under rotation, and on its principal axes a cloud has most of a squared distance in a few
leading coordinates. (Few points in many dimensions keep their axes: finding others would take longer than the search.)
By the triangle inequality the norms of what is left add at least the square of their
difference: (Σ_{i ≤ p} (a_i − b_i)²) + (‖a_{> p}‖ − ‖b_{> p}‖)² ≤ ‖a − b‖², at the cost of p + 1 coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

UNIT = 2.0**-24  # the most that rounding to float32 changes a number, relative to it
FLOOR = 2.0**-50  # of the median norm: far above where products leave float32 at its lower end
SAMPLE = 2048  # rows that axes are taken from: any axes and any center are right, good ones fast
CENTER_SAMPLE = 512  # rows that the center is taken from
FEWEST_ROWS_PER_AXIS = 16  # with fewer, axes are not worth their search
SPLIT_AXES = 16  # a group of points is halved along one of as many axes
STEP = 2048  # points rotated at a time


@dataclass(frozen=True, slots=True)
class PrincipalCloud:
    """The points on principal axes, and how far from the truth they are.

    Attributes
    ----------
    coordinates : (m, d) float32, largest variance first, in units near the median norm; near points together
    starts : (tiles + 1,) int64, where groups of near points start; a power of two of them, of like sizes, those
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
            coordinates[part] = differences if rotation is None else _rotated(differences, rotation)
        order, starts = _near_together(_widest(coordinates), group)
        # float32 for the coordinates and for a tail's norm, and what float64 did to the rotation: under 4 units
        error = (4 * UNIT + _rotation_error(rotation)) * norms[order] + FLOOR
        return cls(_permuted(coordinates, order), starts, order, error.astype(np.float32))


def tail_norms(coordinates: np.ndarray, stops: list[int]) -> np.ndarray:
    """Return (len(stops), m) float32, the norms of the coordinates (m, d) from each stop on."""
    edges = [*stops, coordinates.shape[1]]
    squares = np.zeros((len(edges), len(coordinates)))
    for row in range(len(stops) - 1, -1, -1):
        part = coordinates[:, edges[row] : edges[row + 1]]
        np.einsum("ij,ij->i", part, part, out=squares[row], dtype=np.float64)
        squares[row] += squares[row + 1]
    return np.sqrt(squares[:-1]).astype(np.float32)


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


def _rotated(differences: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    return differences.astype(rotation.dtype, copy=False) @ rotation


def _rotation_error(rotation: np.ndarray | None) -> float:
    """Return how far float32 can move a point of norm 1: (d + 4) units of each product, in each coordinate.

    The norm of the absolute values of the rotation, at most the root of its largest row sum and column sum, bounds
    what that comes to for all coordinates together. Nothing in float64, whose units are 2⁻²⁹ of float32's.
    """
    if rotation is None or rotation.dtype == np.float64:
        return 0.0
    sizes = np.abs(rotation.astype(np.float64))
    return (len(rotation) + 4) * UNIT * float(np.sqrt(sizes.sum(axis=0).max() * sizes.sum(axis=1).max()))


def _evenly(count: int, most: int) -> np.ndarray:
    return np.linspace(0, count - 1, min(most, count)).astype(np.int64)


def _is_orthogonal(axes: np.ndarray | None) -> bool:
    return axes is None or np.abs(axes.T @ axes - np.eye(len(axes))).sum(axis=1).max() <= UNIT / 2


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
