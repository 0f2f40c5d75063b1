"""Numbers of a cloud's shape from the eigenvalues of its covariance.

Functions of eigenvalues, descending and none negative, over the last axis: many spectra in one call. NaN is
the value of a spectrum without a shape (Σλ = 0, or NaN in it), so that a table can say so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import entr

from lmshape.geometry.checks import as_floats, as_matrix, centered
from lmshape.geometry.spectrum import covariance_eigenvalues

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


FLOOR = 1e-7  # what RankMe adds to every share, as its source does
FIRST_RANK, LAST_RANK = 11, 100  # where α-ReQ is fitted: after the outliers, before the tail that n cuts off
FEWEST_RANKS = 20  # that α-ReQ needs
LEADING = 32  # directions that are not the bulk


def shares_of(parts: ArrayLike) -> np.ndarray:
    """Return parts (…, m) over their sum; NaN where that is 0 or a part is NaN."""
    values = as_floats(parts)
    total = values.sum(axis=-1, keepdims=True)
    return np.divide(values, total, out=np.full_like(values, np.nan), where=total > 0)


def anisotropy_of(eigenvalues: ArrayLike) -> np.ndarray:
    """Return λ1 / Σλ over the last axis; NaN where Σλ is 0 or an eigenvalue is NaN."""
    return shares_of(eigenvalues).max(axis=-1)


def effective_rank_of(eigenvalues: ArrayLike) -> np.ndarray:
    """Return exp(−Σ p ln p), p = λ/Σλ, over the last axis; NaN where Σλ is 0 or an eigenvalue is NaN."""
    return np.exp(entr(shares_of(eigenvalues)).sum(axis=-1))


def bulk_effective_rank_of(eigenvalues: ArrayLike) -> np.ndarray:
    """Return the effective rank of the eigenvalues past the `LEADING` largest; NaN where nothing but rounding is there.

    Eigenvalues are (..., m), descending. In [1, m − LEADING]; m − LEADING where they are equal.
    """
    bulk = _without_rounding(eigenvalues)[..., LEADING:]
    return effective_rank_of(bulk) if bulk.shape[-1] else np.full(bulk.shape[:-1], np.nan)


def participation_ratio_of(eigenvalues: ArrayLike) -> np.ndarray:
    """Return (Σλ)² / Σλ² over the last axis; NaN where Σλ is 0 or an eigenvalue is NaN."""
    return 1 / np.square(shares_of(eigenvalues)).sum(axis=-1)


def rankme_of(eigenvalues: ArrayLike, *, rows: ArrayLike, width: int) -> np.ndarray:
    """Return exp(−Σ p ln p), p = σ/Σσ + 1e-7 over the min(n, d) singular values σ = √((n − 1)λ).

    Parameters
    ----------
    eigenvalues : (..., m) of the covariance; those at its rounding (`rank_of`) count as 0, for a square root
        would make 1e-8 of a rounding of 1e-16
    rows : (...), n
    width : d

    Returns
    -------
    (...) between 1 and min(n, d), both to about d · 1e-6, which is what the 1e-7 adds; NaN where Σλ is 0.

    References
    ----------
    Garrido et al. 2023, "RankMe", arXiv 2210.02885, equation 1.
    """
    shares = shares_of(np.sqrt(_without_rounding(eigenvalues)))
    absent = np.minimum(rows, width) - shares.shape[-1]  # singular values that are 0 whatever the rows are
    # negative where fewer rows are left than the pooled spectrum has eigenvalues: zeros to take off
    return np.exp(entr(shares + FLOOR).sum(axis=-1) + absent * entr(FLOOR))


def components_of(eigenvalues: ArrayLike, share: float) -> np.ndarray:
    """Return the least k with λ1 + … + λk ≥ share · Σλ; NaN where Σλ is 0 or an eigenvalue is NaN.

    A sum that falls short by rounding alone (1e-12) is enough.
    """
    return _components(eigenvalues, share)[0]


def partial_components_of(eigenvalues: ArrayLike, share: float) -> np.ndarray:
    """Return `components_of` with as much of the last component as the share takes: k − 1 + a part in (0, 1].

    It varies smoothly with the eigenvalues, where the whole number stands still or jumps: what tells how sure
    the whole number is.
    """
    count, short, last = _components(eigenvalues, share)
    part = np.divide(short, last, out=np.ones_like(last), where=last > 0)
    return count - 1 + np.minimum(part, 1.0)


def _components(eigenvalues: ArrayLike, share: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the count k, what the first k − 1 shares fall short of `share`, and the share of the k-th."""
    if not 0 < share < 1:
        raise ValueError(f"`share` is {share}; it must lie between 0 and 1, as 0.9 for 90 % of the variance.")
    shares = shares_of(eigenvalues)
    explained = np.cumsum(shares, axis=-1)
    before = (explained < share - 1e-12).sum(axis=-1, keepdims=True)
    last = np.take_along_axis(shares, before, axis=-1)
    short = share - (np.take_along_axis(explained, before, axis=-1) - last)
    count = np.where(np.isnan(explained[..., -1]), np.nan, 1.0 + before[..., 0])
    return count, short[..., 0], last[..., 0]


def rank_of(eigenvalues: ArrayLike) -> np.ndarray:
    """Count the eigenvalues over m · eps · λ1, the rounding of a symmetric (m, m) matrix; 0 where one is NaN."""
    values = as_floats(eigenvalues)
    rounding = values.shape[-1] * np.finfo(np.float64).eps * values.max(axis=-1, keepdims=True)
    return (values > rounding).sum(axis=-1)


def _without_rounding(eigenvalues: ArrayLike) -> np.ndarray:
    """Return the eigenvalues, those past `rank_of` set to 0; NaN stays."""
    values = as_floats(eigenvalues)
    past = np.arange(values.shape[-1]) >= rank_of(values)[..., None]
    return np.where(past & ~np.isnan(values), 0.0, values)


def alpha_req_of(eigenvalues: ArrayLike) -> np.ndarray:
    """Return the exponent α of a spectrum λ_i ∝ i^−α: minus the slope of ln λ_i against ln i.

    Least squares weighted by 1/i, which makes every octave count alike, over the ranks 11 to 100 or to the
    rank of the covariance if that is less.

    Returns
    -------
    (...) ≥ 0; 0 for equal variances; NaN where the rank is under 20.

    References
    ----------
    Stringer et al. 2019, doi:10.1038/s41586-019-1346-5; Agrawal et al. 2022; as in arXiv 2509.23024.
    """
    values = as_floats(eigenvalues)
    last = np.minimum(rank_of(values), LAST_RANK)
    spectra = zip(values.reshape(-1, values.shape[-1]), last.ravel(), strict=True)
    slopes = [np.nan if rank < FEWEST_RANKS else _log_slope(spectrum, rank) for spectrum, rank in spectra]
    return -np.reshape(slopes, last.shape)


def isoscore_of(eigenvalues: ArrayLike, *, rows: ArrayLike, width: int) -> np.ndarray:
    """Return IsoScore, the share of the dimensions that are used evenly: (participation ratio − 1)/(d − 1).

    The source's ((d − δ²(d − √d))² − d) / (d(d − 1)), δ = ‖v̂ − 1‖/√(2(d − √d)), v̂ = √d·v/‖v‖ of the principal
    variances v, is that: ‖v̂ − 1‖² = 2(d − √d Σv/‖v‖), so that d − δ²(d − √d) = √d Σv/‖v‖, whose square is d
    times the participation ratio.

    Returns
    -------
    (...) from 0, a line, to 1, equal variances; NaN where n ≤ d, d < 2 or Σλ is 0.

    References
    ----------
    Rudman et al. 2022, arXiv 2108.07344.
    """
    if width < 2:
        return np.full(np.shape(eigenvalues)[:-1], np.nan)
    score = (participation_ratio_of(eigenvalues) - 1) / (width - 1)
    return np.where(np.asarray(rows) > width, score, np.nan)


def corrected_participation_ratio_of(
    eigenvalues: ArrayLike, *, rows: ArrayLike, fourth_moment: ArrayLike
) -> np.ndarray:
    """Return the participation ratio of the population: unbiased (Σλ)² over unbiased Σλ².

    With S the covariance of n rows and Q = Σ‖x − mean‖⁴/(n − 1), over the common factor
    (n − 1)/(n(n − 2)(n − 3)): 2 tr S² + (n² − 3n + 1)(tr S)² − nQ, and (n − 1)(n − 2) tr S² + (tr S)² − nQ. These
    are the averages over four different rows; rows are samples, and columns are all there are.

    Parameters
    ----------
    eigenvalues : (..., m) of the covariance
    rows : (...), n
    fourth_moment : (...), Q

    Returns
    -------
    (...), d for isotropic rows at any n, up to its own noise, and a little high at few rows, as a ratio is (4 %
    at n = 50 for λ_i = 1/i, d = 100, where the plain ratio is 25 % low); NaN where n < 4, or where the estimate
    of Σλ² is not positive.

    References
    ----------
    Himeno & Yamada 2014, J. Multivariate Analysis 130; γ_row of Chun et al. 2025, arXiv 2509.26560.
    """
    values = as_floats(eigenvalues)
    n, fourth = np.asarray(rows, dtype=np.float64), np.asarray(fourth_moment, dtype=np.float64)
    squared_trace, trace_of_square = np.square(values.sum(axis=-1)), np.square(values).sum(axis=-1)
    numerator = 2 * trace_of_square + (n**2 - 3 * n + 1) * squared_trace - n * fourth
    denominator = (n - 1) * (n - 2) * trace_of_square + squared_trace - n * fourth
    usable = (n >= 4) & (denominator > 1e-9 * n**2 * trace_of_square)  # else rounding alone
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=usable)


def rogue_share_of(variances: ArrayLike, count: int) -> np.ndarray:
    """Return the share of Σ variances (..., d) of the coordinates that the `count` largest carry; NaN at 0.

    Timkey & van Schijndel 2021, arXiv 2109.04404: few coordinates of a trained model outweigh all others.
    """
    return np.sort(shares_of(variances), axis=-1)[..., -count:].sum(axis=-1)


def _log_slope(spectrum: np.ndarray, last: int) -> float:
    ranks = np.arange(FIRST_RANK, last + 1)
    x, y = np.log(ranks), np.log(spectrum[FIRST_RANK - 1 : last])
    x = x - np.average(x, weights=1 / ranks)
    return float((x / ranks) @ y / ((x / ranks) @ x))


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
    return float(anisotropy_of(eigenvalues))


def effective_rank(x: ArrayLike) -> float:
    """Return the exponential of the entropy of the variance shares: the number of directions in use.

    exp(−Σ p ln p), p = λ/Σλ for x (n, d): between 1, a line, and min(n − 1, d), equal variances. ValueError
    where all rows are equal. Roy & Vetterli 2007, on eigenvalues.
    """
    return float(effective_rank_of(_varied(x)))


def participation_ratio(x: ArrayLike) -> float:
    """Return the inverse of the sum of the squared variance shares: the number of dominating directions.

    (Σλ)² / Σλ² for x (n, d): between 1, a line, and min(n − 1, d), equal variances; about d/(1 + d/n) for n
    isotropic rows. ValueError where all rows are equal. Gao et al. 2017, bioRxiv 214262.
    """
    return float(participation_ratio_of(_varied(x)))


def corrected_participation_ratio(x: ArrayLike) -> float:
    """Estimate the participation ratio of the population of the rows, n → ∞.

    `lmshape.geometry.scalars.corrected_participation_ratio_of`: d for isotropic rows at any n, with its own
    noise. ValueError where all rows are equal, under 4 rows, and where the estimate of Σλ² is not positive.
    Chun et al. 2025, arXiv 2509.26560.
    """
    rows = as_matrix(x, minimum_rows=4)
    lengths = np.linalg.norm(centered(rows)[0], axis=1)
    fourth_moment = (lengths**4).sum() / (len(rows) - 1)
    ratio = corrected_participation_ratio_of(_varied(rows), rows=len(rows), fourth_moment=fourth_moment)
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
    return float(rankme_of(_varied(rows), rows=n, width=d))


def components(x: ArrayLike, share: float) -> int:
    """Return how many principal components explain this share of the variance of x (n, d), 0 < share < 1.

    Between 1 and min(n − 1, d). ValueError where all rows are equal.
    """
    return int(components_of(_varied(x), share))


def alpha_req(x: ArrayLike) -> float:
    """Return the exponent α of the decay of the variances, λ_i ∝ i^−α, over the ranks 11 to 100.

    0 for equal variances, 1 where every octave of directions carries as much. ValueError where all
    rows of x (n, d) are equal, and where its covariance has a rank under 20.
    Agrawal et al. 2022; as in arXiv 2509.23024.
    """
    eigenvalues = _varied(x)
    rank = int(rank_of(eigenvalues))
    if rank < FEWEST_RANKS:
        raise ValueError(
            f"`x` has rank {rank}; the decay is fitted from rank {FIRST_RANK} on and needs "
            f"{FEWEST_RANKS}. Take more rows or a wider layer."
        )
    return float(alpha_req_of(eigenvalues))


def isoscore(x: ArrayLike) -> float:
    """Return IsoScore, the share of the dimensions that x (n, d) uses evenly: 0 for a line, 1 if isotropic.

    Equal to (participation ratio − 1)/(d − 1). ValueError where all rows are equal, n ≤ d or d < 2.
    Rudman et al. 2022, arXiv 2108.07344.
    """
    rows = as_matrix(x)
    n, d = rows.shape
    if d < 2 or n <= d:
        raise ValueError(f"`x` has shape {rows.shape}; IsoScore needs 2 columns, and more rows than columns.")
    return float(isoscore_of(_varied(rows), rows=n, width=d))


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
    return float(rogue_share_of(variances, count))


def _varied(x: ArrayLike) -> np.ndarray:
    """Return the eigenvalues of the covariance of x (n, d), not all 0; ValueError where all rows are equal."""
    eigenvalues = covariance_eigenvalues(x)
    _refuse_constant(eigenvalues)
    return eigenvalues


def _refuse_constant(variances: np.ndarray, *, rows: str = "equal") -> None:
    if not variances.any():
        raise ValueError(f"`x` has zero variance: all rows are {rows}. Pass rows that differ.")
