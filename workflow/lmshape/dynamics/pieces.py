"""Straight pieces of a curve over the logarithm of the step: where its slope changes.

A continuous curve of straight pieces is fitted by least squares, each checkpoint weighted by the stretch of the
axis that it stands for: late checkpoints, which lie close in the logarithm, do not outvote the few early ones.
The breaks lie at checkpoints, at most `MOST_KNOTS` of them, spread evenly; every choice of breaks is tried, so that the
fit is the best there is. `ruptures`, the usual library, finds breaks between samples a constant time apart, and its
pieces of a line do not meet.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np

MOST_KNOTS = 24
MOST_PIECES = 4


@dataclass(frozen=True, slots=True)
class Fits:
    """Best fits of one number of pieces to some curves.

    Attributes
    ----------
    breaks : (pieces − 1, curves) places of the breaks on the axis
    slopes : (pieces, curves)
    misfit : (curves,) weighted root mean square of the residuals
    """

    breaks: np.ndarray
    slopes: np.ndarray
    misfit: np.ndarray


@dataclass(frozen=True, slots=True)
class _Design:
    """All choices of breaks: `breaks` (choices, p − 1), `basis` (choices, T, p + 1) orthonormal, `triangle` its R."""

    breaks: np.ndarray
    basis: np.ndarray
    triangle: np.ndarray


def most_pieces(count: int) -> int:
    """Return the most pieces that `count` checkpoints can show: two intervals between checkpoints for each."""
    return int(np.clip((count - 1) // 2, 1, MOST_PIECES))


def fit(axis: np.ndarray, curves: np.ndarray, pieces: int, *, mixed: np.ndarray | None = None) -> Fits:
    """Fit continuous straight pieces to curves.

    Parameters
    ----------
    axis : (T,) rising
    curves : (curves, T)
    pieces : at most `most_pieces(T)`
    mixed : (mixtures, curves) weights: fit these sums of the curves in the place of the curves, for the cost of a few
    """
    design = _design(tuple(axis), pieces)
    mixed = np.eye(len(curves)) if mixed is None else mixed
    weighted = (curves * np.sqrt(_weights(axis))).T
    shares = np.swapaxes(design.basis, 1, 2) @ weighted @ mixed.T
    explained = np.einsum("cpm,cpm->cm", shares, shares)
    best = explained.argmax(axis=0)
    columns = np.arange(len(mixed))
    coefficients = np.linalg.solve(design.triangle[best], shares[best, :, columns][..., None])[..., 0]
    total = np.einsum("tm,tm->m", weighted @ mixed.T, weighted @ mixed.T)
    misfit = np.sqrt(np.maximum(total - explained[best, columns], 0.0))
    return Fits(design.breaks[best].T, coefficients[:, 1:].cumsum(axis=1).T, misfit)


def knots(axis: np.ndarray) -> np.ndarray:
    """Return the places where a curve may break: inner checkpoints, all or as many as spread evenly."""
    inner = axis[1:-1]
    if len(inner) <= MOST_KNOTS:
        return inner
    wanted = np.linspace(axis[0], axis[-1], MOST_KNOTS + 2)[1:-1]
    return np.unique(inner[np.abs(inner[None, :] - wanted[:, None]).argmin(axis=1)])


def _weights(axis: np.ndarray) -> np.ndarray:
    """Share of the axis nearest to each place; they sum to 1."""
    ends = np.concatenate([axis[:1], (axis[1:] + axis[:-1]) / 2, axis[-1:]])
    return np.diff(ends) / (axis[-1] - axis[0])


@lru_cache(maxsize=16)
def _design(axis: tuple[float, ...], pieces: int) -> _Design:
    places = np.array(axis)
    chosen = list(combinations(knots(places), pieces - 1))
    breaks = np.array(chosen, dtype=np.float64).reshape(len(chosen), pieces - 1)
    hinges = np.maximum(places[None, :, None] - breaks[:, None, :], 0.0)
    ones = np.ones((len(chosen), len(places), 1))
    columns = np.concatenate([ones, ones * places[:, None], hinges], axis=2)
    basis, triangle = np.linalg.qr(columns * np.sqrt(_weights(places))[:, None])
    return _Design(breaks, basis, triangle)
