"""Factors of the Gram matrix of a cloud, with the rank that its rounding leaves it.

The rank is decided on columns of comparable size, else a massive coordinate would outweigh all others. What
is cut: directions shorter than `RANK_CUT` allows, and those that the rounding of float32 storage may have made.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh
from scipy.linalg.blas import dtrmm
from scipy.linalg.lapack import dpocon, dpotrf, dtrtrs

from lmshape.geometry.centering import ROUNDING
from lmshape.geometry.pairs import Basis, PairMoments

RANK_CUT = 2.0**-46  # least variance beside the largest: the square of float32's rounding, 64 × float64's own
SAFE = 1e-9  # 1/‖H⁻¹‖ of a correlation H: above it a factor of H is good to 1e-7, and all of its ranks count


@dataclass(frozen=True, slots=True)
class Root:
    """A factor of a Gram matrix G = factor @ factor' of rank r.

    Parameters
    ----------
    factor : (d, r) float64; lower triangular where `inverse` is None
    inverse : (d, r) float64, the transposed pseudo-inverse of `factor`; None where r = d, no direction being cut
    """

    factor: np.ndarray
    inverse: np.ndarray | None

    @property
    def rank(self) -> int:
        """Directions kept."""
        return self.factor.shape[1]

    def whiten(self, cross: np.ndarray) -> np.ndarray:
        """Return factor⁺ @ cross, (d, m) → (r, m)."""
        if self.inverse is not None:
            return self.inverse.T @ cross
        return dtrtrs(self.factor, cross, lower=1)[0]

    def solve(self, whitened: np.ndarray) -> np.ndarray:
        """Return factor'⁺ @ whitened, (r, m) → (d, m): of `whiten(cross)` the coefficients of least squares."""
        if self.inverse is not None:
            return self.inverse @ whitened
        return dtrtrs(self.factor, whitened, lower=1, trans=1)[0]

    def apply(self, coefficients: np.ndarray) -> np.ndarray:
        """Return factor' @ coefficients, (d, m) → (r, m)."""
        if self.inverse is not None:
            return self.factor.T @ coefficients
        return dtrmm(1.0, self.factor, coefficients, lower=1, trans_a=1)

    def outside(self, rows: np.ndarray) -> np.ndarray:
        """Return the part of rows (m, d) in the directions that are cut."""
        if self.inverse is None:
            return np.zeros_like(rows)
        return rows - (rows @ self.inverse) @ self.factor.T


def root_of(moments: PairMoments) -> Root:
    """Factor the Gram matrix of x: by Cholesky where it is safe, by eigenvectors where ranks must be cut."""
    variances, noise = _variances(moments), _noise(moments)
    if (variances > 0).all():
        scales = np.sqrt(variances)
        correlation = moments.gram / np.outer(scales, scales)
        lower, failed = dpotrf(correlation.T, lower=1, overwrite_a=1)
        if not failed and _is_safe(lower, variances / (variances + noise)):
            return Root(np.asfortranarray(lower * scales[:, None]), None)
    return _eigenroot(moments.gram, variances, noise)


def refinement(root: Root) -> Basis | None:
    """Return coordinates in which x is white, to sum the pairs once more; None where `root` is good enough.

    In them the directions that were kept are summed to full precision, however small: the Gram matrix in the
    coordinates of x knows a direction only to the rounding of the largest.
    """
    if root.inverse is None or root.rank == 0:
        return None
    return Basis(forward=root.inverse, back=np.ascontiguousarray(root.factor.T))


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


def _eigenroot(gram: np.ndarray, variances: np.ndarray, noise: np.ndarray) -> Root:
    scales = np.sqrt(np.where(variances > 0, variances + noise, 0.0))
    inverse_scales = np.divide(1.0, scales, out=np.zeros_like(scales), where=scales > 0)
    scaled = gram * np.outer(inverse_scales, inverse_scales)
    eigenvalues, vectors = eigh(scaled, lower=True, overwrite_a=True, check_finite=False)
    kept = eigenvalues > RANK_CUT * max(1.0, eigenvalues[-1])
    roots, vectors = np.sqrt(eigenvalues[kept]), vectors[:, kept]
    factor = vectors * roots * scales[:, None]
    return Root(factor, vectors / roots * inverse_scales[:, None])
