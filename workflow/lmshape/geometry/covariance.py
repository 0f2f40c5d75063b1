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
        """Return the sums over the rows of all `parts`, which stay as they are."""
        total = cls(width)
        for part in parts:
            total.merge(part)
        return total

    def update(self, rows: ArrayLike) -> None:
        """Add a batch of rows (m, d), m ≥ 1, in O(m d²)."""
        batch = as_matrix(rows, name="rows", minimum_rows=1)
        self._refuse_other_width(batch.shape[1])
        differences, mean = centered(batch)
        self._add(len(batch), mean, differences.T @ differences)

    def merge(self, other: CovarianceSums) -> None:
        """Add the rows that `other` has seen."""
        self._refuse_other_width(len(other.mean))
        self._add(other.count, other.mean, other.scatter)

    def covariance(self, *, center: bool = True) -> np.ndarray:
        """Return Σ (x − mean)(x − mean)' / (n − 1) as (d, d), or Σ xx' / (n − 1) without centering."""
        if self.count < 2:
            raise ValueError(
                f"a covariance of {self.count} rows does not exist; at least 2 are needed. Add rows."
            )
        scatter = self.scatter if center else self.scatter + self.count * np.outer(self.mean, self.mean)
        return scatter / (self.count - 1)

    def _add(self, count: int, mean: np.ndarray, scatter: np.ndarray) -> None:
        total = self.count + count
        if total == 0:
            return
        offset = mean - self.mean
        self.scatter += scatter + np.outer(offset, offset) * (self.count * count / total)
        self.mean += offset * (count / total)
        self.count = total

    def _refuse_other_width(self, width: int) -> None:
        if width != len(self.mean):
            raise ValueError(f"rows of {width} columns cannot join sums over {len(self.mean)} columns.")
