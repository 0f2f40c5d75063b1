"""Which rows of a site each choice of rows keeps, why some choices have no statistics, and the rows by draws."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lmshape.geometry.checks import lengths
from lmshape.geometry.rows import first_occurrences, one_per_type, row_hashes, sinks_by_norm
from lmshape.geometry.spectrum import MomentSums, leave_one_out_sums
from lmshape.metrics.layer import Layer, blas_threads
from lmshape.store.activations import Rows
from lmshape.store.tokens import Tokens


@dataclass(frozen=True, slots=True)
class Survey:
    """The rows of one site at a glance.

    Parameters
    ----------
    norms : (n,) float64, Euclidean; NaN or infinite where a row is not finite
    finite : (n,) bool
    hashes : (n,) uint64, equal for equal rows
    """

    norms: np.ndarray
    finite: np.ndarray
    hashes: np.ndarray

    def unique(self, draw: np.ndarray, kept: np.ndarray) -> int:
        """Count the rows of a choice (n,) bool that repeat none of their own draw (n,)."""
        return sum(len(np.unique(self.hashes[kept & (draw == j)])) for j in np.unique(draw[kept]))


def survey(rows: Rows) -> Survey:
    """Look at every row once, in O(n d) and the memory of two pieces."""
    n, _ = rows.shape
    norms, hashes = np.empty(n), np.empty(n, dtype=np.uint64)
    for piece, part in rows.chunks():
        norms[piece], hashes[piece] = lengths(part), row_hashes(part)
    return Survey(norms, np.isfinite(norms), hashes)


ROWS = ("all", "no_sink", "one_per_type")


@dataclass(frozen=True, slots=True)
class Choices:
    """The choices of rows of one site.

    Parameters
    ----------
    kept : name → (n,) bool, the rows that belong to it
    refused : name → why no statistic exists of these rows, for the choices without one
    sinks : (n,) bool, the rows that `no_sink` leaves out
    """

    kept: Mapping[str, np.ndarray]
    refused: Mapping[str, str]
    sinks: np.ndarray

    @property
    def accepted(self) -> dict[str, np.ndarray]:
        """The choices that statistics can be taken of."""
        return {name: mask for name, mask in self.kept.items() if name not in self.refused}


def choices(names: Sequence[str], surveys: Sequence[Survey], tokens: Tokens, *, seed: int) -> Choices:
    """Choose the rows of a site.

    Parameters
    ----------
    names : of `ROWS`
    surveys : of the site, and of each other site that the same tokens are needed of: a sink of one is left out
    tokens : the n tokens
    seed : of the choice of one row per type
    """
    finite = np.logical_and.reduce([survey.finite for survey in surveys])
    sinks = np.logical_or.reduce([sinks_by_norm(survey.norms, tokens.position) for survey in surveys])
    everything = np.ones(len(finite), dtype=bool)
    masks = {
        "all": lambda: everything,
        # rows that are not finite leave no median norm to find sinks by, and are refused anyway
        "no_sink": lambda: ~sinks if finite.all() else everything,
        "one_per_type": lambda: one_per_type(tokens.ids, tokens.draw, seed=seed),
    }
    kept = {name: masks[name]() for name in names}
    reasons = {name: _refusal(tokens.draw[mask], finite[mask]) for name, mask in kept.items()}
    return Choices(kept, {name: reason for name, reason in reasons.items() if reason}, sinks)


def most_rows(rows_per_draw: int | None, draw: np.ndarray) -> int | None:
    """Return what can be asked of draws with fewer rows than others have, so that only copies flag them."""
    fewest = int(np.unique(draw, return_counts=True)[1].min(initial=rows_per_draw or len(draw)))
    return fewest if rows_per_draw is None else min(rows_per_draw, fewest)


def _refusal(draw: np.ndarray, finite: np.ndarray) -> str:
    """Return why no statistic exists of these rows; empty when one does."""
    if not finite.all():
        return f"not finite: {np.count_nonzero(~finite)} of {len(finite)} rows"
    _, counts = np.unique(draw, return_counts=True)
    if len(counts) < 2:
        return f"too few draws: {len(counts)}; an interval needs 2"
    fewest = int(counts.sum() - counts.max())
    if fewest < 2:
        return f"too few rows: {fewest} with one draw left out; 2 needed"
    return ""


BLOCK_ENTRIES = 2**18  # of `Parts.blocks`, 2 MiB in float64: what is made of a block stays in the cache
WHOLE_PIECES = 2**62  # a block is a whole piece: larger products of matrices are faster
CENTER_ROWS = 101  # a few sinks among them do not move their median


@dataclass(frozen=True, slots=True)
class Parts:
    """The part of each row, and the parts of each choice of rows.

    Parameters
    ----------
    label : (n,) integers, the part of each row from 0; −1 for rows that no choice keeps
    members : name of the choice → for each of its draws, in ascending order, the parts of it
    """

    label: np.ndarray
    members: Mapping[str, list[list[int]]]

    @property
    def count(self) -> int:
        """Number of parts."""
        return int(self.label.max(initial=-1)) + 1

    def subsets(self, name: str) -> list[list[int]]:
        """Return the parts of a choice: of all of its draws, then without each of them."""
        draws = self.members[name]
        everything = [part for draw in draws for part in draw]
        return [everything, *([part for part in everything if part not in draw] for draw in draws)]

    def blocks(self, rows: Rows, entries: int) -> Iterator[tuple[int, slice | np.ndarray, np.ndarray]]:
        """Yield part, which rows (a slice or an index), and these rows in the stored dtype: every kept row once.

        entries : a block has about as many, and at least one row
        """
        step = max(1, entries // rows.shape[1])
        for piece, chunk in rows.chunks():
            for start in range(0, len(chunk), step):
                block = chunk[start : start + step]
                first = piece.start + start
                label = self.label[first : first + len(block)]
                if label[0] >= 0 and (label == label[0]).all():
                    yield int(label[0]), slice(first, first + len(block)), block
                    continue
                for part in np.unique(label[label >= 0]):
                    own = np.flatnonzero(label == part)
                    yield int(part), first + own, block[own]


def parts_of(draw: np.ndarray, kept: Mapping[str, np.ndarray]) -> Parts:
    """Sort rows into parts.

    Parameters
    ----------
    draw : (n,) integers, the draw of each row
    kept : name of the choice → (n,) bool
    """
    # one bit for each choice: rows of the same bits and draw are one part
    choices = np.zeros(len(draw), dtype=np.int64)
    for bit, mask in enumerate(kept.values()):
        choices |= mask.astype(np.int64) << bit
    draws, ordinal = np.unique(draw, return_inverse=True)
    taken = np.flatnonzero(choices)
    keys, inverse = np.unique((ordinal << len(kept) | choices)[taken], return_inverse=True)
    label = np.full(len(draw), -1)
    label[taken] = inverse
    members = {
        name: [own for j in range(len(draws)) if (own := _members(keys, len(kept), draw=j, bit=bit))]
        for bit, name in enumerate(kept)
    }
    return Parts(label, members)


def _members(keys: np.ndarray, bits: int, *, draw: int, bit: int) -> list[int]:
    """Return the parts of a draw that a choice keeps."""
    return np.flatnonzero((keys >> bits == draw) & (keys >> bit & 1 == 1)).tolist()


def robust_center(rows: Rows, kept: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return a point (d,) amid the rows that no far row has moved, to take sums about: float64.

    The median, coordinate by coordinate, of the first rows that every choice keeps; of those that any keeps where
    there are none.
    """
    masks = list(kept.values())
    common = np.logical_and.reduce(masks)
    index = np.flatnonzero(common if common.any() else np.logical_or.reduce(masks))[:CENTER_ROWS]
    return np.median(rows.take(index).astype(np.float64), axis=0)


class RowSums:
    """Sums over sets of rows of a layer, from one pass: of the rows of a draw that the same sets keep, merged by set.

    O(d²) memory for each part of d rows or more; smaller ones, the sinks among them, are kept as they are.

    Parameters
    ----------
    layer : whose rows are summed
    sets : name → (n,) bool
    """

    def __init__(self, layer: Layer, sets: Mapping[str, np.ndarray]) -> None:
        parts = parts_of(layer.draw, sets)
        center = robust_center(layer.rows, sets)
        self._nothing = MomentSums(center, layer.device)
        self._parts = [MomentSums(center, layer.device) for _ in range(parts.count)]
        with blas_threads(layer.rows.shape[1]):
            for part, _, rows in parts.blocks(layer.rows.on(layer.device), WHOLE_PIECES):
                self._parts[part].update(rows)
            for large in self._parts:
                if large.covariance:
                    large.finish()
        self._members = {
            name: dict(zip(np.unique(layer.draw[mask]).tolist(), parts.members[name], strict=True))
            for name, mask in sets.items()
        }

    def of(self, name: str) -> MomentSums:
        """Return the sums over a set."""
        return self._merged([part for draw in self._members[name].values() for part in draw])

    def leave_one_out(self, name: str, *, within: str) -> Iterator[MomentSums]:
        """Yield the sums over a set, then without each draw of the set `within`, of which it is a part."""
        members = self._members[name]
        return leave_one_out_sums([self._merged(members.get(draw, [])) for draw in self._members[within]])

    def same(self, name: str, other: str) -> bool:
        """Tell whether two sets are the same rows."""
        return self._members[name] == self._members[other]

    def _merged(self, parts: Sequence[int]) -> MomentSums:
        return MomentSums.merged([self._nothing, *(self._parts[part] for part in parts)])


NOT_POSITION_0 = "{}, not position 0"  # the set of these rows of a choice


def pooled_sums(layer: Layer) -> RowSums:
    """Return the sums over each choice of a layer, and over it without position 0: one pass for all families.

    All ask for the same sets, so that the last bit of a number does not depend on what is measured beside it.
    """
    key = ("sums", *layer.kept)
    if key not in layer.made:
        ordinary = np.ones(len(layer.draw), dtype=bool) if layer.tokens is None else layer.tokens.position > 0
        others = {NOT_POSITION_0.format(name): kept & ordinary for name, kept in layer.kept.items()}
        layer.made[key] = RowSums(layer, {**layer.kept, **others})
    found: RowSums = layer.made[key]
    return found


NEAR = 5.0  # × the median norm: from here to the 10 of a sink a row may be one or not


def near_sinks(norms: np.ndarray, sinks: np.ndarray) -> int:
    """Count the rows that are not sinks (n,) and whose norms (n,) are over 5 × the median: the cut runs among them."""
    nowhere = np.ones(len(norms), dtype=np.int64)  # position 0 is a sink already
    return int(np.count_nonzero(sinks_by_norm(norms, nowhere, factor=NEAR) & ~sinks))


MOST_NAMED = 20  # positions and tokens by name; the others are one number


def sinks_by_name(sinks: np.ndarray, tokens: Tokens) -> dict[str, str | int]:
    """Say which rows of a site are sinks: attributes that each of its entries in a statistics archive has.

    Parameters
    ----------
    sinks : (n,) bool, the rows that `no_sink` leaves out
    tokens : the n tokens

    Returns
    -------
    `sink_rows`, how many there are; `sink_positions` and `sink_tokens`, JSON objects from the position in the
    sequence, and from the token, to its sink rows: the 20 most common, the rest together under "other".
    A token is named by the `repr` of its text, or by its id where the text is not known.
    """
    named = (_name(int(token), tokens) for token in tokens.ids[sinks])
    return {
        "sink_rows": int(np.count_nonzero(sinks)),
        "sink_positions": most_common(tokens.position[sinks].tolist()),
        "sink_tokens": most_common(named),
    }


def most_common(names: Iterable[Hashable]) -> str:
    """Return name → count as JSON text, most common first, ties in order of their first appearance."""
    counts = Counter(names).most_common()
    named, others = dict(counts[:MOST_NAMED]), sum(count for _, count in counts[MOST_NAMED:])
    return json.dumps(named | ({"other": others} if others else {}), ensure_ascii=False)


def _name(token: int, tokens: Tokens) -> str:
    return repr(tokens.texts[token]) if token in tokens.texts else str(token)


FEW_TYPES = 256  # under which TwoNN's standard error, d/√n, is over d/16


@dataclass(frozen=True, slots=True)
class UniqueRows:
    """The first m unique rows of each draw of a choice, in row order, the same m for every draw.

    m is `rows_per_draw`, or the unique rows of the draw that has the fewest.

    Attributes
    ----------
    rows : all rows of the layer
    index : label of each of the K draws, ascending → (m,) which of `rows`, ascending
    size : m
    duplicate_share : (K,), of the rows of a draw, those that repeat another of it
    flag : says where m is less than `rows_per_draw`, and where a draw has few types of token; empty elsewhere
    """

    rows: Rows
    index: Mapping[int, np.ndarray]
    size: int
    duplicate_share: np.ndarray
    flag: str

    def clouds(self) -> Iterator[np.ndarray]:
        """Yield the rows (m, d) of each draw, as they are stored; one draw is in memory at a time."""
        return (self.rows.take(index) for index in self.index.values())


def unique_rows_by_draw(layer: Layer) -> dict[str, UniqueRows]:
    """Find the unique rows of each choice that a layer keeps, by name; one draw is in memory at a time."""
    anywhere = np.logical_or.reduce(list(layer.kept.values()))
    index: dict[str, dict[int, np.ndarray]] = {name: {} for name in layer.kept}
    shares: dict[str, list[float]] = {name: [] for name in layer.kept}
    for draw in np.unique(layer.draw[anywhere]):
        own = np.flatnonzero(anywhere & (layer.draw == draw))
        first = first_occurrences(layer.rows.take(own))
        for name, kept in layer.kept.items():
            if kept[own].any():
                inside = own[kept[own]]
                _, unique = np.unique(first[kept[own]], return_index=True)
                index[name][int(draw)] = inside[np.sort(unique)]
                shares[name].append(1 - len(unique) / len(inside))
    return {name: _capped(name, layer, found, np.array(shares[name])) for name, found in index.items()}


def _capped(name: str, layer: Layer, unique: Mapping[int, np.ndarray], shares: np.ndarray) -> UniqueRows:
    wanted, fewest = layer.rows_per_draw.get(name), min(map(len, unique.values()))
    size = fewest if wanted is None else min(wanted, fewest)
    flag = f"few types: {size} per draw" if name == "one_per_type" and size < FEW_TYPES else ""
    if wanted is not None and fewest < wanted:
        flag = f"fewer unique rows: {fewest} of {wanted} per draw"
    return UniqueRows(layer.rows, {draw: index[:size] for draw, index in unique.items()}, size, shares, flag)
