"""The rows that carry the variance along the leading principal axis, and how few they are.

The largest eigenvalue of the covariance is λ1 = Σ p² / (n − 1), p = v1·(x − mean) the coordinate of a row on the
leading axis v1: each row adds its own p². Where a handful of rows hold nearly all of that sum an anisotropy near 1
is theirs, and says nothing of the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lmshape.geometry.arrays import Array, in_memory
from lmshape.geometry.checks import ROUNDING, as_floats, as_labels, as_matrix, centered
from lmshape.geometry.scalars import shares_of
from lmshape.geometry.spectrum import ITERATED_WIDTH, MomentSums, iterated

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

LEAST_SHARE = 0.1  # of the variance on the leading axis, for an estimate of how many rows carry it


@dataclass(frozen=True, slots=True)
class LeadingAxes:
    """The few leading principal axes of a cloud, float64.

    Parameters
    ----------
    mean : (d,) of the rows
    axes : (k, d) unit vectors, the leading one first; a row of zeros where the cloud has no such axis
    eigenvalues : (k,) of the covariance along them, descending
    total : sum of all eigenvalues
    """

    mean: np.ndarray
    axes: np.ndarray
    eigenvalues: np.ndarray
    total: float

    def coordinates(self, rows: np.ndarray) -> np.ndarray:
        """Return the coordinates (m, k) of rows (m, d) on the axes, from the mean."""
        return (rows - self.mean) @ self.axes.T


def leading_axes(x: ArrayLike, *, count: int = 3) -> LeadingAxes:
    """Return the `count` leading principal axes of a cloud.

    Parameters
    ----------
    x : (n, d), rows are points; n ≥ 2
    count : number of axes; those beyond min(n − 1, d) are zeros

    Notes
    -----
    O(n d²) through X'X, O(n² d) through XX' when n < d. The sign of an axis is arbitrary.
    """
    rows = as_matrix(x)
    differences, mean = centered(rows)
    n, d = rows.shape
    variances = np.square(differences).sum(axis=0) / (n - 1)
    if n >= d:
        return _axes(differences.T @ differences / (n - 1), mean, variances, count)
    values, vectors = _largest(differences @ differences.T / (n - 1), min(count, n))
    lengths = np.sqrt(np.maximum(values, 0) * (n - 1))
    axes = np.divide(
        vectors.T @ differences, lengths[:, None], out=np.zeros((len(values), d)), where=lengths[:, None] > 0
    )
    return _described(axes, values, mean, variances, count)


def leading_axes_of_sums(sums: MomentSums, *, count: int = 3) -> LeadingAxes:
    """Return `leading_axes` of summed rows, at least two: O(d³) time, O(d²) for a wide cloud."""
    if (rows := sums.rows) is not None:
        return leading_axes(rows, count=count)
    covariance = sums.finish().covariance()
    return _axes(covariance, sums.mean, in_memory(covariance.diagonal()), count)


def leading_shares(x: ArrayLike, group: ArrayLike) -> np.ndarray:
    """Return the share of λ1, the largest eigenvalue of the covariance, that the rows of each group carry.

    Parameters
    ----------
    x : (n, d), rows are points; n ≥ 2
    group : (n,) integers from 0 or Booleans, the group of each row

    Returns
    -------
    (largest group + 1,) shares in [0, 1] with the sum 1: Σ p² over the rows of a group over Σ p² over all, p the
    coordinate on the leading axis. A group of rows like all others carries its share of the rows; one row of n that
    is displaced by far more than the rest spread carries (n − 1)/n. NaN where all rows are equal.

    Examples
    --------
    >>> x = np.random.default_rng(0).standard_normal((1000, 10))
    >>> x[:5] += 100
    >>> leading_shares(x, np.arange(1000) >= 5).round(3)
    array([0.993, 0.007])
    """
    rows = as_matrix(x)
    labels = as_labels(group, len(rows), name="group", booleans=True)
    if labels.min() < 0:
        raise ValueError(f"`group` holds {labels.min()}; groups are numbered from 0.")
    return shares_of(np.bincount(labels, _squared_coordinates(rows)))


def leading_kurtosis(x: ArrayLike) -> float:
    """Return n Σ p⁴ / (Σ p²)² of the coordinates p of the n rows (n, d) on the leading axis.

    In [1, n − 2 + 1/(n − 1)]: 3 for Gaussian rows, n − 2 + 1/(n − 1) where one row alone is off the others. NaN where
    all rows are equal.
    """
    rows = as_matrix(x)
    squares = _squared_coordinates(rows)
    total = squares.sum()
    return float(len(rows) * np.square(squares).sum() / total**2) if total > 0 else float("nan")


def leading_rows_of(eigenvalues: ArrayLike, *, rows: int, fourth_moment: float) -> float:
    """Estimate how many rows carry the leading axis from moments alone: n over the kurtosis of `leading_kurtosis`.

    With a the share λ1/Σλ, q the sum of the squared shares of the others, and Q = Σ‖x − mean‖⁴/(n − 1), rows whose
    coordinates on different axes are independent, and Gaussian but for the leading one, have the kurtosis
    ((n − 1) n Q/((n − 1) Σλ)² − 2q − (1 − a)² − 2a(1 − a))/a².

    Parameters
    ----------
    eigenvalues : (m,) of the covariance, descending
    rows : n
    fourth_moment : Q

    Returns
    -------
    Up to about n: n/3 for Gaussian rows, about 1 where one row alone is off the others. NaN where all rows are equal,
    and where the leading axis has under a tenth of the variance: the estimate would be one of the other axes.
    """
    values = as_floats(eigenvalues)
    if not values.sum() > 0 or not (share := values[0] / values.sum()) >= LEAST_SHARE:
        return float("nan")
    others = 2 * np.square(values[1:] / values.sum()).sum() + (1 - share) ** 2 + 2 * share * (1 - share)
    whole = rows * fourth_moment / ((rows - 1) * values.sum() ** 2)
    return float(rows / max((whole - others) / share**2, 1.0))


def _squared_coordinates(rows: np.ndarray) -> np.ndarray:
    return np.square(leading_axes(rows, count=1).coordinates(rows)[:, 0])


def _axes(covariance: Array, mean: np.ndarray, variances: np.ndarray, count: int) -> LeadingAxes:
    values, vectors = _largest(covariance, min(count, len(covariance)))
    return _described(vectors.T, values, mean, variances, count)


def _described(
    axes: np.ndarray, values: np.ndarray, mean: np.ndarray, variances: np.ndarray, count: int
) -> LeadingAxes:
    """Pad to `count` axes; what is the rounding of the mean is not an axis."""
    noise = np.square(ROUNDING * mean)
    kept = values > noise.sum()
    short = count - len(values)
    return LeadingAxes(
        mean=mean,
        axes=np.pad(np.where(kept[:, None], axes, 0.0), ((0, short), (0, 0))),
        eigenvalues=np.pad(np.where(kept, values, 0.0), (0, short)),
        total=float(variances[variances > noise].sum()),
    )


def _largest(matrix: Array, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest eigenvalues (count,) of a symmetric matrix, descending, and their vectors as columns."""
    from scipy.linalg import eigh

    size = len(matrix)
    if size > ITERATED_WIDTH and bool(matrix.any()) and (found := iterated(matrix, count, vectors=True)):
        values, vectors = found
        order = np.argsort(-values)
        return values[order], vectors[:, order]
    matrix = in_memory(matrix)
    values, vectors = eigh(matrix, subset_by_index=[size - count, size - 1], check_finite=False)
    return values[::-1], vectors[:, ::-1]
