"""What the spectrum and the fourth moment of a cloud are made of, from one pass over rows in any order of parts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lmshape.geometry.covariance import CovarianceSums

PRODUCT_ENTRIES = 2**19  # of a product at a time where rows are short: 4 MiB in float64


class MomentSums:
    """Sums over rows that arrive in batches of any size: O(d²) memory.

    Σ‖x − m‖⁴ about a mean m that is known in the end is a polynomial in m − center; its coefficients are kept.

    Parameters
    ----------
    center : (d,) float64, a point amid the rows, the same for all sums that are merged. The nearer to the mean, the
        more digits of the fourth moment are right: at a distance of ten times the spread, twelve

    Attributes
    ----------
    covariance : count, mean less `center`, and scatter of the rows
    cubes, fourths : Σ‖y‖² y (d,) and Σ‖y‖⁴ of y = x − center
    """

    __slots__ = ("_held", "_waiting", "center", "covariance", "cubes", "fourths")

    def __init__(self, center: np.ndarray) -> None:
        self.center = center
        self.covariance = CovarianceSums(len(center))
        self.cubes = np.zeros(len(center))
        self.fourths = 0.0
        self._waiting: list[np.ndarray] = []
        self._held = 0

    @classmethod
    def merged(cls, parts: Sequence[MomentSums]) -> MomentSums:
        """Return the sums over the rows of all `parts`, one at least; these stay as they are."""
        total = cls.__new__(cls)
        total._waiting, total._held = [], 0
        total.center = parts[0].center
        for part in parts:
            part.finish()
        total.covariance = CovarianceSums.merged((part.covariance for part in parts), len(total.center))
        total.cubes = np.sum([part.cubes for part in parts], axis=0)
        total.fourths = sum(part.fourths for part in parts)
        return total

    @property
    def mean(self) -> np.ndarray:
        """(d,) float64, mean of the rows."""
        return self.center + self.covariance.mean

    def update(self, rows: np.ndarray) -> None:
        """Add finite rows (m, d) of any real dtype; they must not change before `finish`."""
        self._waiting.append(rows)
        self._held += len(rows)
        if self._held >= len(self.center):  # a product of fewer rows costs more to add up than to make
            self.finish()

    def finish(self) -> None:
        """Add the rows that wait for others to be multiplied with."""
        step = max(len(self.center), PRODUCT_ENTRIES // len(self.center))
        for rows in _joined(self._waiting):
            for start in range(0, len(rows), step):
                self._add(rows[start : start + step])
        self._waiting, self._held = [], 0

    def fourth_moment(self) -> float:
        """Return Σ‖x − mean‖⁴ / (n − 1)."""
        n, offset = self.covariance.count, self.covariance.mean
        length = float(offset @ offset)
        squares = float(np.trace(self.covariance.scatter)) + n * length  # Σ‖y‖²
        along = float(offset @ self.covariance.scatter @ offset) + n * length**2  # Σ(y·offset)²
        total = self.fourths - 4 * float(self.cubes @ offset) + 2 * length * squares
        return (total + 4 * along - 3 * n * length**2) / (n - 1)

    def _add(self, rows: np.ndarray) -> None:
        differences = rows - self.center  # float64, whatever the rows are
        squares = np.einsum("ij,ij->i", differences, differences)
        self.cubes += squares @ differences
        self.fourths += float(squares @ squares)
        mean = differences.mean(axis=0)
        differences -= mean
        self.covariance.add_differences(differences, mean)


def _joined(batches: Sequence[np.ndarray]) -> list[np.ndarray]:
    return list(batches) if len(batches) < 2 else [np.concatenate(batches)]
