"""Least squares from sums over pairs of rows, scored on the same rows or on others.

With G = X'X = FF' and C = X'Y of centered rows, B = F⁺C: ‖B‖² of ‖Y‖² is explained, of the update Y − X it
is ‖B − F'‖². Fitted on other rows, ‖B − F'A‖² more is left than the best A leaves. All three are sums of
squares: none is the difference of large numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan

import numpy as np

from lmshape.geometry.centering import ROUNDING
from lmshape.geometry.pairs import PairMoments, PairSums, merged
from lmshape.geometry.roots import Root, root_of

Scores = tuple[float, float]  # of y, and of the update y − x


@dataclass(frozen=True, slots=True)
class Fit:
    """A least-squares fit: `whitened` is B (r, d), `image` F' (r, d) in the coordinates of y."""

    moments: PairMoments
    root: Root
    whitened: np.ndarray
    image: np.ndarray


def least_squares(parts: Sequence[PairSums]) -> Fit:
    """Fit y to x on all pairs that `parts` have seen: O(d³)."""
    moments = merged(parts)
    root = root_of(moments)
    image = root.factor.T if moments.basis is None else root.factor.T @ moments.basis.back
    return Fit(moments, root, root.whiten(moments.cross), image)


def in_sample(fit: Fit) -> Scores:
    """Return the scores on the rows of the fit; NaN without variance."""
    return _shares(fit, _square(fit.whitened), _square(fit.whitened - fit.image))


def both_ways(fits: Sequence[Fit]) -> Scores:
    """Return the mean scores of two fits, each on the rows of the other; NaN without variance."""
    first, second = fits
    ways = (_held_out(first, second), _held_out(second, first))
    return (ways[0][0] + ways[1][0]) / 2, (ways[0][1] + ways[1][1]) / 2


def _held_out(fit: Fit, scored: Fit) -> Scores:
    """Return the scores on the rows of `scored` of the coefficients and means of `fit`."""
    coefficients = fit.root.solve(fit.whitened)
    basis = fit.moments.basis
    shift_x = (scored.moments.mean_x - fit.moments.mean_x)[None]
    shift_y = (scored.moments.mean_y - fit.moments.mean_y)[None]
    shift_z = shift_x if basis is None else shift_x @ basis.forward
    excess = scored.whitened - scored.root.apply(coefficients)
    offset = shift_y - shift_z @ coefficients
    unseen, unseen_shift = (_unseen(fit, rows) for rows in (scored.root.factor.T, shift_z))
    lost = (
        _square(excess) + scored.moments.count * _square(offset),
        _square(excess - unseen) + scored.moments.count * _square(offset - unseen_shift),
    )
    explained = _square(scored.whitened), _square(scored.whitened - scored.image)
    return _shares(scored, explained[0] - lost[0], explained[1] - lost[1], both=fit)


def _unseen(fit: Fit, rows: np.ndarray) -> np.ndarray | float:
    """Return the part of rows in directions that `fit` cut: of an update it predicts their mean, not −x."""
    if fit.root.inverse is None:
        return 0.0
    basis, outside = fit.moments.basis, fit.root.outside(rows)
    return outside if basis is None else outside @ basis.back


def _shares(fit: Fit, explained: float, explained_update: float, *, both: Fit | None = None) -> Scores:
    """Return shares of the variance of y and of the update; NaN without variance, of x in `fit` or `both`."""
    if not fit.root.rank or (both is not None and not both.root.rank):
        return nan, nan
    has_y, has_update = varied(fit.moments)
    return (
        explained / fit.moments.spread_y if has_y else nan,
        explained_update / fit.moments.spread_update if has_update else nan,
    )


def varied(moments: PairMoments) -> tuple[bool, bool]:
    """Tell whether y and the update vary by more than the rounding of their entries."""
    noise_x, noise_y = (
        ROUNDING**2 * (spread + moments.count * float(mean @ mean))
        for spread, mean in ((moments.spread_x, moments.mean_x), (moments.spread_y, moments.mean_y))
    )
    return moments.spread_y > noise_y, moments.spread_update > noise_x + noise_y


def _square(matrix: np.ndarray) -> float:
    # no BLAS: its threads cost more than they save on so little work
    return float(np.einsum("ij,ij->", matrix, matrix))
