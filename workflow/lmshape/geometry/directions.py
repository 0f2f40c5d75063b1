"""Sums of unit rows about points that are known, from rows that arrive in batches: no pair of rows is formed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lmshape.geometry.centering import ROUNDING

CANCELED = (
    1e-3  # a square that is this share of what it is the difference of has lost three digits of sixteen
)


class DirectionSums:
    """Count and sum of the directions of rows seen from a point, for several sets of rows with a point each.

    ‖x − p‖² of all points at once is ‖y‖² − 2 y·q + ‖q‖² with y = x − center and q = p − center, a matrix product;
    where that cancels the difference is taken directly.

    Parameters
    ----------
    center : (d,) float64, a point amid the rows; the result does not depend on it
    points : (E, d) float64, from where the rows of each set are seen

    Attributes
    ----------
    counts : (E,) rows that have a direction: that differ from the point by more than its rounding
    totals : (E, d) Σ (x − p) / ‖x − p‖
    """

    __slots__ = ("_center", "_lengths", "_offsets", "_points", "_rounding", "counts", "totals")

    def __init__(self, center: np.ndarray, points: np.ndarray) -> None:
        self._center, self._points = center, points
        self._offsets = points - center
        self._lengths = np.einsum("ij,ij->i", self._offsets, self._offsets)
        self._rounding = np.square(ROUNDING * np.linalg.norm(points, axis=1))
        self.counts = np.zeros(len(points), dtype=np.int64)
        self.totals = np.zeros(points.shape)

    def update(self, rows: np.ndarray, sets: Sequence[int]) -> None:
        """Add rows (m, d) of any real dtype, all of them in each of the sets that are named: O(m d E)."""
        sets = np.asarray(sets)
        differences = rows - self._center
        largest = np.einsum("ij,ij->i", differences, differences)[:, None] + self._lengths[sets]
        squares = largest - 2 * (differences @ self._offsets[sets].T)
        canceled = squares < CANCELED * largest
        directed = ~canceled & (squares > self._rounding[sets])
        weights = 1 / np.sqrt(squares, where=directed, out=np.full_like(squares, np.inf))
        self.totals[sets] += weights.T @ differences - weights.sum(axis=0)[:, None] * self._offsets[sets]
        self.counts[sets] += directed.sum(axis=0)
        for column in np.flatnonzero(canceled.any(axis=0)):
            self._add_directly(rows[canceled[:, column]], sets[column])

    def mean_cosines(self, subsets: Sequence[Sequence[int]]) -> np.ndarray:
        """Return the mean cosine over the pairs of each union of sets; NaN under two rows that have a direction."""
        counts = np.array([self.counts[list(subset)].sum() for subset in subsets])
        totals = np.stack([self.totals[list(subset)].sum(axis=0) for subset in subsets])
        with np.errstate(invalid="ignore", divide="ignore"):
            cosines = (np.einsum("ij,ij->i", totals, totals) - counts) / (counts * (counts - 1))
        return np.where(counts < 2, np.nan, cosines)

    def _add_directly(self, rows: np.ndarray, own: int) -> None:
        differences = rows - self._points[own]
        squares = np.einsum("ij,ij->i", differences, differences)
        directed = squares > self._rounding[own]
        self.totals[own] += (1 / np.sqrt(squares[directed])) @ differences[directed]
        self.counts[own] += np.count_nonzero(directed)
