"""Sums over pairs of rows, x of one layer and y of the next, from one pass over both.

Each batch is summed about its own mean, in float64; what the means of the batches add is summed when the
sums are merged (Chan, Golub & LeVeque 1983). Moments about a fixed point would lose the small directions as
soon as a massive activation moves that point.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from lmshape.geometry.centering import centered


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


@dataclass(frozen=True, slots=True, kw_only=True)
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
        z = _coordinates(x, self.basis)
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
    z = _coordinates(between_x, basis)
    gram, cross = _zeros(z.shape[1], len(mean_y))
    for part in parts:
        if part.gram is not None:
            gram += part.gram
            cross += part.cross
    _accumulate(z, between_y, gram, cross)
    spreads = _spreads(between_x, between_y) + sum(part.spreads for part in parts)
    return PairMoments(
        count=n,
        mean_x=mean_x,
        mean_y=mean_y,
        gram=gram,
        cross=cross,
        spread_x=float(spreads[0]),
        spread_y=float(spreads[1]),
        spread_update=float(spreads[2]),
        basis=basis,
        single=any(part.single for part in parts),
    )


def _coordinates(x: np.ndarray, basis: Basis | None) -> np.ndarray:
    return x if basis is None else x @ basis.forward


def _zeros(rank: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    # columns contiguous, as LAPACK wants them
    return np.zeros((rank, rank)), np.zeros((rank, width), order="F")


def _accumulate(z: np.ndarray, y: np.ndarray, gram: np.ndarray, cross: np.ndarray) -> None:
    """Add z'z to `gram` and z'y to `cross`."""
    # NumPy's products: while SciPy's run, no other thread could read the next piece
    gram += z.T @ z
    cross.T[...] += y.T @ z


def _spreads(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.square([np.linalg.norm(rows) for rows in (x, y, y - x)])
