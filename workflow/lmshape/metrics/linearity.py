"""Linearity family: linearity of each block, pooled and with each draw left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import partial
from math import inf

import numpy as np

from lmshape.geometry.linearity import Linearity, leave_one_out_linearity
from lmshape.geometry.pairs import Basis, PairSums, white_coordinates
from lmshape.metrics.layer import Arrays, Found, Layer, Measured, blas_threads
from lmshape.metrics.metric import Family, Metric, kept_array

Sums = dict[tuple[int, int], PairSums]  # by draw and half
Few = dict[str, Sums]  # by choice of rows


def statistics(layer: Layer) -> dict[str, Found]:
    """Return the linearity of each choice of rows, n rows of width d in K draws: O(n d² + K d³) time.

    The arrays of `Linearity`, each with K + 1 entries. The halves of the held-out scores are the sequences of
    even and of odd rank within their draw. One pass over the rows serves all choices that differ in at most d
    rows; a choice with directions that are small beside the largest takes another, the attribute
    `second_pass` being 1. O(K d²) memory: 4 (K + 2) d² float64, 3.8 GB at 5 draws of width 4096.
    """
    width = layer.rows.shape[1]
    counts = {name: int(np.count_nonzero(kept)) for name, kept in layer.kept.items()}
    enough = {name: kept for name, kept in layer.kept.items() if counts[name] > 2 * width}
    measured: dict[str, tuple[Linearity, int]] = {}
    with blas_threads(width):
        for choices in _passes(enough, width):
            measured |= _measured(layer, choices)
    found: dict[str, Found] = {}
    for name, kept in layer.kept.items():
        if name in measured:
            found[name] = _described(*measured[name], width=width)
            continue
        draws = len(np.unique(layer.draw[kept]))
        arrays = missing(rows=counts[name], width=width, draws=draws)
        found[name] = arrays, {"flag": _too_few(counts[name], width), "second_pass": 0}
    return found


def missing(*, rows: int, width: int, draws: int, rows_per_draw: int | None = None) -> Arrays:
    """Return the arrays of `statistics`, NaN, for rows that have no linearity."""
    return {field.name: np.full(draws + 1, np.nan) for field in fields(Linearity)}


def halves(draw: np.ndarray, sequence: np.ndarray) -> np.ndarray:
    """Return 0 or 1 for each row (n,): the parity of the rank of its sequence within its draw."""
    sequences, number = np.unique(sequence, return_inverse=True)
    pairs, inverse = np.unique(draw * len(sequences) + number, return_inverse=True)
    draws = pairs // len(sequences)
    rank = np.arange(len(pairs)) - np.searchsorted(draws, draws)
    return rank[inverse] % 2


def _passes(kept: Mapping[str, np.ndarray], width: int) -> list[dict[str, np.ndarray]]:
    """Return the choices of rows by the passes that they share: one, where few rows tell them apart."""
    if not kept:
        return []
    apart = _union(kept) & ~_core(kept)
    if np.count_nonzero(apart) <= width:
        return [dict(kept)]
    return [{name: mask} for name, mask in kept.items()]


def _measured(layer: Layer, choices: Mapping[str, np.ndarray]) -> dict[str, tuple[Linearity, int]]:
    """Return the linearity of each choice, and 1 where it took a second pass."""
    shared, few = _summed(layer, choices, None)
    bases: dict[str, Basis] = {}
    for name, own in few.items():
        basis = white_coordinates([*shared.values(), *own.values()])
        if basis is not None:
            bases[name] = basis
    first = {name: own for name, own in few.items() if name not in bases}
    found = {name: (own, 0) for name, own in leave_one_out_linearity(shared, first).items()}
    del shared, few, first, own  # their memory is that of the second pass
    for name, basis in bases.items():
        found[name] = leave_one_out_linearity(*_summed(layer, {name: choices[name]}, basis))[name], 1
    return found


def _summed(layer: Layer, choices: Mapping[str, np.ndarray], basis: Basis | None) -> tuple[Sums, Few]:
    """Return sums by draw and half: of the rows that all choices share, and of the others of each choice."""
    half = halves(layer.draw, layer.sequence)
    core = _core(choices)
    shared: Sums = {}
    few: Few = {name: {} for name in choices}
    for piece, x, y in _pairs(layer):
        for group, rows in _grouped(layer.draw[piece], half[piece], core[piece]):
            shared.setdefault(group, PairSums(basis, layer.device)).add(x[rows], y[rows])
        for name, mask in choices.items():
            for group, rows in _grouped(layer.draw[piece], half[piece], (mask & ~core)[piece]):
                few[name].setdefault(group, PairSums(basis, layer.device)).add_rows(x[rows], y[rows])
    return shared, few


def _pairs(layer: Layer) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    clouds = layer.rows.on(layer.device), layer.compared().on(layer.device)
    for (piece, y), (_, x) in zip(*(rows.chunks() for rows in clouds), strict=True):
        yield piece, x, y


def _grouped(
    draw: np.ndarray, half: np.ndarray, kept: np.ndarray
) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    """Yield the draw and half, and the index of the rows of it that are kept."""
    index = np.flatnonzero(kept)
    for group in np.unique(np.stack([draw[index], half[index]]), axis=1).T.tolist():
        own = (draw[index] == group[0]) & (half[index] == group[1])
        yield (group[0], group[1]), index[own]


def _core(kept: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.logical_and.reduce(list(kept.values()))


def _union(kept: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.logical_or.reduce(list(kept.values()))


def _described(found: Linearity, second_pass: int, *, width: int) -> Found:
    """Return arrays and attributes; the flag says why there will be no interval."""
    fewest = int(found.rows[1:].min())
    flag = f"{_too_few(fewest, width)} with one draw left out" if fewest <= 2 * width else ""
    arrays = {field.name: getattr(found, field.name) for field in fields(Linearity)}
    return arrays, {"flag": flag, "second_pass": second_pass}


def _too_few(rows: int, width: int) -> str:
    return f"too few rows: {rows} of {2 * width + 1}, 2d + 1, that linearity needs"


def _null(arrays: Arrays) -> np.ndarray:
    """Return rank/n of all rows, for each draw left out, too: it is known without error."""
    return np.full(len(arrays["rows"]), arrays["rank"][0] / arrays["rows"][0])


_linearity = partial(
    Metric, family="linearity", interval="jackknife", source="Razzhigaev et al. 2024, arXiv 2405.12250"
)
_in_sample = partial(_linearity, low=0.0, high=1.0, range="[0, 1]")
_held_out = partial(_linearity, low=-inf, high=1.0, range="(-∞, 1]")
_HALVES = "fitted on half of the sequences, scored on the others, mean of both ways"

LINEARITY = Family(
    "linearity",
    measured=Measured(name="linearity", statistics=statistics, missing=missing, paired="before"),
    metrics=(
        _in_sample(
            name="linearity",
            definition="1 - min ‖XA - Y‖²/‖Y‖² over matrices A, X and Y a block's centered input and output",
            null="d/n for independent noise: linearity_null; near 1 where the residual stream outweighs the update",
            undefined="zero variance",
            values=partial(kept_array, array="linearity"),
        ),
        _linearity(
            name="linearity_null",
            definition="rank/n: linearity of independent noise, d/n where no direction of the input is missing",
            low=0.0,
            high=1.0,
            range="[0, 1/2)",
            null="itself a null: the value of a block that forgets its input",
            source="expected R² of least squares on noise",
            undefined="no rows",
            values=_null,
        ),
        _held_out(
            name="linearity_held_out",
            definition=f"linearity, {_HALVES}",
            null="0 for independent noise as n → ∞; at finite n lower by about d/n of the half",
            undefined="zero variance, or a half of the sequences with no more rows than columns",
            values=partial(kept_array, array="linearity_held_out"),
        ),
        _in_sample(
            name="linearity_residual",
            definition="linearity of the update, Y - X in the place of Y: the residual stream taken out",
            null="d/n for updates that are independent noise: linearity_null",
            undefined="zero variance of the input or of the update",
            values=partial(kept_array, array="linearity_residual"),
        ),
        _held_out(
            name="linearity_residual_held_out",
            definition=f"linearity_residual, {_HALVES}",
            null="0 for updates that are independent noise as n → ∞; at finite n lower by about d/n of the half",
            undefined="zero variance, or a half of the sequences with no more rows than columns",
            values=partial(kept_array, array="linearity_residual_held_out"),
        ),
    ),
)
