"""Count, mean and scatter matrix of a cloud from one pass over its rows.

Sums are float64 and taken about the mean of each batch (Chan, Golub & LeVeque 1983): Σxx' − n·mm' would lose
the spectrum as soon as the mean is large beside the spread, as it is in a language model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lmshape.geometry.centering import centered
from lmshape.geometry.checks import as_matrix

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import ArrayLike


class CovarianceSums:
    """Count, mean and scatter matrix of rows that arrive in batches: O(d²) memory, however many rows.

    Attributes
    ----------
    count : rows seen
    mean : (d,) float64, mean of the rows
    scatter : (d, d) float64, Σ (x − mean)(x − mean)'
    """

    __slots__ = ("count", "mean", "scatter")

    def __init__(self, width: int) -> None:
        self.count = 0
        self.mean = np.zeros(width)
        self.scatter = np.zeros((width, width))

    @classmethod
    def merged(cls, parts: Iterable[CovarianceSums], width: int) -> CovarianceSums:
        """Return the sums over the rows of all `parts`, which stay as they are, in O(d²) for each."""
        total = cls(width)
        parts = [part for part in parts if part.count]
        if not parts:
            return total
        counts = np.array([part.count for part in parts])
        total.count = int(counts.sum())
        # about the mean of one of them, whose rounding would else be left in the differences
        offsets = np.stack([part.mean - parts[0].mean for part in parts])
        offset = counts @ offsets / total.count
        total.mean = parts[0].mean + offset
        between = np.sqrt(counts)[:, None] * (offsets - offset)
        np.matmul(between.T, between, out=total.scatter)
        for part in parts:
            total.scatter += part.scatter
        return total

    def update(self, rows: ArrayLike) -> None:
        """Add a batch of rows (m, d), m ≥ 1, in O(m d²)."""
        batch = as_matrix(rows, name="rows", minimum_rows=1)
        self._refuse_other_width(batch.shape[1])
        self.add_differences(*centered(batch))

    def add_differences(self, differences: np.ndarray, mean: np.ndarray) -> None:
        """Add a batch of rows, given as their differences (m, d) from their mean (d,), both float64."""
        self.scatter += differences.T @ differences
        self._join(len(differences), mean)

    def merge(self, other: CovarianceSums) -> None:
        """Add the rows that `other` has seen."""
        self._refuse_other_width(len(other.mean))
        if other.count:
            self.scatter += other.scatter
            self._join(other.count, other.mean)

    def covariance(self, *, center: bool = True) -> np.ndarray:
        """Return Σ (x − mean)(x − mean)' / (n − 1) as (d, d), or Σ xx' / (n − 1) without centering."""
        if self.count < 2:
            raise ValueError(
                f"a covariance of {self.count} rows does not exist; at least 2 are needed. Add rows."
            )
        if center:
            return self.scatter / (self.count - 1)
        uncentered = np.outer(self.mean * self.count, self.mean)
        uncentered += self.scatter
        uncentered /= self.count - 1
        return uncentered

    def _join(self, count: int, mean: np.ndarray) -> None:
        """Count rows whose scatter about their own mean is in the sum, and add what lies between the means."""
        total = self.count + count
        offset = mean - self.mean
        if self.count:
            self.scatter += np.outer(offset * (self.count * count / total), offset)
        self.mean += offset * (count / total)
        self.count = total

    def _refuse_other_width(self, width: int) -> None:
        if width != len(self.mean):
            raise ValueError(f"rows of {width} columns cannot join sums over {len(self.mean)} columns.")
