"""Linearity of the map from one layer to the next, in sample and held out, with each draw left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import TYPE_CHECKING

import numpy as np

from lmshape.geometry.arrays import Array, on, sum_of_squares
from lmshape.geometry.checks import ROUNDING, as_labels, as_matrix
from lmshape.geometry.pairs import (
    Basis,
    GramFactor,
    PairMoments,
    PairSums,
    from_basis,
    gram_factor,
    merged,
    to_basis,
    white_coordinates,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


Scores = tuple[float, float]  # of y, and of the update y − x
Groups = Mapping[tuple[int, int], Sequence[PairSums]]


@dataclass(frozen=True, slots=True)
class Fit:
    """A least-squares fit: `whitened` is B (r, d), `image` F' (r, d) in the coordinates of y."""

    moments: PairMoments
    factor: GramFactor
    whitened: Array
    image: Array


def least_squares(parts: Sequence[PairSums]) -> Fit:
    """Fit y to x on all pairs that `parts` have seen: O(d³)."""
    moments = merged(parts)
    factor = gram_factor(moments)
    image = from_basis(factor.matrix.T, moments.basis)
    return Fit(moments, factor, factor.whiten(moments.cross), image)


def in_sample(fit: Fit) -> Scores:
    """Return the scores on the rows of the fit; NaN without variance."""
    return _shares(fit, sum_of_squares(fit.whitened), sum_of_squares(fit.whitened - fit.image))


def both_ways(fits: Sequence[Fit]) -> Scores:
    """Return the mean scores of two fits, each on the rows of the other; NaN without variance."""
    first, second = fits
    ways = (_held_out(first, second), _held_out(second, first))
    return (ways[0][0] + ways[1][0]) / 2, (ways[0][1] + ways[1][1]) / 2


def _held_out(fit: Fit, scored: Fit) -> Scores:
    """Return the scores on the rows of `scored` of the coefficients and means of `fit`."""
    coefficients = fit.factor.solve(fit.whitened)
    device = fit.moments.device
    shift_x = to_basis(on((scored.moments.mean_x - fit.moments.mean_x)[None], device), fit.moments.basis)
    shift_y = on((scored.moments.mean_y - fit.moments.mean_y)[None], device)
    excess = scored.whitened - scored.factor.apply(coefficients)
    offset = shift_y - shift_x @ coefficients
    unseen, unseen_shift = (_unseen(fit, rows) for rows in (scored.factor.matrix.T, shift_x))
    lost = (
        sum_of_squares(excess) + scored.moments.count * sum_of_squares(offset),
        sum_of_squares(excess - unseen) + scored.moments.count * sum_of_squares(offset - unseen_shift),
    )
    explained = sum_of_squares(scored.whitened), sum_of_squares(scored.whitened - scored.image)
    return _shares(scored, explained[0] - lost[0], explained[1] - lost[1], both=fit)


def _unseen(fit: Fit, rows: Array) -> Array:
    """Return the part of rows in directions that `fit` cut: of an update it predicts their mean, not −x."""
    if fit.factor.inverse is None:
        return 0.0
    return from_basis(fit.factor.outside(rows), fit.moments.basis)


def _shares(fit: Fit, explained: float, explained_update: float, *, both: Fit | None = None) -> Scores:
    """Return shares of the variance of y and of the update; NaN without variance, of x in `fit` or `both`."""
    if not fit.factor.rank or (both is not None and not both.factor.rank):
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
    return bool(moments.spread_y > noise_y), bool(moments.spread_update > noise_x + noise_y)


@dataclass(frozen=True, slots=True)
class Linearity:
    """Linearity of all rows (entry 0) and of all rows but those of the j-th draw (entry j), (K + 1,) float64.

    Parameters
    ----------
    rows : n
    rank : of the centered x; its share of n is the linearity of independent noise
    linearity, linearity_residual : fitted and scored on the same rows
    linearity_held_out, linearity_residual_held_out : fitted on one half of the sequences, scored on the other,
        mean of both ways
    """

    rows: np.ndarray
    rank: np.ndarray
    linearity: np.ndarray
    linearity_residual: np.ndarray
    linearity_held_out: np.ndarray
    linearity_residual_held_out: np.ndarray


def linearity(
    x: ArrayLike, y: ArrayLike, *, residual: bool = False, held_out: ArrayLike | None = None
) -> float:
    """Return the share of the variance of y that the best linear map of x explains: 1 − min_A ‖XA − Y‖²/‖Y‖².

    Parameters
    ----------
    x, y : (n, d) arrays or tensors, the same tokens before and after a block; centered here
    residual : explain the update y − x in the place of y: the residual stream taken out
    held_out : (n,) integers or bools of two values: fit, with mean, on the rows of each value and score those of
        the other, the mean of both. Halve by sequence; tokens of one sequence depend on each other.

    Returns
    -------
    Between 0 and 1, which is a linear map; independent noise: rank/n. Held out: at most 1, about −d/n or little
    under 0 for independent noise. Translation, rotation and scale of both change nothing, nor, without
    `residual`, an invertible linear map of x.

    Raises
    ------
    ValueError
        Under 2d + 1 rows, for unequal shapes, for x or y (or y − x) without variance, and for halves that are
        not two, or not larger than d.

    Notes
    -----
    O(n d² + d³), in float64. Directions of x whose variance is 2⁻⁴⁶ of the largest are cut, those within the
    rounding of a float32 x, too.

    References
    ----------
    Razzhigaev et al. 2024, "Your Transformer is Secretly Linear", arXiv 2405.12250.

    Examples
    --------
    >>> x = np.random.default_rng(0).standard_normal((100, 3))
    >>> round(linearity(x, x @ np.diag([1.0, 2.0, 3.0]) + 7.0), 12)
    1.0
    """
    rows_x, rows_y = as_matrix(x), as_matrix(y, name="y")
    _refuse_shapes(rows_x, rows_y)
    if str(getattr(x, "dtype", "")).endswith("float32"):
        rows_x = rows_x.astype(np.float32)  # exact; the sums must know that x was rounded
    halves = _halves(held_out, rows_x.shape)
    parts = _summed(rows_x, rows_y, halves, None)
    _refuse_constant(merged(parts), residual=residual)
    basis = white_coordinates(parts)
    if basis is not None:
        parts = _summed(rows_x, rows_y, halves, basis)
    fits = [least_squares([part]) for part in parts]
    scores = in_sample(fits[0]) if held_out is None else both_ways(fits)
    if not np.isfinite(scores[residual]):
        raise ValueError("`held_out` leaves a half of `x` or `y` without variance. Choose other halves.")
    return scores[residual]


def leave_one_out_linearity(groups: Groups) -> Linearity:
    """Return the linearity of all rows, and of all rows but those of one draw.

    Parameters
    ----------
    groups : (draw, half) → sums over the pairs of it, K ≥ 2 draws, halves 0 and 1

    Returns
    -------
    NaN where n ≤ 2d, held out where a half has no more rows than columns, and where x, y or the update has no
    variance. 3 (K + 1) factorizations of (d, d): O(K d³).
    """
    draws = sorted({draw for draw, _ in groups})
    columns = zip(*(_entry(groups, without) for without in (None, *draws)), strict=True)
    return Linearity(*(np.array(column, dtype=np.float64) for column in columns))


def _entry(groups: Groups, without: int | None) -> tuple[float, ...]:
    """Return an entry of each array of `Linearity`, in their order."""
    halves = [
        [part for (draw, own), parts in groups.items() if own == half and draw != without for part in parts]
        for half in (0, 1)
    ]
    counts = [sum(part.count for part in parts) for parts in halves]
    width = _width(groups)
    if sum(counts) <= 2 * width:
        return (sum(counts), *(nan,) * 5)
    rank, pooled = _pooled([*halves[0], *halves[1]])
    held_out = (nan, nan) if min(counts) <= width else both_ways([least_squares(parts) for parts in halves])
    return (sum(counts), rank, *pooled, *held_out)


def _pooled(parts: Sequence[PairSums]) -> tuple[int, Scores]:
    # a function of its own frees the matrices of this fit before those of the halves are made
    whole = least_squares(parts)
    return whole.factor.rank, in_sample(whole)


def _width(groups: Groups) -> int:
    return next(len(part.means_x[0]) for parts in groups.values() for part in parts if part.counts)


def _summed(x: np.ndarray, y: np.ndarray, halves: np.ndarray, basis: Basis | None) -> list[PairSums]:
    parts = []
    for half in np.unique(halves):
        part = PairSums(basis)
        part.add(x[halves == half], y[halves == half])
        parts.append(part)
    return parts


def _halves(held_out: ArrayLike | None, shape: tuple[int, int]) -> np.ndarray:
    n, d = shape
    if held_out is None:
        return np.zeros(n, dtype=np.int64)
    halves = as_labels(held_out, n, name="held_out", booleans=True)
    _, counts = np.unique(halves, return_counts=True)
    if len(counts) != 2 or counts.min() <= d:
        raise ValueError(
            f"`held_out` makes parts of {counts.tolist()} rows; two are needed, each of more rows than the {d} columns."
        )
    return halves


def _refuse_shapes(x: np.ndarray, y: np.ndarray) -> None:
    n, d = x.shape
    if y.shape != x.shape:
        raise ValueError(f"`x` has shape {x.shape}, `y` {y.shape}; they must hold the same tokens and width.")
    if n <= 2 * d:
        raise ValueError(
            f"too few rows: {n} of {2 * d + 1}; linearity at d={d} is trivially high under them. Add rows."
        )


def _refuse_constant(moments: PairMoments, *, residual: bool) -> None:
    has_y, has_update = varied(moments)
    problems = {"x": gram_factor(moments).rank == 0, "y": not has_y, "y - x": residual and not has_update}
    for name, constant in problems.items():
        if constant:
            raise ValueError(
                f"`{name}` has zero variance: all rows are equal. Linearity needs rows that differ."
            )
