"""A cloud on its principal axes in float32, with the most that each stored point can be off.

Distances do not change under rotation, and on its principal axes a cloud has most of a squared distance in a few
leading coordinates. By the triangle inequality the norms of what is left add at least the square of their
difference: (Σ_{i ≤ p} (a_i − b_i)²) + (‖a_{> p}‖ − ‖b_{> p}‖)² ≤ ‖a − b‖², at the cost of p + 1 coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

UNIT = 2.0**-24  # the most that rounding to float32 changes a number, relative to it
FLOOR = 2.0**-50  # of the median norm: far above where products leave float32 at its lower end
SAMPLE = 4096  # rows that center and axes are taken from: any center and any axes are right, good ones fast
ORDERING_AXES = 6  # points are sorted by the signs of as many coordinates, so that tiles hold near points


@dataclass(frozen=True, slots=True)
class PrincipalCloud:
    """The points on principal axes, and how far from the truth they are.

    Attributes
    ----------
    coordinates : (m, d) float32, largest variance first, in units near the median norm; rows in spatial order
    order : (m,) int64, the row of the cloud that each is
    error : (m,) float64, no point is further than this from where it would be without rounding
    """

    coordinates: np.ndarray
    order: np.ndarray
    error: np.ndarray

    @classmethod
    def of(cls, points: np.ndarray, *, step: int = 2048) -> PrincipalCloud | None:
        """Return the cloud, or None where the norms of the points do not fit into float32 together."""
        m, d = points.shape
        center, axes, median = _center_and_axes(points)
        if not 2.0**-400 < median or np.abs(axes.T @ axes - np.eye(d)).sum(axis=1).max() > UNIT / 2:
            return None
        scale = 2.0 ** -np.round(np.log2(median))
        coordinates, norms = np.empty((m, d), dtype=np.float32), np.empty(m)
        for start in range(0, m, step):
            part = slice(start, start + step)
            differences = (points[part] - center) * scale
            norms[part] = np.linalg.norm(differences, axis=1)
            if norms[part].max() > 1 / FLOOR:
                return None
            coordinates[part] = differences @ axes
        order = _spatial_order(coordinates[:, :ORDERING_AXES])
        # float32 for the coordinates and for a tail's norm, and what float64 did to the rotation: under 4 units
        return cls(_permuted(coordinates, order), order, 4 * UNIT * norms[order] + FLOOR)

    def tail_norms(self, stops: list[int]) -> np.ndarray:
        """Return (len(stops), m) float32, the norms of the coordinates from each stop on."""
        m, d = self.coordinates.shape
        squares = np.zeros((len(stops), m))
        for row in range(len(stops) - 1, -1, -1):
            end = stops[row + 1] if row + 1 < len(stops) else d
            part = self.coordinates[:, stops[row] : end]
            squares[row] = np.einsum("ij,ij->i", part, part, dtype=np.float64)
            if row + 1 < len(stops):
                squares[row] += squares[row + 1]
        return np.sqrt(squares).astype(np.float32)


def _center_and_axes(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Return coordinatewise medians, principal axes as columns, and the median norm, all of a sample.

    Rows are cut to the median norm first, so that the few with massive activations do not choose the axes.
    """
    sample = points[np.linspace(0, len(points) - 1, min(SAMPLE, len(points))).astype(np.int64)]
    center = np.median(sample, axis=0)
    sample = sample - center
    norms = np.linalg.norm(sample, axis=1)
    median = float(np.median(norms))
    if median > 0:
        sample *= np.minimum(1, median / np.maximum(norms, median))[:, None] / median
    _, axes = np.linalg.eigh(sample.T @ sample)
    return center, np.ascontiguousarray(axes[:, ::-1]), median


def _spatial_order(leading: np.ndarray) -> np.ndarray:
    cells = (leading > np.median(leading, axis=0)) @ (2 ** np.arange(leading.shape[1])[::-1])
    return np.argsort(cells, kind="stable")


def _permuted(rows: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Return rows[order], made a few columns at a time within `rows`, which is overwritten."""
    step = max(1, 2**24 // len(rows))
    for start in range(0, rows.shape[1], step):
        rows[:, start : start + step] = rows[order, start : start + step]
    return rows
