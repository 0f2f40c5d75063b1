"""The covariance of a cloud, the eigenvalues of that covariance, and what their sizes say about its shape.

Sums are float64 and taken about the mean of each batch (Chan, Golub & LeVeque 1983): Σxx' − n·mm' would lose
the spectrum as soon as the mean is large beside the spread, as it is in a language model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import entr

from lmshape.geometry.centering import ROUNDING, centered
from lmshape.geometry.checks import as_matrix
from lmshape.geometry.draws import leave_one_out_masks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

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


def covariance_eigenvalues(x: ArrayLike, *, center: bool = True) -> np.ndarray:
    """Return the eigenvalues of the covariance of the rows, in descending order, none negative.

    Parameters
    ----------
    x : (n, d), rows are points; n ≥ 2
    center : subtract the mean of the rows first

    Returns
    -------
    (min(n − 1, d),) float64, or (min(n, d),) uncentered: the eigenvalues of X'X / (n − 1), the others being 0
    whatever X is. All 0 where the rows are equal.

    Notes
    -----
    O(n d²) through X'X, and O(n² d) through XX', which has the same eigenvalues, when n < d. Eigenvalues are
    good to 1e-15 of the largest one.
    """
    rows = as_matrix(x)
    n, d = rows.shape
    differences, mean = centered(rows) if center else (rows, np.zeros(d))
    matrix = differences.T @ differences if n >= d else differences @ differences.T
    return _eigenvalues(matrix / (n - 1), count=min(n - center, d), mean=mean)


def leave_one_out_eigenvalues(x: ArrayLike, draw: ArrayLike, *, center: bool = True) -> np.ndarray:
    """Return the eigenvalues of the covariance of all rows, and of all rows but those of one draw.

    Parameters
    ----------
    x : (n, d), rows are points
    draw : (n,) integers, the draw of each row; K ≥ 2 different ones
    center : subtract the mean of the rows that are used

    Returns
    -------
    (K + 1, m) float64, m as in `covariance_eigenvalues` of all rows: row 0 pooled, row j without the j-th of
    the draws in ascending order (zeros at its end where the remaining rows have fewer eigenvalues).

    Notes
    -----
    One pass over the rows, O(n d² + K d³); the rows of the other draws are added up, never those of one
    subtracted. Where n < d each of the K + 1 subsets is decomposed by itself, O(K n² d).
    """
    rows = as_matrix(x)
    n, d = rows.shape
    masks = leave_one_out_masks(draw, n)
    count = min(n - center, d)
    if n < d:
        spectra = [covariance_eigenvalues(rows[mask], center=center) for mask in masks]
        return np.stack([np.pad(spectrum, (0, count - len(spectrum))) for spectrum in spectra])
    sums = _leave_one_out_sums(rows, masks)
    return np.stack(
        [_eigenvalues(part.covariance(center=center), count=count, mean=part.mean * center) for part in sums]
    )


def anisotropy_of(eigenvalues: ArrayLike) -> np.ndarray:
    """Return λ1 / Σλ over the last axis; NaN where Σλ is 0 or an eigenvalue is NaN."""
    return _shares(eigenvalues).max(axis=-1)


def effective_rank_of(eigenvalues: ArrayLike) -> np.ndarray:
    """Return exp(−Σ p ln p), p = λ/Σλ, over the last axis; NaN where Σλ is 0 or an eigenvalue is NaN."""
    return np.exp(entr(_shares(eigenvalues)).sum(axis=-1))


def participation_ratio_of(eigenvalues: ArrayLike) -> np.ndarray:
    """Return (Σλ)² / Σλ² over the last axis; NaN where Σλ is 0 or an eigenvalue is NaN."""
    return 1 / np.square(_shares(eigenvalues)).sum(axis=-1)


def anisotropy(x: ArrayLike, *, center: bool = True) -> float:
    """Return the share of the variance that the leading direction of a cloud carries: λ1 / Σλ.

    Parameters
    ----------
    x : (n, d) array or tensor, rows are points
    center : subtract the mean of the rows first

    Returns
    -------
    Between 1/min(n − 1, d) and 1, which is a line. Isotropic rows: 1/d as n → ∞, (1 + √(d/n))²/d at finite n.
    NaN where all rows are equal. No row is normalized, so few far rows suffice for a value near 1.

    References
    ----------
    Razzhigaev et al. 2024, "The Shape of Learning", arXiv 2311.05928.

    Examples
    --------
    >>> round(anisotropy([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]]), 15)
    0.9
    """
    return float(anisotropy_of(covariance_eigenvalues(x, center=center)))


def effective_rank(x: ArrayLike) -> float:
    """Return the exponential of the entropy of the variance shares: the number of directions in use.

    exp(−Σ p ln p), p = λ/Σλ for x (n, d): between 1, a line, and min(n − 1, d), equal variances. NaN where
    all rows are equal. Roy & Vetterli 2007, on eigenvalues.
    """
    return float(effective_rank_of(covariance_eigenvalues(x)))


def participation_ratio(x: ArrayLike) -> float:
    """Return the inverse of the sum of the squared variance shares: the number of dominating directions.

    (Σλ)² / Σλ² for x (n, d): between 1, a line, and min(n − 1, d), equal variances; about d/(1 + d/n) for n
    isotropic rows. NaN where all rows are equal. Gao et al. 2017, bioRxiv 214262.
    """
    return float(participation_ratio_of(covariance_eigenvalues(x)))


def _leave_one_out_sums(rows: np.ndarray, masks: Sequence[np.ndarray]) -> Iterator[CovarianceSums]:
    """Yield the sums over all rows, then over those of each further mask's draws, from one pass."""
    parts = []
    for mask in masks[1:]:
        part = CovarianceSums(rows.shape[1])
        part.update(rows[~mask])
        parts.append(part)
    for left_out in (None, *parts):
        yield CovarianceSums.merged((part for part in parts if part is not left_out), rows.shape[1])


def _eigenvalues(covariance: np.ndarray, *, count: int, mean: np.ndarray) -> np.ndarray:
    """Return the `count` largest eigenvalues, descending, those that are rounding set to 0."""
    eigenvalues = np.linalg.eigvalsh(covariance)[::-1][:count]
    noise = np.square(ROUNDING * mean).sum()
    return np.where(eigenvalues > noise, eigenvalues, 0.0)


def _shares(eigenvalues: ArrayLike) -> np.ndarray:
    values = np.asarray(eigenvalues, dtype=np.float64)
    total = values.sum(axis=-1, keepdims=True)
    return np.divide(values, total, out=np.full_like(values, np.nan), where=total > 0)
