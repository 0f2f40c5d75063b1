"""Sums over pairs of rows, x of one layer and y of the next, from one pass over both, and the factor of x'x.

Each batch is summed about its own mean, in float64; what the means of the batches add is summed when the
sums are merged (Chan, Golub & LeVeque 1983). Moments about a fixed point would lose the small directions as
soon as a massive activation moves that point.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh
from scipy.linalg.blas import dtrmm
from scipy.linalg.lapack import dpocon, dpotrf, dtrtrs

from lmshape.geometry.checks import ROUNDING, centered

RANK_CUT = 2.0**-46  # least variance beside the largest: the square of float32's rounding, 64 × float64's own
SAFE = 1e-9  # 1/‖H⁻¹‖ of a correlation H: above it a factor of H is good to 1e-7, and all of its ranks count


@dataclass(frozen=True, slots=True)
class Basis:
    """Other coordinates of centered rows x: x ↦ x @ forward.

    Parameters
    ----------
    forward : (d, r) float64
    back : (r, d) float64, forward @ back the projector on the directions that x has
    """

    forward: np.ndarray
    back: np.ndarray


@dataclass(frozen=True, slots=True)
class PairMoments:
    """Second moments of n pairs (x, y) of rows about their means.

    Parameters
    ----------
    count : n
    mean_x, mean_y : (d,) float64
    gram : (r, r) float64, Σ zz', z = x − mean_x in the coordinates of `basis`
    cross : (r, d) float64, Σ z (y − mean_y)'
    spread_x, spread_y, spread_update : Σ‖x − mean_x‖², Σ‖y − mean_y‖², and the same of y − x
    basis : None: x in its own coordinates, r = d
    single : x was rounded to float32
    """

    count: int
    mean_x: np.ndarray
    mean_y: np.ndarray
    gram: np.ndarray
    cross: np.ndarray
    spread_x: float
    spread_y: float
    spread_update: float
    basis: Basis | None
    single: bool


class PairSums:
    """Sums over pairs of rows that arrive in batches: O(d²) memory and O(d) more a batch.

    Parameters
    ----------
    basis : coordinates of x in the sums; None: its own
    """

    __slots__ = ("basis", "counts", "cross", "gram", "means_x", "means_y", "single", "spreads")

    def __init__(self, basis: Basis | None = None) -> None:
        self.basis = basis
        self.counts: list[int] = []
        self.means_x: list[np.ndarray] = []
        self.means_y: list[np.ndarray] = []
        self.gram: np.ndarray | None = None  # until a batch of two rows comes
        self.cross: np.ndarray | None = None
        self.spreads = np.zeros(3)
        self.single = False

    @property
    def count(self) -> int:
        """Pairs seen."""
        return sum(self.counts)

    def add(self, x: np.ndarray, y: np.ndarray) -> None:
        """Add a batch of pairs (m, d), m ≥ 1, finite: O(m d²)."""
        self.single |= x.dtype == np.float32
        x, mean_x = centered(x.astype(np.float64, copy=False))
        y, mean_y = centered(y.astype(np.float64, copy=False))
        self.counts.append(len(x))
        self.means_x.append(mean_x)
        self.means_y.append(mean_y)
        self.spreads += _spreads(x, y)
        z = to_basis(x, self.basis)
        if self.gram is None or self.cross is None:
            self.gram, self.cross = _zeros(z.shape[1], y.shape[1])
        _accumulate(z, y, self.gram, self.cross)

    def add_rows(self, x: np.ndarray, y: np.ndarray) -> None:
        """Add pairs (m, d) as m batches, kept as they are: O(m d) time and memory, for a few rows."""
        self.single |= x.dtype == np.float32
        self.counts.extend([1] * len(x))
        self.means_x.extend(x.astype(np.float64))
        self.means_y.extend(y.astype(np.float64))


def merged(parts: Iterable[PairSums]) -> PairMoments:
    """Return the moments of all pairs that `parts` have seen, which stay as they are; one pair at least."""
    parts = [part for part in parts if part.counts]
    basis = parts[0].basis
    counts = np.concatenate([part.counts for part in parts])
    means_x, means_y = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("means_x", "means_y")
    )
    n = int(counts.sum())
    mean_x, mean_y = counts @ means_x / n, counts @ means_y / n
    weights = np.sqrt(counts)[:, None]
    between_x, between_y = (means_x - mean_x) * weights, (means_y - mean_y) * weights
    z = to_basis(between_x, basis)
    gram, cross = _zeros(z.shape[1], len(mean_y))
    for part in parts:
        if part.gram is not None and part.cross is not None:
            gram += part.gram
            cross += part.cross
    _accumulate(z, between_y, gram, cross)
    of_x, of_y, of_update = (_spreads(between_x, between_y) + sum(part.spreads for part in parts)).tolist()
    single = any(part.single for part in parts)
    return PairMoments(n, mean_x, mean_y, gram, cross, of_x, of_y, of_update, basis, single)


def to_basis(x: np.ndarray, basis: Basis | None) -> np.ndarray:
    """Return rows (m, d) in the coordinates of a basis, (m, r); as they are where there is none."""
    return x if basis is None else x @ basis.forward


def from_basis(z: np.ndarray, basis: Basis | None) -> np.ndarray:
    """Return rows (m, r) of the coordinates of a basis as rows (m, d); as they are where there is none."""
    return z if basis is None else z @ basis.back


def _zeros(rank: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    # LAPACK needs contiguous columns
    return np.zeros((rank, rank)), np.zeros((rank, width), order="F")


def _accumulate(z: np.ndarray, y: np.ndarray, gram: np.ndarray, cross: np.ndarray) -> None:
    """Add z'z to `gram` and z'y to `cross`."""
    # NumPy's products let another thread read the next piece; SciPy's hold the interpreter's lock
    gram += z.T @ z
    cross.T[...] += y.T @ z


def _spreads(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.square([np.linalg.norm(rows) for rows in (x, y, y - x)])


@dataclass(frozen=True, slots=True)
class GramFactor:
    """A factor F of a Gram matrix G = FF' of rank r.

    Parameters
    ----------
    matrix : (d, r) float64, F; lower triangular where `inverse` is None
    inverse : (d, r) float64, the transposed pseudo-inverse of F; None where r = d, no direction being cut
    """

    matrix: np.ndarray
    inverse: np.ndarray | None

    @property
    def rank(self) -> int:
        """Directions kept."""
        return self.matrix.shape[1]

    def whiten(self, cross: np.ndarray) -> np.ndarray:
        """Return F⁺ @ cross, (d, m) → (r, m)."""
        if self.inverse is not None:
            return self.inverse.T @ cross
        return dtrtrs(self.matrix, cross, lower=1)[0]

    def solve(self, whitened: np.ndarray) -> np.ndarray:
        """Return F'⁺ @ whitened, (r, m) → (d, m): of `whiten(cross)` the coefficients of least squares."""
        if self.inverse is not None:
            return self.inverse @ whitened
        return dtrtrs(self.matrix, whitened, lower=1, trans=1)[0]

    def apply(self, coefficients: np.ndarray) -> np.ndarray:
        """Return F' @ coefficients, (d, m) → (r, m)."""
        if self.inverse is not None:
            return self.matrix.T @ coefficients
        return dtrmm(1.0, self.matrix, coefficients, lower=1, trans_a=1)

    def outside(self, rows: np.ndarray) -> np.ndarray:
        """Return the part of rows (m, d) in the directions that are cut."""
        if self.inverse is None:
            return np.zeros_like(rows)
        return rows - (rows @ self.inverse) @ self.matrix.T


def gram_factor(moments: PairMoments) -> GramFactor:
    """Factor the Gram matrix of x: by Cholesky where it is safe, by eigenvectors where ranks must be cut."""
    variances, noise = _variances(moments), _noise(moments)
    if (variances > 0).all():
        scales = np.sqrt(variances)
        correlation = moments.gram / np.outer(scales, scales)
        lower, failed = dpotrf(correlation.T, lower=1, overwrite_a=1)
        if not failed and _is_safe(lower, variances / (variances + noise)):
            return GramFactor(np.asfortranarray(lower * scales[:, None]), None)
    return _factor_with_cut(moments.gram, variances, noise)


def white_coordinates(parts: Iterable[PairSums]) -> Basis | None:
    """Return coordinates in which x is white, to sum the pairs of `parts` once more; None where their sums suffice.

    In them the directions that were kept are summed to full precision, however small: the Gram matrix in the
    coordinates of x knows a direction only to the rounding of the largest.
    """
    factor = gram_factor(merged(parts))
    if factor.inverse is None or factor.rank == 0:
        return None
    return Basis(forward=factor.inverse, back=np.ascontiguousarray(factor.matrix.T))


def _variances(moments: PairMoments) -> np.ndarray:
    """Return n times the variances of the coordinates; 0 where they are the rounding of a constant."""
    variances = np.diag(moments.gram)
    if moments.basis is not None:
        return np.where(variances > RANK_CUT, variances, 0.0)
    constant = variances <= moments.count * np.square(ROUNDING * moments.mean_x)
    return np.where(constant, 0.0, variances)


def _noise(moments: PairMoments) -> np.ndarray:
    """Return n times the variance of each coordinate under `RANK_CUT` of which lies what is not to be trusted.

    White coordinates: of all rows' variance, which is 1. Rows in float32: d times their mean square, for the
    rounding of products of d terms. Else none.
    """
    width = len(moments.gram)
    if moments.basis is not None:
        return np.ones(width)
    if not moments.single:
        return np.zeros(width)
    return width * (np.diag(moments.gram) + moments.count * np.square(moments.mean_x))


def _is_safe(lower: np.ndarray, signal: np.ndarray) -> bool:
    """Tell whether all directions of a correlation, lower @ lower', are far over the cut and well determined."""
    least, _ = dpocon(lower, 1.0, uplo="L")  # 1/‖H⁻¹‖₁, at most the smallest eigenvalue
    return least > SAFE and least * signal.min() > RANK_CUT * max(1.0, signal.sum())


def _factor_with_cut(gram: np.ndarray, variances: np.ndarray, noise: np.ndarray) -> GramFactor:
    scales = np.sqrt(np.where(variances > 0, variances + noise, 0.0))
    inverse_scales = np.divide(1.0, scales, out=np.zeros_like(scales), where=scales > 0)
    scaled = gram * np.outer(inverse_scales, inverse_scales)
    eigenvalues, vectors = eigh(scaled, lower=True, overwrite_a=True, check_finite=False)
    kept = eigenvalues > RANK_CUT * max(1.0, eigenvalues[-1])
    roots, vectors = np.sqrt(eigenvalues[kept]), vectors[:, kept]
    return GramFactor(vectors * roots * scales[:, None], vectors / roots * inverse_scales[:, None])
