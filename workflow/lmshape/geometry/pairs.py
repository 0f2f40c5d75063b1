"""Sums over pairs of rows, x of one layer and y of the next, from one pass over both, and the factor of x'x.

Each batch is summed about its own mean, in float64; what the means of the batches add is summed when the
sums are merged (Chan, Golub & LeVeque 1983). Moments about a fixed point would lose the small directions as
soon as a massive activation moves that point.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from lmshape.geometry.arrays import (
    Array,
    Device,
    blocks,
    cholesky,
    double,
    eigenvectors_of,
    in_memory,
    inverse_size,
    is_single,
    norm_of,
    on,
    outer,
    solved,
    solved_lower,
    squared_lengths,
    times_transposed,
    zeros,
)
from lmshape.geometry.checks import ROUNDING, centered

RANK_CUT = 2.0**-46  # least variance beside the largest: the square of float32's rounding, 64 × float64's own
SAFE = 1e-9  # 1/‖H⁻¹‖ of a correlation H: above it a factor of H is good to 1e-7, and all of its ranks count


@dataclass(frozen=True, slots=True)
class Basis:
    """Other coordinates of centered rows x: x ↦ x @ forward.

    Parameters
    ----------
    forward : (d, r) float64, on the device of the sums
    back : (r, d) float64, forward @ back the projector on the directions that x has
    """

    forward: Array
    back: Array


@dataclass(frozen=True, slots=True)
class PairMoments:
    """Second moments of n pairs (x, y) of rows about their means.

    Parameters
    ----------
    count : n
    mean_x, mean_y : (d,) float64
    gram : (r, r) float64, Σ zz', z = x − mean_x in the coordinates of `basis`; None once it is factored
    cross : (r, d) float64, Σ z (y − mean_y)'; None where `gram` is
    spread_x, spread_y, spread_update : Σ‖x − mean_x‖², Σ‖y − mean_y‖², and the same of y − x
    basis : None: x in its own coordinates, r = d
    single : x was rounded to float32
    device : where `gram`, `cross` and the basis are
    """

    count: int
    mean_x: np.ndarray
    mean_y: np.ndarray
    gram: Array
    cross: Array
    spread_x: float
    spread_y: float
    spread_update: float
    basis: Basis | None
    single: bool
    device: Device


class PairSums:
    """Sums over pairs of rows that arrive in batches: O(d²) memory and O(d) more a batch.

    Parameters
    ----------
    basis : coordinates of x in the sums; None: its own
    device : where products are summed: a torch device with float64, or None, which is memory
    """

    __slots__ = ("basis", "counts", "cross", "device", "gram", "means_x", "means_y", "single", "spreads")

    def __init__(self, basis: Basis | None = None, device: Device = None) -> None:
        self.basis, self.device = basis, device
        self.counts: list[int] = []
        self.means_x: list[np.ndarray] = []
        self.means_y: list[np.ndarray] = []
        self.gram: Array | None = None  # until a batch of two rows comes
        self.cross: Array | None = None
        self.spreads = np.zeros(3)
        self.single = False

    @property
    def count(self) -> int:
        """Pairs seen."""
        return sum(self.counts)

    def add(self, x: Array, y: Array) -> None:
        """Add a batch of pairs (m, d), m ≥ 1, finite: O(m d²)."""
        self.single |= is_single(x)
        # of float32 a copy is made
        x, mean_x = centered(double(x, self.device), overwrite=is_single(x))
        y, mean_y = centered(double(y, self.device), overwrite=is_single(y))
        self.counts.append(len(x))
        self.means_x.append(in_memory(mean_x))
        self.means_y.append(in_memory(mean_y))
        self.spreads += _spreads(x, y)
        z = to_basis(x, self.basis)
        gram, cross = _products(z, y)
        if self.gram is None or self.cross is None:
            self.gram, self.cross = gram, cross
        else:
            self.gram += gram
            self.cross += cross

    def add_rows(self, x: Array, y: Array) -> None:
        """Add pairs (m, d) as m batches, kept as they are: O(m d) time and memory, for a few rows."""
        self.single |= is_single(x)
        self.counts.extend([1] * len(x))
        self.means_x.extend(in_memory(x).astype(np.float64))
        self.means_y.extend(in_memory(y).astype(np.float64))


def merged(parts: Iterable[PairSums]) -> PairMoments:
    """Return the moments of all pairs that `parts` have seen, which stay as they are; one pair at least."""
    parts = [part for part in parts if part.counts]
    basis, device = parts[0].basis, parts[0].device
    n, mean_x, mean_y, x, y = _between(*_batches(parts), device)
    gram, cross = _products(to_basis(x, basis), y)
    _add(gram, [part.gram for part in parts if part.gram is not None])
    _add(cross.T, [part.cross.T for part in parts if part.cross is not None])
    of_x, of_y, of_update = (_spreads(x, y) + sum(part.spreads for part in parts)).tolist()
    single = any(part.single for part in parts)
    return PairMoments(n, mean_x, mean_y, gram, cross, of_x, of_y, of_update, basis, single, device)


def _add(total: Array, terms: list[Array]) -> None:
    """Add matrices to one, a few rows at a time, which stay in the cache."""
    for own in blocks(len(total)):
        for term in terms:
            total[own] += term[own]


def joined(moments: PairMoments, rows: Iterable[PairSums]) -> tuple[PairMoments, Array, Array]:
    """Return the moments of all pairs where `rows`, added one by one, join others, and x, y (rows + 1, d).

    They have no matrices: to those of the others, x'x and x'y are to be added. Without rows: a row of zeros.
    """
    counts, means_x, means_y = _batches(rows)
    if not counts:
        x, y = (zeros((1, len(mean)), moments.device) for mean in (moments.mean_x, moments.mean_y))
        return without_matrices(moments), x, y
    n, mean_x, mean_y, x, y = _between(
        [moments.count, *counts], [moments.mean_x, *means_x], [moments.mean_y, *means_y], moments.device
    )
    spreads = _spreads(x, y) + (moments.spread_x, moments.spread_y, moments.spread_update)
    names = ("spread_x", "spread_y", "spread_update")
    known = {
        "count": n,
        "mean_x": mean_x,
        "mean_y": mean_y,
        **dict(zip(names, spreads.tolist(), strict=True)),
    }
    return replace(without_matrices(moments), **known), x, y


def without_matrices(moments: PairMoments) -> PairMoments:
    """Return moments without their matrices, whose memory is wanted."""
    return replace(moments, gram=None, cross=None)


def _batches(parts: Iterable[PairSums]) -> tuple[list[int], list[np.ndarray], list[np.ndarray]]:
    """Return the counts and the means of all batches of `parts`."""
    counts: list[int] = []
    means_x: list[np.ndarray] = []
    means_y: list[np.ndarray] = []
    for part in parts:
        counts += part.counts
        means_x += part.means_x
        means_y += part.means_y
    return counts, means_x, means_y


def _between(
    counts: list[int], means_x: list[np.ndarray], means_y: list[np.ndarray], device: Device
) -> tuple[int, np.ndarray, np.ndarray, Array, Array]:
    """Return the count and the means of all batches, and rows whose squares their sums lack: their means' distances."""
    weights, n = np.array(counts), sum(counts)
    mean_x, mean_y = (weights @ np.array(means) / n for means in (means_x, means_y))
    roots = np.sqrt(weights)[:, None]
    x, y = (on((means - mean) * roots, device) for means, mean in ((means_x, mean_x), (means_y, mean_y)))
    return n, mean_x, mean_y, x, y


def to_basis(x: Array, basis: Basis | None) -> Array:
    """Return rows (m, d) in the coordinates of a basis, (m, r); as they are where there is none."""
    return x if basis is None else x @ basis.forward


def from_basis(z: Array, basis: Basis | None) -> Array:
    """Return rows (m, r) of the coordinates of a basis as rows (m, d); as they are where there is none."""
    return z if basis is None else z @ basis.back


def _products(z: Array, y: Array) -> tuple[Array, Array]:
    """Return z'z and z'y."""
    # NumPy's products let another thread read the next piece; SciPy's hold the interpreter's lock
    return z.T @ z, (y.T @ z).T  # LAPACK needs contiguous columns


def _spreads(x: Array, y: Array) -> np.ndarray:
    return np.square([norm_of(rows) for rows in (x, y, y - x)])


@dataclass(frozen=True, slots=True)
class GramFactor:
    """A factor F of a Gram matrix G = FF' of rank r.

    Parameters
    ----------
    matrix : (d, r) float64, F; lower triangular where `inverse` is None
    inverse : (d, r) float64, the transposed pseudo-inverse of F; None where r = d, no direction being cut
    """

    matrix: Array
    inverse: Array | None

    @property
    def rank(self) -> int:
        """Directions kept."""
        return self.matrix.shape[1]

    def whiten(self, cross: Array) -> Array:
        """Return F⁺ @ cross, (d, m) → (r, m)."""
        if self.inverse is not None:
            return self.inverse.T @ cross
        return solved(self.matrix, cross)

    def solve(self, whitened: Array) -> Array:
        """Return F'⁺ @ whitened, (r, m) → (d, m): of `whiten(cross)` the coefficients of least squares."""
        if self.inverse is not None:
            return self.inverse @ whitened
        return solved(self.matrix, whitened, transposed=True)

    def apply(self, coefficients: Array) -> Array:
        """Return F' @ coefficients, (d, m) → (r, m)."""
        if self.inverse is not None:
            return self.matrix.T @ coefficients
        return times_transposed(self.matrix, coefficients)

    def passed_on(self, whitened: Array, other: GramFactor) -> Array:
        """Return other.apply(self.solve(whitened)), in two thirds of the time where both are triangular."""
        if self.inverse is not None or other.inverse is not None:
            return other.apply(self.solve(whitened))
        return times_transposed(solved_lower(self.matrix, other.matrix), whitened)

    def outside(self, rows: Array) -> Array:
        """Return the part of rows (m, d) in the directions that are cut."""
        if self.inverse is None:
            return 0 * rows
        return rows - (rows @ self.inverse) @ self.matrix.T


def gram_factor(moments: PairMoments) -> GramFactor:
    """Factor the Gram matrix of x: by Cholesky where it is safe, by eigenvectors where ranks must be cut."""
    diagonal = in_memory(moments.gram.diagonal())
    variances, noise = _variances(diagonal, moments), _noise(diagonal, moments)
    if (variances > 0).all():
        scales = np.sqrt(variances)
        own = on(scales, moments.device)
        correlation = moments.gram / own
        correlation /= own[:, None]
        lower = cholesky(correlation)
        if lower is not None and _is_safe(lower, variances / (variances + noise)):
            lower *= own[:, None]
            return GramFactor(lower, None)
    return _factor_with_cut(moments.gram, variances, noise, moments.device)


def serves(factor: GramFactor, joint: PairMoments, x: Array) -> bool:
    """Tell whether all pairs that `joint` tells of could be factored without a cut, as those behind `factor` are.

    The smallest eigenvalue of a sum is at least that of each term, so that this is no looser than a look at the sum.
    """
    if factor.inverse is not None or joint.basis is not None:
        return False
    diagonal = in_memory(squared_lengths(factor.matrix) + squared_lengths(x.T))
    variances, noise = _variances(diagonal, joint), _noise(diagonal, joint)
    if not (variances > 0).all():
        return False
    lower = (factor.matrix.T / on(np.sqrt(variances), joint.device)).T
    return _is_safe(lower, variances / (variances + noise))


def white_coordinates(parts: Iterable[PairSums]) -> Basis | None:
    """Return coordinates in which x is white, to sum the pairs of `parts` once more; None where their sums suffice.

    In them the directions that were kept are summed to full precision, however small: the Gram matrix in the
    coordinates of x knows a direction only to the rounding of the largest.
    """
    factor = gram_factor(merged(parts))
    if factor.inverse is None or factor.rank == 0:
        return None
    back = factor.matrix.T
    return Basis(
        forward=factor.inverse, back=np.ascontiguousarray(back) if isinstance(back, np.ndarray) else back
    )


def _variances(diagonal: np.ndarray, moments: PairMoments) -> np.ndarray:
    """Return n times the variances of the coordinates; 0 where they are the rounding of a constant."""
    if moments.basis is not None:
        return np.where(diagonal > RANK_CUT, diagonal, 0.0)
    constant = diagonal <= moments.count * np.square(ROUNDING * moments.mean_x)
    return np.where(constant, 0.0, diagonal)


def _noise(diagonal: np.ndarray, moments: PairMoments) -> np.ndarray:
    """Return n times the variance of each coordinate under `RANK_CUT` of which lies what is not to be trusted.

    White coordinates: of all rows' variance, which is 1. Rows in float32: d times their mean square, for the
    rounding of products of d terms. Else none.
    """
    width = len(diagonal)
    if moments.basis is not None:
        return np.ones(width)
    if not moments.single:
        return np.zeros(width)
    return width * (diagonal + moments.count * np.square(moments.mean_x))


def _is_safe(lower: Array, signal: np.ndarray) -> bool:
    """Tell whether all directions of a correlation, lower @ lower', are far over the cut and well determined."""
    least = inverse_size(lower)
    return bool(least > SAFE and least * signal.min() > RANK_CUT * max(1.0, signal.sum()))


def _factor_with_cut(gram: Array, variances: np.ndarray, noise: np.ndarray, device: Device) -> GramFactor:
    scales = np.sqrt(np.where(variances > 0, variances + noise, 0.0))
    inverse_scales = np.divide(1.0, scales, out=np.zeros_like(scales), where=scales > 0)
    eigenvalues, vectors = eigenvectors_of(gram * outer(inverse_scales, inverse_scales, device))
    kept = np.flatnonzero(eigenvalues > RANK_CUT * max(1.0, eigenvalues[-1]))
    roots, vectors = on(np.sqrt(eigenvalues[kept]), device), vectors[:, kept]
    forward, back = (on(size, device)[:, None] for size in (scales, inverse_scales))
    return GramFactor(vectors * roots * forward, vectors / roots * back)
