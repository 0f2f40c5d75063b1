"""The eigenvalues of the covariance of a cloud, of all its rows and with each draw left out.

`lmshape.geometry.scalars` says what their sizes mean, `lmshape.geometry.clouds` gives it for a cloud.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lmshape.geometry.centering import ROUNDING, centered
from lmshape.geometry.checks import as_matrix
from lmshape.geometry.covariance import CovarianceSums
from lmshape.geometry.draws import leave_one_out_masks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike


@dataclass(frozen=True, slots=True)
class Spectra:
    """Spectra of all rows (entry 0) and of all rows but those of the j-th draw (entry j), float64.

    Parameters
    ----------
    rows : (K + 1,) number of rows n
    eigenvalues : (K + 1, min(n − 1, d)) of the covariance, descending, n that of all rows; zeros at the end
        where the rows of an entry have fewer
    eigenvalues_uncentered : (K + 1, min(n, d)) the same without subtracting the mean
    eigenvalues_standardized : (K + 1, min(n − 1, d)) of the correlation: each coordinate divided by its
        standard deviation, constant ones left out
    variances : (K + 1, d) of the coordinates
    fourth_moment : (K + 1,) Σ‖x − mean‖⁴ / (n − 1)
    """

    rows: np.ndarray
    eigenvalues: np.ndarray
    eigenvalues_uncentered: np.ndarray
    eigenvalues_standardized: np.ndarray
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
    subsets = _from_sums(rows, masks) if n >= d else (_from_rows(rows[mask]) for mask in masks)
    count = min(n - 1, d)
    entries = [
        (
            moments.rows,
            _eigenvalues(moments.covariance, count=count, mean=moments.mean),
            _eigenvalues(moments.uncentered, count=min(n, d), mean=np.zeros(d)),
            _eigenvalues(moments.correlation, count=count, mean=np.zeros(d)),
            moments.variances,
            moments.mean,
        )
        for moments in subsets
    ]
    counts, *arrays, means = (np.stack(column) for column in zip(*entries, strict=True))
    return Spectra(counts.astype(np.float64), *arrays, _fourth_moments(rows, masks, means))


def _from_sums(rows: np.ndarray, masks: Sequence[np.ndarray]) -> Iterator[_Moments]:
    """Yield the moments of all rows, then of those of each further mask's draws, from one pass."""
    parts = []
    for mask in masks[1:]:
        part = CovarianceSums(rows.shape[1])
        part.update(rows[~mask])
        parts.append(part)
    for left_out in (None, *parts):
        sums = CovarianceSums.merged((part for part in parts if part is not left_out), rows.shape[1])
        covariance = sums.covariance()
        variances = _variances(np.diag(covariance), sums.mean)
        scales = _inverse_roots(variances)
        yield _Moments(
            rows=sums.count,
            mean=sums.mean,
            variances=variances,
            covariance=covariance,
            uncentered=sums.covariance(center=False),
            correlation=covariance * np.outer(scales, scales),
        )


def _from_rows(rows: np.ndarray) -> _Moments:
    """Return the moments of fewer rows than columns, through the products of rows."""
    differences, mean = centered(rows)
    divisor = len(rows) - 1
    standardized = _standardized(differences, mean)
    return _Moments(
        rows=len(rows),
        mean=mean,
        variances=_variances(np.square(differences).sum(axis=0) / divisor, mean),
        covariance=differences @ differences.T / divisor,
        uncentered=rows @ rows.T / divisor,
        correlation=standardized @ standardized.T / divisor,
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


def _fourth_moments(rows: np.ndarray, masks: Sequence[np.ndarray], means: np.ndarray) -> np.ndarray:
    """Return Σ‖x − mean‖⁴ / (n − 1) of each subset; ‖x − mean_j‖² from the rows about the mean of all."""
    differences, offsets = rows - means[0], means - means[0]
    squares = np.square(differences).sum(axis=1)
    products, lengths = differences @ offsets.T, np.square(offsets).sum(axis=1)
    return np.array(
        [
            np.square(squares[mask] - 2 * products[mask, j] + lengths[j]).sum() / (mask.sum() - 1)
            for j, mask in enumerate(masks)
        ]
    )


def _eigenvalues(matrix: np.ndarray, *, count: int, mean: np.ndarray) -> np.ndarray:
    """Return `count` eigenvalues, descending, those that are rounding set to 0 and zeros at the end."""
    eigenvalues = np.linalg.eigvalsh(matrix)[::-1][:count]
    noise = np.square(ROUNDING * mean).sum()
    return np.pad(np.where(eigenvalues > noise, eigenvalues, 0.0), (0, count - len(eigenvalues)))
