"""The covariance of a cloud, summed in batches, and its eigenvalues, of all rows and with each draw left out.

`lmshape.geometry.scalars` says what the sizes of the eigenvalues mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lmshape.geometry.arrays import (
    Array,
    Device,
    double,
    eigenvalues_of,
    in_memory,
    on,
    operator_of,
    outer,
    squared_lengths,
    stacked,
    zeros,
)
from lmshape.geometry.checks import ROUNDING, as_matrix, as_stored_matrix, centered
from lmshape.geometry.rows import leave_one_out_masks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import ArrayLike

PRODUCT_ENTRIES = 2**19  # of a product at a time where rows are short: 4 MiB in float64
CENTER_ROWS = 101  # whose median lies amid the rows even where some are far
ITERATED_WIDTH = 512  # beyond it an iteration for a few eigenvalues takes less time than a decomposition
TOLERANCE = 1e-12  # of its residual, which bounds the relative error of an eigenvalue; mostly its square does


class CovarianceSums:
    """Count, mean and scatter matrix of rows that arrive in batches: O(d²) memory, however many rows.

    Parameters
    ----------
    width : d
    device : where the scatter matrix is summed: a torch device with float64, or None, which is memory

    Attributes
    ----------
    count : rows seen
    mean : (d,) float64, mean of the rows
    scatter : (d, d) float64, Σ (x − mean)(x − mean)'; a tensor on `device` where one is given
    """

    __slots__ = ("count", "device", "mean", "scatter")

    def __init__(self, width: int, device: Device = None) -> None:
        self.count = 0
        self.device = device
        self.mean = np.zeros(width)
        self.scatter: Array = zeros((width, width), device)

    @classmethod
    def merged(cls, parts: Iterable[CovarianceSums], width: int, device: Device = None) -> CovarianceSums:
        """Return the sums over the rows of all `parts`, which stay as they are, in O(d²) for each."""
        total = cls(width, device)
        parts = [part for part in parts if part.count]
        if not parts:
            return total
        counts = np.array([part.count for part in parts])
        total.count = int(counts.sum())
        # about the mean of one part: differences from zero would keep the rounding of that mean
        offsets = np.stack([part.mean - parts[0].mean for part in parts])
        offset = counts @ offsets / total.count
        total.mean = parts[0].mean + offset
        between = on(np.sqrt(counts)[:, None] * (offsets - offset), device)
        total.scatter += between.T @ between
        for part in parts:
            total.scatter += part.scatter
        return total

    def update(self, rows: ArrayLike) -> None:
        """Add a batch of rows (m, d), m ≥ 1, in O(m d²)."""
        batch = as_stored_matrix(rows, name="rows", minimum_rows=1)
        if batch.shape[1] != len(self.mean):
            raise ValueError(
                f"rows of {batch.shape[1]} columns cannot join sums over {len(self.mean)} columns."
            )
        self.add_differences(*centered(double(batch, self.device)))

    def add_differences(self, differences: Array, batch_mean: Array) -> None:
        """Add a batch of rows, given as their differences (m, d) from their mean (d,), both float64 on `device`."""
        mean = in_memory(batch_mean)
        self.scatter += differences.T @ differences
        count, offset = len(differences), mean - self.mean
        total = self.count + count
        if self.count:  # what lies between the means
            self.scatter += outer(offset * (self.count * count / total), offset, self.device)
        self.mean += offset * (count / total)
        self.count = total

    def covariance(self) -> Array:
        """Return Σ (x − mean)(x − mean)' / (n − 1) as (d, d), on `device`."""
        if self.count < 2:
            raise ValueError(
                f"a covariance of {self.count} rows does not exist; at least 2 are needed. Add rows."
            )
        return self.scatter / (self.count - 1)


class MomentSums:
    """Sums over rows that arrive in batches of any size: O(d²) memory. Fewer rows than columns are kept as they are.

    Σ‖x − m‖⁴ about a mean m that is known in the end is a polynomial in m − center; its coefficients are kept.

    Parameters
    ----------
    center : (d,) float64, a point amid the rows, the same for all sums that are merged. The nearer to the mean, the
        more digits of the fourth moment are right: at a distance of ten times the spread, twelve
    device : as `CovarianceSums` takes it

    Attributes
    ----------
    covariance : count, mean less `center`, and scatter of the rows that are summed; None before the first
    cubes, fourths : Σ‖y‖² y (d,) and Σ‖y‖⁴ of y = x − center, of these rows
    """

    __slots__ = ("_held", "_waiting", "center", "covariance", "cubes", "device", "fourths")

    def __init__(self, center: np.ndarray, device: Device = None) -> None:
        self.center, self.device = center, device
        self.covariance: CovarianceSums | None = None
        self.cubes = np.zeros(len(center))
        self.fourths = 0.0
        self._waiting: list[Array] = []
        self._held = 0

    @classmethod
    def merged(cls, parts: Sequence[MomentSums]) -> MomentSums:
        """Return the sums over the rows of all `parts`, one at least; these stay as they are."""
        total = cls(parts[0].center, parts[0].device)
        summed = [part.covariance for part in parts if part.covariance is not None]
        if summed:
            total.covariance = CovarianceSums.merged(summed, len(total.center), total.device)
            total.cubes = np.sum([part.cubes for part in parts], axis=0)
            total.fourths = sum(part.fourths for part in parts)
        for part in parts:
            for rows in part._waiting:
                total.update(rows)
        return total

    @property
    def count(self) -> int:
        """Rows seen."""
        return self._held + (self.covariance.count if self.covariance else 0)

    @property
    def rows(self) -> np.ndarray | None:
        """(n, d) float64, all rows while they are fewer than the columns; None once they are summed."""
        if self.covariance is not None or not self._waiting:
            return None
        return in_memory(stacked(self._waiting)).astype(np.float64)

    def update(self, rows: Array) -> None:
        """Add finite rows (m, d) of any real dtype, in memory or on `device`; they must not change before `finish`."""
        self._waiting.append(rows)
        self._held += len(rows)
        if self._held >= len(self.center):  # a product of fewer rows costs more to add up than to make
            self.finish()

    def finish(self) -> CovarianceSums:
        """Add the rows that wait for others to be multiplied with, and return `covariance`."""
        step = max(len(self.center), PRODUCT_ENTRIES // len(self.center))
        if self.covariance is None:
            self.covariance = CovarianceSums(len(self.center), self.device)
        if self._waiting:
            rows = stacked(self._waiting)
            for start in range(0, len(rows), step):
                self._add(self.covariance, rows[start : start + step])
        self._waiting, self._held = [], 0
        return self.covariance

    @property
    def mean(self) -> np.ndarray:
        """(d,) float64, mean of the rows."""
        return self.center + self.finish().mean

    def fourth_moment(self) -> float:
        """Return Σ‖x − mean‖⁴ / (n − 1)."""
        covariance = self.finish()
        n, offset, scatter = covariance.count, covariance.mean, covariance.scatter
        length, direction = float(offset @ offset), on(offset, self.device)
        squares = float(scatter.trace()) + n * length  # Σ‖y‖²
        along = float(direction @ scatter @ direction) + n * length**2  # Σ(y·offset)²
        total = self.fourths - 4 * float(self.cubes @ offset) + 2 * length * squares
        return (total + 4 * along - 3 * n * length**2) / (n - 1)

    def _add(self, covariance: CovarianceSums, rows: Array) -> None:
        differences = on(rows, self.device) - on(self.center, self.device)  # float64, whatever the rows are
        squares = squared_lengths(differences)
        self.cubes += in_memory(squares @ differences)
        self.fourths += float(squares @ squares)
        mean = differences.mean(axis=0)
        differences -= mean
        covariance.add_differences(differences, mean)


def leave_one_out_sums(draws: Sequence[MomentSums]) -> Iterator[MomentSums]:
    """Yield the sums over all draws, then over all but each: O(K d²) each, added up, never subtracted."""
    if sum(own.count for own in draws) >= len(draws[0].center):
        for own in draws:
            own.finish()
    yield MomentSums.merged(draws)
    for own in draws:
        yield MomentSums.merged([other for other in draws if other is not own])


@dataclass(frozen=True, slots=True)
class Spectra:
    """Spectra of all rows (entry 0) and of all rows but those of the j-th draw (entry j), float64.

    Parameters
    ----------
    rows : (K + 1,) number of rows n
    eigenvalues : (K + 1, min(n − 1, d)) of the covariance, descending, n that of all rows; zeros at the end
        where the rows of an entry have fewer
    leading_uncentered : (K + 1, 2) the largest and the sum of the eigenvalues without subtracting the mean
    leading_standardized : (K + 1, 2) those of the correlation: each coordinate divided by its standard deviation,
        constant ones left out
    variances : (K + 1, d) of the coordinates
    fourth_moment : (K + 1,) Σ‖x − mean‖⁴ / (n − 1)
    """

    rows: np.ndarray
    eigenvalues: np.ndarray
    leading_uncentered: np.ndarray
    leading_standardized: np.ndarray
    variances: np.ndarray
    fourth_moment: np.ndarray


@dataclass(frozen=True, slots=True)
class _Moments:
    """Of one set of rows: symmetric matrices with the eigenvalues of the three kinds, (d, d) or (n, n)."""

    rows: int
    mean: np.ndarray
    variances: np.ndarray
    covariance: Array
    uncentered: Array
    correlation: Array
    fourth_moment: float


def covariance_eigenvalues(x: ArrayLike, *, center: bool = True, standardize: bool = False) -> np.ndarray:
    """Return the eigenvalues of the covariance of the rows, in descending order, none negative.

    Parameters
    ----------
    x : (n, d), rows are points; n ≥ 2
    center : subtract the mean of the rows first
    standardize : divide each coordinate by its standard deviation, too: the eigenvalues of the correlation

    Returns
    -------
    (min(n − 1, d),) float64, or (min(n, d),) uncentered: the eigenvalues of X'X / (n − 1), the others being 0
    whatever X is. All 0 where the rows are equal.

    Raises
    ------
    ValueError
        For `standardize` without `center`.

    Notes
    -----
    O(n d²) through X'X, and O(n² d) through XX', which has the same eigenvalues, when n < d. Eigenvalues are
    good to 1e-15 of the largest one.
    """
    if standardize and not center:
        raise ValueError("`standardize` needs `center`: standard deviations are taken about the mean.")
    rows = as_matrix(x)
    n, d = rows.shape
    differences, mean = centered(rows) if center else (rows, np.zeros(d))
    if standardize:
        differences, mean = _standardized(differences, mean), np.zeros(d)
    matrix = differences.T @ differences if n >= d else differences @ differences.T
    return _eigenvalues(matrix / (n - 1), count=min(n - center, d), mean=mean)


def eigenvalues_of_sums(sums: MomentSums) -> np.ndarray:
    """Return `covariance_eigenvalues` of summed rows, (min(n − 1, d),): O(d³)."""
    if (rows := sums.rows) is not None:
        return covariance_eigenvalues(rows)
    d = len(sums.center)
    return _eigenvalues(sums.finish().covariance(), count=min(sums.count - 1, d), mean=sums.mean)


def leave_one_out_spectra(x: ArrayLike, draw: ArrayLike) -> Spectra:
    """Return the spectra of all rows, and of all rows but those of one draw.

    Parameters
    ----------
    x : (n, d), rows are points
    draw : (n,) integers, the draw of each row; K ≥ 2 different ones, taken in ascending order

    Notes
    -----
    One pass over the rows, O(n d² + K d³); the rows of the other draws are added up, never those of one
    subtracted. Where n < d each of the K + 1 subsets is decomposed by itself, O(K n² d).
    """
    rows = as_matrix(x)
    masks = leave_one_out_masks(draw, len(rows))
    center = np.median(rows[:CENTER_ROWS], axis=0)
    draws = [MomentSums(center) for _ in masks[1:]]
    for own, mask in zip(draws, masks[1:], strict=True):
        own.update(rows[~mask])
    return spectra_of_sums(leave_one_out_sums(draws))


def spectra_of_sums(subsets: Iterable[MomentSums]) -> Spectra:
    """Return the spectra of summed sets of rows, the first of all: O(d³) each; of n < d rows O(n² d)."""
    return Spectra(*(np.array(column) for column in zip(*_decomposed(subsets), strict=True)))


def _decomposed(subsets: Iterable[MomentSums]) -> Iterator[tuple[ArrayLike, ...]]:
    count = None
    for sums in subsets:
        moments = _from_sums(sums) if (rows := sums.rows) is None else _from_rows(rows)
        count = min(moments.rows - 1, len(moments.variances)) if count is None else count
        yield (
            float(moments.rows),
            _eigenvalues(moments.covariance, count=count, mean=moments.mean),
            _leading(moments.uncentered),
            _leading(moments.correlation),
            moments.variances,
            moments.fourth_moment,
        )


def _from_sums(sums: MomentSums) -> _Moments:
    """Return the moments of no fewer rows than columns."""
    total = sums.finish()
    covariance = total.covariance()
    variances = _variances(in_memory(covariance.diagonal()), sums.mean)
    scales = on(_inverse_roots(variances), total.device)
    correlation = covariance * scales
    correlation *= scales[:, None]
    return _Moments(
        rows=total.count,
        mean=sums.mean,
        variances=variances,
        covariance=covariance,
        uncentered=covariance + outer(sums.mean * (total.count / (total.count - 1)), sums.mean, total.device),
        correlation=correlation,
        fourth_moment=sums.fourth_moment(),
    )


def _from_rows(rows: np.ndarray) -> _Moments:
    """Return the moments of fewer rows than columns, through the products of rows."""
    differences, mean = centered(rows)
    divisor = len(rows) - 1
    standardized = _standardized(differences, mean)
    squares = np.square(differences)
    return _Moments(
        rows=len(rows),
        mean=mean,
        variances=_variances(squares.sum(axis=0) / divisor, mean),
        covariance=differences @ differences.T / divisor,
        uncentered=rows @ rows.T / divisor,
        correlation=standardized @ standardized.T / divisor,
        fourth_moment=float(np.square(squares.sum(axis=1)).sum()) / divisor,
    )


def _standardized(differences: np.ndarray, mean: np.ndarray) -> np.ndarray:
    variances = np.square(differences).sum(axis=0) / (len(differences) - 1)
    return differences * _inverse_roots(_variances(variances, mean))


def _variances(variances: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return the variances of coordinates, those that are the rounding of a constant set to 0."""
    return np.where(variances > np.square(ROUNDING * mean), variances, 0.0)


def _inverse_roots(variances: np.ndarray) -> np.ndarray:
    roots = np.sqrt(variances)
    return np.divide(1.0, roots, out=np.zeros_like(roots), where=roots > 0)


def _eigenvalues(matrix: Array, *, count: int, mean: np.ndarray) -> np.ndarray:
    """Return `count` eigenvalues, descending, those that are rounding set to 0 and zeros at the end."""
    eigenvalues = eigenvalues_of(matrix)[::-1][:count]
    noise = np.square(ROUNDING * mean).sum()
    return np.pad(np.where(eigenvalues > noise, eigenvalues, 0.0), (0, count - len(eigenvalues)))


def _leading(matrix: Array) -> tuple[float, float]:
    """Return the largest and the sum of the eigenvalues of a positive semidefinite matrix, right to its rounding."""
    total = float(matrix.trace())
    if total <= 0:
        return 0.0, 0.0
    if len(matrix) > ITERATED_WIDTH and (largest := iterated(matrix, 1, vectors=False)) is not None:
        return float(largest[0]), total
    return float(eigenvalues_of(matrix)[-1]), total


def iterated(matrix: Array, count: int, *, vectors: bool) -> Any | None:
    """Return the largest eigenvalues of a matrix by SciPy's `eigsh`; None if it does not converge."""
    from scipy.sparse.linalg import ArpackNoConvergence, eigsh  # a fifth of a second, for wide layers alone

    start = np.random.default_rng(0).standard_normal(len(matrix))
    try:
        operator = operator_of(matrix)
        return eigsh(operator, k=count, which="LA", tol=TOLERANCE, v0=start, return_eigenvectors=vectors)
    except ArpackNoConvergence:
        return None
