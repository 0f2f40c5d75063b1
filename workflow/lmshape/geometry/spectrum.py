"""The eigenvalues of the covariance of a cloud, of all its rows and with each draw left out.

`lmshape.geometry.scalars` says what their sizes mean, `lmshape.geometry.clouds` gives it for a cloud.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lmshape.geometry.centering import ROUNDING, centered
from lmshape.geometry.checks import as_matrix
from lmshape.geometry.draws import leave_one_out_masks
from lmshape.geometry.moments import MomentSums

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import ArrayLike

    from lmshape.geometry.covariance import CovarianceSums

DECOMPOSED_WIDTH = 512  # up to here all eigenvalues take less time than importing the iteration for one
TOLERANCE = (
    1e-12  # of the residual, which bounds the relative error of the eigenvalue; mostly its square does
)
CENTER_ROWS = 101  # whose median is amid the rows though some of them be far


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
    covariance: np.ndarray
    uncentered: np.ndarray
    correlation: np.ndarray
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
        For coordinates that shall be standardized and not centered.

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


def eigenvalues_of_sums(sums: CovarianceSums) -> np.ndarray:
    """Return what `covariance_eigenvalues` does, (min(n − 1, d),), of the rows that were summed: O(d³)."""
    d = len(sums.mean)
    return _eigenvalues(sums.covariance(), count=min(sums.count - 1, d), mean=sums.mean)


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
    n, d = rows.shape
    masks = leave_one_out_masks(draw, n)
    if n < d:
        return spectra_of_rows(rows, masks)
    center = np.median(rows[:CENTER_ROWS], axis=0)
    parts = [MomentSums(center) for _ in masks[1:]]
    for part, mask in zip(parts, masks[1:], strict=True):
        part.update(rows[~mask])
    return spectra_of_sums([parts, *([part for part in parts if part is not own] for own in parts)])


def spectra_of_sums(subsets: Sequence[Sequence[MomentSums]]) -> Spectra:
    """Return the spectra of sets of rows, each the sums of its parts; the first is that of all: O(K d³) time."""
    return _spectra(_from_sums(MomentSums.merged(subset)) for subset in subsets)


def spectra_of_rows(rows: np.ndarray, masks: Sequence[np.ndarray]) -> Spectra:
    """Return the spectra of fewer rows (n, d) than columns, for each of `leave_one_out_masks`: O(K n² d)."""
    return _spectra(_from_rows(rows[mask]) for mask in masks)


def _spectra(subsets: Iterable[_Moments]) -> Spectra:
    """Decompose one set of rows after the other; the first is that of all rows."""
    return Spectra(*(np.array(column) for column in zip(*_decomposed(subsets), strict=True)))


def _decomposed(subsets: Iterable[_Moments]) -> Iterator[tuple[float | np.ndarray, ...]]:
    count = None
    for moments in subsets:
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
    total = sums.covariance
    covariance = total.covariance()
    variances = _variances(np.diag(covariance), sums.mean)
    scales = _inverse_roots(variances)
    correlation = covariance * scales
    correlation *= scales[:, None]
    return _Moments(
        rows=total.count,
        mean=sums.mean,
        variances=variances,
        covariance=covariance,
        uncentered=covariance + np.outer(sums.mean * (total.count / (total.count - 1)), sums.mean),
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


def _eigenvalues(matrix: np.ndarray, *, count: int, mean: np.ndarray) -> np.ndarray:
    """Return `count` eigenvalues, descending, those that are rounding set to 0 and zeros at the end."""
    eigenvalues = np.linalg.eigvalsh(matrix)[::-1][:count]
    noise = np.square(ROUNDING * mean).sum()
    return np.pad(np.where(eigenvalues > noise, eigenvalues, 0.0), (0, count - len(eigenvalues)))


def _leading(matrix: np.ndarray) -> tuple[float, float]:
    """Return the largest and the sum of the eigenvalues of a positive semidefinite matrix, right to its rounding."""
    total = float(np.trace(matrix))
    if total <= 0:
        return 0.0, 0.0
    if len(matrix) <= DECOMPOSED_WIDTH:
        return float(np.linalg.eigvalsh(matrix)[-1]), total
    from scipy.sparse.linalg import (
        ArpackNoConvergence,
        eigsh,
    )  # a fifth of a second that narrow layers need not pay

    start = np.random.default_rng(0).standard_normal(len(matrix))
    try:
        largest = eigsh(matrix, k=1, which="LA", tol=TOLERANCE, v0=start, return_eigenvectors=False)
    except ArpackNoConvergence:
        largest = np.linalg.eigvalsh(matrix)[-1:]
    return float(largest[0]), total
