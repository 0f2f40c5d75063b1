"""Linearity of the map from one layer to the next, in sample and held out, with each draw left out."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import TYPE_CHECKING

import numpy as np

from lmshape.geometry.arrays import Array, blocks, on, solved, sum_of_squares, triangle_with_identity
from lmshape.geometry.checks import ROUNDING, as_labels, as_matrix
from lmshape.geometry.pairs import (
    Basis,
    GramFactor,
    PairMoments,
    PairSums,
    from_basis,
    gram_factor,
    joined,
    merged,
    serves,
    to_basis,
    white_coordinates,
    without_matrices,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


Scores = tuple[float, float]  # of y, and of the update y − x
Entry = tuple[float, ...]  # of each array of `Linearity`, in their order
Groups = Mapping[tuple[int, int], PairSums]  # by draw and half
Halves = tuple[Sequence[PairSums], Sequence[PairSums]]


@dataclass(frozen=True, slots=True)
class Fit:
    """A least-squares fit: `whitened` is B (r, d) = F⁺ Σ x y', F the factor.

    `explained` are the sums of squares of y and of the update that the fit explains.
    """

    moments: PairMoments
    factor: GramFactor
    whitened: Array
    explained: Scores


@dataclass(frozen=True, slots=True)
class Grown:
    """A fit to the pairs of another one and to m ≪ d rows more, by recursive least squares (Plackett 1950).

    With V = F⁺ x' and e = y − V'B the errors of the other fit on these rows, B + V (I + V'V)⁻¹ e is the new one. It
    leaves e' (I + V'V)⁻¹ e more unexplained: nothing large is subtracted, however massive the rows are.

    Parameters
    ----------
    fit : the other one
    moments : of all pairs, without their matrices
    x, y : (m, d) the rows, as `joined` returns them
    directions, gains : V (r, m) and (I + V'V)⁻¹ e (m, d)
    lost : the trace of e' (I + V'V)⁻¹ e
    """

    fit: Fit
    moments: PairMoments
    x: Array
    y: Array
    directions: Array
    gains: Array
    lost: float

    @property
    def known(self) -> Scores:
        """Sums of squares of y and of the update: what `fit` explains of its pairs, and those of the rows more."""
        first, update = self.fit.explained
        return first + sum_of_squares(self.y), update + sum_of_squares(self.y - self.x)

    def errors(self, x: Array, y: Array) -> Array:
        """Return y less its prediction, of rows (m, d) about the means of the fit."""
        seen = self.fit.factor.whiten(to_basis(x, self.moments.basis).T).T
        return y - seen @ self.fit.whitened - (seen @ self.directions) @ self.gains

    def unseen(self, rows: Array) -> Array:
        """Return the part of rows in directions that were cut: of an update the fit predicts their mean, not −x."""
        return from_basis(self.fit.factor.outside(rows), self.moments.basis)


def least_squares(parts: Sequence[PairSums]) -> Fit:
    """Fit y to x on all pairs that `parts` have seen: O(d³)."""
    moments = merged(parts)
    factor = gram_factor(moments)
    whitened = factor.whiten(moments.cross)
    image = from_basis(factor.matrix.T, moments.basis)
    of_update = sum(sum_of_squares(whitened[:, part] - image[:, part]) for part in blocks(image.shape[1]))
    return Fit(without_matrices(moments), factor, whitened, (sum_of_squares(whitened), of_update))


def grown(fit: Fit, rows: Sequence[PairSums] = ()) -> Grown:
    """Return the fit to few rows more, added one by one, that `serves` allows: O(m d²)."""
    moments, x, y = joined(fit.moments, rows)
    directions = fit.factor.whiten(to_basis(x, moments.basis).T)
    lower = triangle_with_identity(directions)
    errors = solved(lower, y - directions.T @ fit.whitened)
    gains = solved(lower, errors, transposed=True)
    return Grown(fit, moments, x, y, directions, gains, sum_of_squares(errors))


def in_sample(fit: Grown) -> Scores:
    """Return the scores on the rows of the fit; NaN without variance."""
    return _shares(fit, [known - fit.lost for known in fit.known])


def both_ways(halves: Sequence[Sequence[Grown]]) -> list[Scores]:
    """Return the mean scores of pairs of fits, each on the rows of the other; NaN without variance.

    All first fits have grown from one, and all second ones.
    """
    if not halves:
        return []
    first, second = zip(*halves, strict=True)
    ways = zip(_held_out(first, second), _held_out(second, first), strict=True)
    return [((one[0] + other[0]) / 2, (one[1] + other[1]) / 2) for one, other in ways]


def _held_out(fits: Sequence[Grown], scored: Sequence[Grown]) -> list[Scores]:
    """Return the scores on the rows of `scored` of the coefficients and means of `fits`."""
    fit, other = fits[0].fit, scored[0].fit
    excess = fit.factor.passed_on(fit.whitened, other.factor)
    excess -= other.whitened
    return [
        _shares(rows, np.subtract(rows.known, _lost(own, rows, excess)).tolist(), both=own)
        for own, rows in zip(fits, scored, strict=True)
    ]


def _lost(own: Grown, rows: Grown, excess: Array) -> Scores:
    """Return the squared errors of y and of the update beyond those of the least-squares fit to the rows.

    excess : F' (A − A') of the coefficients A that `own` has grown from and A' of the fit to the rows, F their factor
    """
    moved = rows.fit.factor.apply(own.fit.factor.solve(own.directions))
    shift_x, shift_y = (
        on(np.sqrt(rows.moments.count) * (there - here)[None], rows.moments.device)
        for there, here in (
            (rows.moments.mean_x, own.moments.mean_x),
            (rows.moments.mean_y, own.moments.mean_y),
        )
    )
    pairs = [(x, own.errors(x, y)) for x, y in ((shift_x, shift_y), (rows.x, rows.y))]
    lost = sum(sum_of_squares(errors) for _, errors in pairs)
    for part in blocks(excess.shape[1]):
        grown_by = (own.gains[:, part].T @ moved.T).T  # its columns lie together, as those of `excess`
        lost += sum_of_squares(excess[:, part] + grown_by)
    if own.fit.factor.inverse is None:
        return lost, lost
    of_update = sum_of_squares(excess + own.unseen(rows.fit.factor.matrix.T))
    for x, errors in pairs:
        of_update += sum_of_squares(errors - own.unseen(to_basis(x, own.moments.basis)))
    return lost, of_update


def _shares(fit: Grown, explained: Sequence[float], *, both: Grown | None = None) -> Scores:
    """Return shares of the variance of y and of the update; NaN without variance, of x in `fit` or `both`."""
    if not fit.fit.factor.rank or (both is not None and not both.fit.factor.rank):
        return nan, nan
    has_y, has_update = varied(fit.moments)
    return (
        explained[0] / fit.moments.spread_y if has_y else nan,
        explained[1] / fit.moments.spread_update if has_update else nan,
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
    fits = [grown(least_squares([part])) for part in parts]
    scores = in_sample(fits[0]) if held_out is None else both_ways([fits])[0]
    if not np.isfinite(scores[residual]):
        raise ValueError("`held_out` leaves a half of `x` or `y` without variance. Choose other halves.")
    return scores[residual]


def leave_one_out_linearity(shared: Groups, few: Mapping[str, Groups]) -> dict[str, Linearity]:
    """Return the linearity of all rows, and of all rows but those of one draw, for several choices of rows.

    Parameters
    ----------
    shared : sums over the pairs that all choices share, K ≥ 2 draws, halves 0 and 1
    few : name of a choice → its other pairs, added one by one

    Returns
    -------
    NaN where n ≤ 2d, held out where a half has no more rows than columns, and where x, y or the update has no
    variance. 3 (K + 1) factorizations of (d, d), and as many more for a choice beside whose other pairs the shared
    ones are too small: O(K d³).
    """
    width = _width(shared, *few.values())
    draws = {name: sorted({draw for draw, _ in (*shared, *own)}) for name, own in few.items()}
    entries: dict[str, list[Entry]] = {name: [] for name in few}
    for without in (None, *sorted({draw for own in draws.values() for draw in own})):
        names = [name for name in few if without is None or without in draws[name]]
        others = {name: _by_half(few[name], without) for name in names}
        for name, entry in _entries(_by_half(shared, without), others, width).items():
            entries[name].append(entry)
    return {
        name: Linearity(*(np.array(column, dtype=np.float64) for column in zip(*own, strict=True)))
        for name, own in entries.items()
    }


def _by_half(groups: Groups, without: int | None) -> Halves:
    first, second = (
        [part for (draw, own), part in groups.items() if own == half and draw != without] for half in (0, 1)
    )
    return first, second


def _entries(shared: Halves, few: Mapping[str, Halves], width: int) -> dict[str, Entry]:
    """Return an entry for each choice of rows: of the `shared` ones, of either half, and of its `few` others."""
    if not few:
        return {}
    both = {name: ([*shared[0], *own[0]], [*shared[1], *own[1]]) for name, own in few.items()}
    counts = {name: [sum(part.count for part in half) for half in own] for name, own in both.items()}
    halved = {name for name, own in counts.items() if min(own) > width}
    found: dict[str, Entry] = {name: (nan,) * 5 for name, own in counts.items() if sum(own) <= 2 * width}
    found |= _grown_together(shared, {name: own for name, own in few.items() if name not in found}, halved)
    entries: dict[str, Entry] = {}
    for name in few:
        if name in found:
            entries[name] = (sum(counts[name]), *found[name])
        else:
            entries |= _entries(both[name], {name: ([], [])}, width)
    return entries


def _grown_together(shared: Halves, few: Mapping[str, Halves], halved: Container[str]) -> dict[str, Entry]:
    """Return rank and scores of those choices of rows that the fits to the shared rows can grow to."""
    pooled = {
        name: (fit.fit.factor.rank, *in_sample(fit))
        for name, fit in _all_grown(_flat(shared), {name: _flat(own) for name, own in few.items()}).items()
    }
    first, second = (
        _all_grown(shared[half], {name: few[name][half] for name in pooled if name in halved})
        for half in (0, 1)
    )
    names = [name for name in first if name in second]
    held_out = dict(zip(names, both_ways([(first[name], second[name]) for name in names]), strict=True))
    held_out |= {name: (nan, nan) for name in pooled if name not in halved}
    return {name: (*pooled[name], *scores) for name, scores in held_out.items()}


def _all_grown(parts: Sequence[PairSums], few: Mapping[str, Sequence[PairSums]]) -> dict[str, Grown]:
    """Return what the fit to `parts` grows to, for each choice of a few rows more that it serves."""
    if not few or not parts:
        return {}
    fit = least_squares(parts)
    return {name: grown(fit, rows) for name, rows in few.items() if _serves(fit, rows)}


def _serves(fit: Fit, rows: Sequence[PairSums]) -> bool:
    joint, x, _ = joined(fit.moments, rows)
    return joint.count == fit.moments.count or serves(fit.factor, joint, x)


def _flat(halves: Halves) -> list[PairSums]:
    return [*halves[0], *halves[1]]


def _width(*groups: Groups) -> int:
    return next((len(part.means_x[0]) for own in groups for part in own.values() if part.counts), 0)


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
