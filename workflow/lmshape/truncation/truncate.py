"""Measure the loss of a decoder with only some directions of its residual stream, layer by layer.

Behind a layer x becomes μ + P(x − μ), P the projection on the r leading principal axes (`keep`), or x − P(x − μ)
(`remove`). μ and axes of a draw are those of the other draws' rows there, in float64; the projection is float32.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from math import nan
from operator import attrgetter
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lmshape.geometry.checks import lengths
from lmshape.geometry.rows import sinks_by_norm
from lmshape.geometry.spectrum import CovarianceSums
from lmshape.models.extract import next_token_nll, predictable, read_all
from lmshape.models.network import Network, memory_ran_out
from lmshape.models.opened import Opening, opened
from lmshape.models.residual import ResidualStream, Shortcut, Take, replaced, run
from lmshape.site import Site
from lmshape.store.hdf5 import Attributes
from lmshape.store.tokens import Tokens
from lmshape.tables.columns import joined
from lmshape.truncation.ranks import kept_ranks, layers_at_once, next_rank, removed_ranks
from lmshape.truncation.tables import TruncatedLoss, Truncation, write_truncation

Variant = Literal["keep", "remove"]
VARIANTS: tuple[Variant, ...] = ("keep", "remove")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What is tried at every layer.

    Attributes
    ----------
    rows : which rows are projected: `all`, `no_sink`; of `no_sink` the rows that `lmshape.geometry.rows` finds are
        neither fitted nor projected
    sequences : of each draw, whose loss is measured
    ranks, removed : ranks of the projection, and numbers of leading axes that are taken out; None: see `ranks`
    """

    rows: Sequence[str]
    sequences: int
    ranks: Sequence[int] | None = None
    removed: Sequence[int] | None = None

    def grid(self, variant: Variant, width: int) -> list[int]:
        """Ranks that are always measured."""
        return kept_ranks(width, self.ranks) if variant == "keep" else removed_ranks(width, self.removed)

    def not_measured(self, layer: int, reader: LayerReader, reason: str) -> Iterator[TruncatedLoss]:
        """Yield the ranks of the grid at a layer without numbers, and why."""
        lost = (nan,) * reader.draws
        for rows, variant in product(self.rows, VARIANTS):
            for rank in self.grid(variant, reader.stream.width):
                yield TruncatedLoss(
                    layer=layer, rows=rows, variant=variant, rank=rank, losses=lost, flag=reason
                )


def truncate(
    checkpoint: Path, tokens: Tokens, *, opening: Opening, output: Path, attributes: Attributes, trial: Trial
) -> None:
    """Write the losses of one cell with the residual stream truncated behind each layer, embedding to last block.

    Time: as many passes as ranks, 30 to 50 a layer and choice of rows, over `sequences` sequences of each draw, and of
    each pass the blocks behind the layer. Memory: the weights, one batch with its logits, 1 GiB of moments, the
    sequences' states behind one layer, the axes of each draw.

    Parameters
    ----------
    checkpoint : folder of the weights
    tokens : of the cell; at least two draws
    opening : how the checkpoint is opened; its `kind` must be `decoder`
    output : file to write, see `lmshape.truncation.tables`
    attributes : what is known of the cell
    trial : choices of rows, ranks, sequences
    """
    with opened(checkpoint, tokens, opening, output=output) as (network, stream, most, facts):
        truncation = truncations(LayerReader(network, stream, tokens, most), trial)
    known = {**attributes, **facts, "sequences": trial.sequences, **truncation.attributes}
    write_truncation(output, replace(truncation, attributes=known))


def truncations(reader: LayerReader, trial: Trial) -> Truncation:
    """Measure a network that is loaded; see `truncate`."""
    shape = {"blocks": len(reader.stream.blocks), "width": reader.stream.width}
    sites = [site for site in reader.stream.sites if site.name != "final_norm"]
    reason = reader.network.no_loss
    if reason:
        lost = [one for site in sites for one in trial.not_measured(site.layer, reader, reason)]
        draws = reader.draws
        return Truncation(attributes=shape, tokens=(0,) * draws, whole=(nan,) * draws, measured=tuple(lost))
    losses = Losses(reader, trial.sequences)
    measured = sorted(_layers(losses, sites, trial), key=attrgetter("layer", "rows", "variant", "rank"))
    return Truncation(
        attributes=shape,
        tokens=tuple(losses.tokens.tolist()),
        whole=tuple(losses.whole.tolist()),
        measured=tuple(measured),
    )


def _layers(losses: Losses, sites: Sequence[Site], trial: Trial) -> Iterator[TruncatedLoss]:
    reader, sinks = losses.reader, dict[Site, np.ndarray]()
    whole = np.isfinite(losses.whole).all()
    for site, norms in reader.norms(sites).items():
        wrong = np.count_nonzero(~np.isfinite(norms))
        if whole and not wrong:
            sinks[site] = sinks_by_norm(norms, reader.tokens.position)
            continue
        reason = f"not finite: {wrong} of {len(norms)} rows" if wrong else "not finite: whole loss"
        yield from trial.not_measured(site.layer, reader, reason)
    for site, moments in reader.moments(sinks):
        started = time.monotonic()
        is_short = losses.behind(site)
        found = [one for rows in trial.rows for one in _at(site, losses, moments, sinks[site], rows, trial)]
        yield from found
        way = "" if is_short else ", in whole passes: blocks behind take more than the hidden state"
        seconds = time.monotonic() - started
        told = f"truncation: {site.path}, {len(found)} ranks in {seconds:.1f} s{way}"
        print(told, file=sys.stderr, flush=True)


def _at(
    site: Site, losses: Losses, moments: MomentsByDraw, sinks: np.ndarray, rows: str, trial: Trial
) -> Iterator[TruncatedLoss]:
    """Yield the losses for a choice of rows: the grid of both variants, and the ranks between that are asked for.

    `losses` has turned to the site; each draw is projected on the axes of the others.
    """
    reader, width = losses.reader, losses.reader.stream.width
    fitted = [moments.axes_of_others(draw, rows, reader.network.device) for draw in range(reader.draws)]
    fewest = min(one.rows for one in fitted)
    if fewest < 2:
        reason = f"too few rows: {fewest} to fit axes on; 2 needed"
        yield from replace(trial, rows=[rows]).not_measured(site.layer, reader, reason)
        return
    few = f"few rows: axes beyond {fewest - 1} are arbitrary, fitted on {fewest} rows"
    chosen = ~sinks if rows == "no_sink" else np.ones_like(sinks)

    def row(variant: Variant, rank: int) -> TruncatedLoss:
        def change(hidden: Tensor, one: Sequences) -> Tensor:
            return projected(hidden, fitted, one.draw, chosen[one.index], variant=variant, rank=rank)

        # with all axes nothing is left out
        found = losses.whole if variant == "keep" and rank == width else losses.changed(change)
        wrong = "" if np.isfinite(found).all() else "not finite: loss"
        flag = joined(wrong, few if fewest <= width else "")
        return TruncatedLoss(
            layer=site.layer, rows=rows, variant=variant, rank=rank, losses=tuple(found.tolist()), flag=flag
        )

    kept = {rank: row("keep", rank) for rank in trial.grid("keep", width)}
    while (rank := next_rank({rank: losses.increase(one) for rank, one in kept.items()})) is not None:
        kept[rank] = row("keep", rank)
    yield from kept.values()
    yield from (row("remove", rank) for rank in trial.grid("remove", width))


# ---- The axes, and projections on them -------------------------------------------------------------------------------


class MomentsByDraw:
    """Sums over the rows of a layer, draw by draw, sinks apart: 2 K matrices (d, d) in float64.

    Parameters
    ----------
    width : d
    draw : (n,) integers, the draw of each row
    sinks : (n,) bool
    """

    def __init__(self, width: int, draw: np.ndarray, sinks: np.ndarray) -> None:
        self._width = width
        self._part = 2 * draw.astype(np.int64) + sinks
        self._sums: dict[int, CovarianceSums] = {}

    def update(self, index: np.ndarray, rows: np.ndarray) -> None:
        """Add finite rows (m, d); `index` (m,) says which of the n they are."""
        part = self._part[index]
        for one in np.unique(part):
            self._sums.setdefault(int(one), CovarianceSums(self._width)).update(rows[part == one])

    def axes_of_others(self, draw: int, rows: str, device: torch.device) -> PrincipalAxes:
        """Fit the rows of all other draws, `all` or `no_sink`, in O(d³), on a CUDA GPU if that is the device."""
        others = (
            sums
            for part, sums in sorted(self._sums.items())
            if part // 2 != draw and (rows == "all" or part % 2 == 0)
        )
        sums = CovarianceSums.merged(others, self._width)
        scatter = torch.as_tensor(sums.scatter, device=device if device.type == "cuda" else "cpu")
        _, axes = torch.linalg.eigh(scatter)
        return PrincipalAxes(torch.as_tensor(sums.mean), axes.flip(1), sums.count)


@dataclass(frozen=True, slots=True, eq=False)
class PrincipalAxes:
    """Where a cloud lies, and its directions by variance.

    Attributes
    ----------
    mean : (d,) float64
    axes : (d, d) float64, orthonormal columns, largest variance first; with fewer than d + 1 rows the last ones are any
        that are orthogonal to the rest
    rows : number of rows that they were fitted on
    """

    mean: Tensor
    axes: Tensor
    rows: int


def projected(
    hidden: Tensor,
    fitted: Sequence[PrincipalAxes],
    draw: np.ndarray,
    rows: np.ndarray,
    *,
    variant: Variant,
    rank: int,
) -> Tensor:
    """Project some rows of a hidden state, each on the axes of its draw, in float32.

    Parameters
    ----------
    hidden : (sequences, length, d), any float type; it stays as it is
    fitted : the axes that each draw is projected on
    draw : (sequences,) the draw of each
    rows : (sequences, length) bool: the rows that are projected; all others are copied bit by bit
    variant, rank : keep the `rank` leading axes, or remove them

    Returns
    -------
    A tensor like `hidden`.
    """
    changed = hidden.clone()
    for one in np.unique(draw):
        chosen = torch.as_tensor(rows & (draw == one)[:, None], device=hidden.device)
        x = hidden[chosen].float()
        mean, axes = (numbers.float().to(x.device) for numbers in (fitted[one].mean, fitted[one].axes))
        changed[chosen] = project(x, mean, axes, variant=variant, rank=rank).to(hidden.dtype)
    return changed


def project(x: Tensor, mean: Tensor, axes: Tensor, *, variant: Variant, rank: int) -> Tensor:
    """Return μ + P(x − μ), P the projection on the leading axes (`keep`), or x − P(x − μ) (`remove`).

    To keep more than half of the axes the others are taken out, so that nothing is left to rounding where nothing is
    removed, and all of them give x itself.

    x : (m, d), mean : (d,), axes : (d, d) columns by variance → (m, d), all of one type
    """
    leading, rest = axes[:, :rank], axes[:, rank:]
    if variant == "keep" and leading.shape[1] <= rest.shape[1]:
        return mean + ((x - mean) @ leading) @ leading.T
    out = rest if variant == "keep" else leading
    return x - ((x - mean) @ out) @ out.T if out.shape[1] else x


# ---- Passes through the network --------------------------------------------------------------------------------------

Use = Callable[[np.ndarray, np.ndarray], None]  # takes index (m,) and rows (m, d) float32


@dataclass(frozen=True, slots=True)
class LayerReader:
    """Passes over all tokens of a cell, head left out, that give the rows of some sites in float32.

    Attributes
    ----------
    network, stream : a decoder and its residual stream
    tokens : the n tokens
    batch_tokens : most tokens of a batch
    """

    network: Network
    stream: ResidualStream
    tokens: Tokens
    batch_tokens: int

    @property
    def draws(self) -> int:
        """K."""
        return int(self.tokens.draw.max()) + 1

    def ids(self, rows: np.ndarray) -> Tensor:
        """Return the ids of some tokens, int64, where the network takes them."""
        return torch.as_tensor(self.tokens.ids[rows], dtype=torch.int64, device=self.network.device)

    def read(self, use: Mapping[Site, Use]) -> None:
        """Give each row of some sites once to what uses those of its site."""

        def one_pass(rows: np.ndarray, take: Take) -> None:
            with torch.inference_mode(), self.stream.observed(take):
                run(self.network.model.base_model, self.ids(rows))

        def write(rows: np.ndarray, site: Site, hidden: Tensor) -> None:
            if site in use:
                use[site](rows.reshape(-1), hidden.reshape(rows.size, -1).float().cpu().numpy())

        read_all(self.tokens, self.batch_tokens, read=one_pass, write=write, device=self.network.device)

    def norms(self, sites: Sequence[Site]) -> dict[Site, np.ndarray]:
        """Return the Euclidean norms (n,) float64 of the rows of each site; not finite where a row is not."""
        norms = {site: np.empty(len(self.tokens.ids)) for site in sites}

        def put(own: np.ndarray, index: np.ndarray, rows: np.ndarray) -> None:
            own[index] = lengths(rows)

        self.read({site: partial(put, own) for site, own in norms.items()})
        return norms

    def moments(self, sinks: Mapping[Site, np.ndarray]) -> Iterator[tuple[Site, MomentsByDraw]]:
        """Yield the moments of each site, in a pass for as many of them as are held at a time.

        `sinks` : site → (n,) bool
        """
        sites, width = list(sinks), self.stream.width
        held = layers_at_once(width, self.draws)
        for first in range(0, len(sites), held):
            sums = {
                site: MomentsByDraw(width, self.tokens.draw, sinks[site]) for site in sites[first:][:held]
            }
            self.read({site: own.update for site, own in sums.items()})
            for site in list(sums):
                yield site, sums.pop(site)  # each is freed once it has been used


SHORTCUT_ROUNDING = 1e-5  # nats a token: what another way of computing the same may change

# What a later block may raise that misses something of an earlier one.
IN_VAIN = (RuntimeError, ValueError, TypeError, AttributeError, LookupError)

Changed = Callable[[Tensor, "Sequences"], Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Sequences:
    """A batch: sequences of one length that fit into memory.

    Attributes
    ----------
    index : (sequences, length), which of the n tokens they are
    ids : (sequences, length) int64, where the network takes them
    predicted : (sequences, length) bool: tokens whose loss counts
    draw : (sequences,) the draw of each
    """

    index: np.ndarray
    ids: Tensor
    predicted: np.ndarray
    draw: np.ndarray

    def by_draw(self, draws: int, values: np.ndarray) -> np.ndarray:
        """Sum values (sequences, length) over the predicted tokens of each draw, (K,) float64."""
        draw = np.broadcast_to(self.draw[:, None], self.predicted.shape)[self.predicted]
        return np.bincount(draw, weights=values[self.predicted].astype(np.float64), minlength=draws)


class Losses:
    """Losses of a network on the first sequences of each draw.

    Parameters
    ----------
    reader : the network, and all tokens of the cell; where memory runs out in the first pass, batches are smaller
    sequences : of each draw, at most

    Attributes
    ----------
    tokens : (K,) predicted tokens of each draw
    whole : (K,) loss of each draw, the network being as it is
    """

    def __init__(self, reader: LayerReader, sequences: int) -> None:
        self.reader = reader
        self._batches: list[Sequences] = []
        sums, counts = np.zeros(reader.draws), np.zeros(reader.draws, dtype=np.int64)
        tokens, predicted = reader.tokens, predictable(reader.tokens)
        rows = np.flatnonzero(first_sequences(tokens, sequences))

        def attempt(index: np.ndarray, take: Take) -> None:
            index = rows[index]
            one = Sequences(index, reader.ids(index), predicted[index], tokens.draw[index[:, 0]])
            sums[:] += self._loss(one)
            counts[:] += one.by_draw(self.reader.draws, np.ones(index.shape)).astype(np.int64)
            self._batches.append(one)

        def keep_nothing(rows: np.ndarray, site: Site, hidden: Tensor) -> None: ...

        columns = ("ids", "sequence", "position", "draw", "special")
        part = replace(tokens, **{name: getattr(tokens, name)[rows] for name in columns})
        read_all(part, reader.batch_tokens, read=attempt, write=keep_nothing, device=reader.network.device)
        self.tokens, self.whole = counts, sums / counts
        self._shortcut = Shortcut.of(self.reader.stream, self.reader.network.model, self._batches[0].ids[:1])
        self._site, self._states = self.reader.stream.sites[0], list[Tensor]()

    def behind(self, site: Site) -> bool:
        """Turn to a site, in a pass; return whether the way from there is the short one.

        It is where the short pass with an unchanged state gives the loss of the whole pass.
        """
        self._site = site
        self._states = []  # those of the site before go first, so that never two layers' are held
        self._states = [self._state(one) for one in self._batches]
        try:
            short = self.changed(lambda hidden, one: hidden.clone())
        except IN_VAIN as error:
            if memory_ran_out(error):
                raise
            short = np.full(self.reader.draws, np.inf)
        if not np.allclose(short, self.whole, rtol=0, atol=SHORTCUT_ROUNDING, equal_nan=True):
            self._states = []
        return bool(self._states)

    def changed(self, change: Changed) -> np.ndarray:
        """Return the loss of each draw, (K,) nats a token, with another state behind the site.

        `change` makes a new tensor of a hidden state and its batch.
        """
        sums = np.zeros(self.reader.draws)
        for place, one in enumerate(self._batches):
            with torch.inference_mode(), self._with(change, place):
                sums += self._loss(one)
        return sums / self.tokens

    def increase(self, found: TruncatedLoss) -> float:
        """Return the mean increase of the loss, nats a token."""
        return float(np.mean(np.subtract(found.losses, self.whole)))

    def _with(self, change: Changed, place: int) -> AbstractContextManager[None]:
        """Change the state of a batch in the passes made meanwhile."""
        one = self._batches[place]
        if self._states:
            return self._shortcut.resumed(self._site, change(self._states[place], one))
        return replaced(self.reader.stream, self._site, lambda hidden: change(hidden, one))

    @torch.inference_mode()
    def _loss(self, one: Sequences) -> np.ndarray:
        """Return the sum of the loss of each draw in a batch, (K,) nats."""
        nll = next_token_nll(run(self.reader.network.model, one.ids).logits, one.ids)
        return one.by_draw(self.reader.draws, nll.cpu().numpy())

    def _state(self, one: Sequences) -> Tensor:
        kept: list[Tensor] = []

        def take(site: Site, hidden: Tensor) -> None:
            if site == self._site:
                kept.append(hidden.clone())

        with torch.inference_mode(), self.reader.stream.observed(take):
            run(self.reader.network.model.base_model, one.ids)
        return kept[0]


def first_sequences(tokens: Tokens, most: int) -> np.ndarray:
    """(n,) bool: the first sequences of each draw, at most so many."""
    sequence, starts = np.unique(tokens.sequence, return_index=True)
    draw = tokens.draw[starts]
    firsts = [sequence[draw == one][:most] for one in np.unique(draw)]
    return np.isin(tokens.sequence, np.concatenate(firsts))
