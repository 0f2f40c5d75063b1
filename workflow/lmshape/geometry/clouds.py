"""The shape of a cloud in one number: the scalars of `lmshape.geometry.scalars` for an array of rows.

Each takes x (n, d), rows are points, as a NumPy array or torch tensor of any real dtype, and computes in
float64. What has no number, which a study's table flags, is a ValueError here: rows that are all equal, above all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lmshape.geometry import scalars
from lmshape.geometry.centering import centered
from lmshape.geometry.checks import as_matrix
from lmshape.geometry.spectrum import covariance_eigenvalues

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def anisotropy(x: ArrayLike, *, center: bool = True, standardize: bool = False) -> float:
    """Return the share of the variance that the leading direction of a cloud carries: λ1 / Σλ.

    Parameters
    ----------
    x : (n, d) array or tensor, rows are points
    center : subtract the mean of the rows first
    standardize : divide each coordinate by its standard deviation: the control for coordinates that outweigh
        all others (Timkey & van Schijndel 2021, arXiv 2109.04404)

    Returns
    -------
    Between 1/min(n − 1, d) and 1, which is a line. Isotropic rows: 1/d as n → ∞, (1 + √(d/n))²/d at finite n.
    No row is normalized, so few far rows suffice for a value near 1.

    Raises
    ------
    ValueError
        When all rows are equal; without `center`, when all are zero.

    References
    ----------
    Razzhigaev et al. 2024, "The Shape of Learning", arXiv 2311.05928.

    Examples
    --------
    >>> round(anisotropy([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]]), 15)
    0.9
    """
    eigenvalues = covariance_eigenvalues(x, center=center, standardize=standardize)
    _refuse_constant(eigenvalues, rows="equal" if center else "zero")
    return float(scalars.anisotropy_of(eigenvalues))


def effective_rank(x: ArrayLike) -> float:
    """Return the exponential of the entropy of the variance shares: the number of directions in use.

    exp(−Σ p ln p), p = λ/Σλ for x (n, d): between 1, a line, and min(n − 1, d), equal variances. ValueError
    where all rows are equal. Roy & Vetterli 2007, on eigenvalues.
    """
    return float(scalars.effective_rank_of(_varied(x)))


def participation_ratio(x: ArrayLike) -> float:
    """Return the inverse of the sum of the squared variance shares: the number of dominating directions.

    (Σλ)² / Σλ² for x (n, d): between 1, a line, and min(n − 1, d), equal variances; about d/(1 + d/n) for n
    isotropic rows. ValueError where all rows are equal. Gao et al. 2017, bioRxiv 214262.
    """
    return float(scalars.participation_ratio_of(_varied(x)))


def corrected_participation_ratio(x: ArrayLike) -> float:
    """Return the participation ratio that the population of the rows would read, n → ∞.

    `lmshape.geometry.scalars.corrected_participation_ratio_of`: d for isotropic rows at any n, with its own
    noise. ValueError where all rows are equal, under 4 rows, and where the estimate of Σλ² is not positive.
    Chun et al. 2025, arXiv 2509.26560.
    """
    rows = as_matrix(x, minimum_rows=4)
    lengths = np.linalg.norm(centered(rows)[0], axis=1)
    fourth_moment = (lengths**4).sum() / (len(rows) - 1)
    ratio = scalars.corrected_participation_ratio_of(
        _varied(rows), rows=len(rows), fourth_moment=fourth_moment
    )
    if np.isnan(ratio):
        raise ValueError(f"`x` leaves no positive estimate of Σλ² from its {len(rows)} rows. Add rows.")
    return float(ratio)


def rankme(x: ArrayLike) -> float:
    """Return RankMe, the effective rank on singular values: flatter than on variances, so always larger.

    exp(−Σ p ln p), p = σ/Σσ + 1e-7, σ the singular values of the centered rows: between 1 and min(n, d).
    ValueError where all rows are equal. Garrido et al. 2023, arXiv 2210.02885.
    """
    rows = as_matrix(x)
    n, d = rows.shape
    return float(scalars.rankme_of(_varied(rows), rows=n, width=d))


def components(x: ArrayLike, share: float) -> int:
    """Return how many principal components explain this share of the variance of x (n, d), 0 < share < 1.

    Between 1 and min(n − 1, d). ValueError where all rows are equal.
    """
    return int(scalars.components_of(_varied(x), share))


def alpha_req(x: ArrayLike) -> float:
    """Return the exponent α of the decay of the variances, λ_i ∝ i^−α, over the ranks 11 to 100.

    0 for equal variances, 1 where every octave of directions carries as much. ValueError where all
    rows of x (n, d) are equal, and where its covariance has a rank under 20.
    Agrawal et al. 2022; as in arXiv 2509.23024.
    """
    eigenvalues = _varied(x)
    rank = int(scalars.rank_of(eigenvalues))
    if rank < scalars.FEWEST_RANKS:
        raise ValueError(
            f"`x` has rank {rank}; the decay is fitted from rank {scalars.FIRST_RANK} on and needs "
            f"{scalars.FEWEST_RANKS}. Take more rows or a wider layer."
        )
    return float(scalars.alpha_req_of(eigenvalues))


def isoscore(x: ArrayLike) -> float:
    """Return IsoScore, the share of the dimensions that x (n, d) uses evenly: 0 for a line, 1 if isotropic.

    Equal to (participation ratio − 1)/(d − 1). ValueError where all rows are equal, n ≤ d or d < 2.
    Rudman et al. 2022, arXiv 2108.07344.
    """
    rows = as_matrix(x)
    n, d = rows.shape
    if d < 2 or n <= d:
        raise ValueError(f"`x` has shape {rows.shape}; IsoScore needs 2 columns, and more rows than columns.")
    return float(scalars.isoscore_of(_varied(rows), rows=n, width=d))


def rogue_share(x: ArrayLike, count: int = 1) -> float:
    """Return the share of the variance of x (n, d) that the `count` largest coordinates carry.

    Between count/d, none stands out, and 1. ValueError where all rows are equal. Timkey & van Schijndel 2021.
    """
    rows = as_matrix(x)
    if not 1 <= count <= rows.shape[1]:
        raise ValueError(f"`count` is {count}; it must lie between 1 and the {rows.shape[1]} columns.")
    differences, _ = centered(rows)
    # a constant column leaves the rounding of its mean
    variances = np.where(np.ptp(rows, axis=0) > 0, np.square(differences).sum(axis=0), 0.0)
    _refuse_constant(variances)
    return float(scalars.rogue_share_of(variances, count))


def _varied(x: ArrayLike) -> np.ndarray:
    """Return the eigenvalues of the covariance of x (n, d), not all 0; ValueError where all rows are equal."""
    eigenvalues = covariance_eigenvalues(x)
    _refuse_constant(eigenvalues)
    return eigenvalues


def _refuse_constant(variances: np.ndarray, *, rows: str = "equal") -> None:
    if not variances.any():
        raise ValueError(f"`x` has zero variance: all rows are {rows}. Pass rows that differ.")
