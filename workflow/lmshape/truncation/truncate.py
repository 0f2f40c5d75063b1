"""Measure the loss of a decoder with only some directions of its residual stream, layer by layer."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import nan
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lmshape.geometry.checks import lengths
from lmshape.geometry.rows import sinks_by_norm
from lmshape.models.extract import read_all
from lmshape.models.network import Network
from lmshape.models.opened import Opening, opened
from lmshape.models.residual import ResidualStream, Take, run
from lmshape.site import Site
from lmshape.store.hdf5 import Attributes
from lmshape.store.tokens import Tokens
from lmshape.tables.columns import joined
from lmshape.truncation.projection import (
    VARIANTS,
    Losses,
    MomentsByDraw,
    Projections,
    Sequences,
    Variant,
    first_sequences,
    principal_axes,
)
from lmshape.truncation.ranks import kept_ranks, layers_at_once, next_rank, removed_ranks
from lmshape.truncation.tables import TruncatedLoss, Truncation, write_truncation


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """The ranks to try at every layer.

    Attributes
    ----------
    rows : which rows are projected: `all`, `no_sink`
    ranks, removed : ranks of the projection, and numbers of leading axes that are taken out; None: see `ranks`
    """

    rows: Sequence[str]
    ranks: Sequence[int] | None = None
    removed: Sequence[int] | None = None

    def grid(self, variant: Variant, width: int) -> list[int]:
        """Ranks that are always measured."""
        return kept_ranks(width, self.ranks) if variant == "keep" else removed_ranks(width, self.removed)

    def not_measured(self, layer: int, *, width: int, draws: int, reason: str) -> Iterator[TruncatedLoss]:
        """Yield the ranks of the grid at a layer without numbers, and why."""
        for rows in self.rows:
            for variant in VARIANTS:
                for rank in self.grid(variant, width):
                    yield TruncatedLoss(
                        layer=layer,
                        rows=rows,
                        variant=variant,
                        rank=rank,
                        losses=(nan,) * draws,
                        flag=reason,
                    )

    def place(self, one: TruncatedLoss) -> tuple[int, int, str, int]:
        """Sort key of the ranks of a file; `keep` comes before `remove`."""
        return one.layer, self.rows.index(one.rows), one.variant, one.rank


Use = Callable[[np.ndarray, Site, np.ndarray], None]


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

    def read(self, sites: Collection[Site], use: Use) -> None:
        """Give index (m,), site and rows (m, d) float32 to `use`, each row of the sites once."""

        def one_pass(rows: np.ndarray, take: Take) -> None:
            ids = torch.as_tensor(self.tokens.ids[rows], dtype=torch.int64, device=self.network.device)
            with torch.inference_mode(), self.stream.observed(take):
                run(self.network.model.base_model, ids)

        def write(rows: np.ndarray, site: Site, hidden: Tensor) -> None:
            if site in sites:
                use(rows.reshape(-1), site, hidden.reshape(rows.size, -1).float().cpu().numpy())

        read_all(self.tokens, self.batch_tokens, read=one_pass, write=write, device=self.network.device)

    def norms(self, sites: Sequence[Site]) -> dict[Site, np.ndarray]:
        """Return the Euclidean norms (n,) float64 of the rows of each site; not finite where a row is not."""
        norms = {site: np.empty(len(self.tokens.ids)) for site in sites}

        def use(index: np.ndarray, site: Site, rows: np.ndarray) -> None:
            norms[site][index] = lengths(rows)

        self.read(sites, use)
        return norms

    def moments(self, sinks: Mapping[Site, np.ndarray]) -> Iterator[tuple[Site, MomentsByDraw]]:
        """Yield the moments of each site, in a pass for as many of them as are held at a time.

        `sinks` : site → (n,) bool
        """
        draw, width = self.tokens.draw, self.stream.width
        held = layers_at_once(width, len(np.unique(draw)))
        sites = list(sinks)
        for first in range(0, len(sites), held):
            sums = {site: MomentsByDraw(width, draw, sinks[site]) for site in sites[first : first + held]}

            def use(
                index: np.ndarray, site: Site, rows: np.ndarray, sums: dict[Site, MomentsByDraw] = sums
            ) -> None:
                sums[site].update(index, rows)

            self.read(sums, use)
            while sums:  # each is freed once it has been used
                site = next(iter(sums))
                yield site, sums.pop(site)


def truncate(
    checkpoint: Path,
    tokens: Tokens,
    *,
    opening: Opening,
    output: Path,
    attributes: Attributes,
    trial: Trial,
    sequences: int,
) -> None:
    """Write the losses of one cell with the residual stream truncated behind each layer, embedding to last block.

    Behind a layer x becomes μ + P(x − μ), P the projection on the r leading principal axes (`keep`), or x − P(x − μ)
    (`remove`). μ and axes are those of the other draws' rows at that layer, in float64; the projection is float32.
    With `no_sink` the rows that `lmshape.geometry.rows` finds are neither fitted nor projected.

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
    trial : choices of rows, ranks
    sequences : of each draw, whose loss is measured
    """
    with opened(checkpoint, tokens, opening, output=output) as (network, stream, most, facts):
        truncation = truncations(network, stream, tokens, trial=trial, sequences=sequences, batch_tokens=most)
    known = {**attributes, **facts, "sequences": sequences, **truncation.attributes}
    write_truncation(output, replace(truncation, attributes=known))


def truncations(
    network: Network,
    stream: ResidualStream,
    tokens: Tokens,
    *,
    trial: Trial,
    sequences: int,
    batch_tokens: int,
) -> Truncation:
    """Measure a network that is loaded, at most `batch_tokens` at a time; see `truncate`."""
    sites = [site for site in stream.sites if site.name != "final_norm"]
    shape = {"blocks": len(stream.blocks), "width": stream.width}
    draws = len(np.unique(tokens.draw))
    if network.no_loss:
        lost = partial(trial.not_measured, width=stream.width, draws=draws, reason=network.no_loss)
        missing = [one for site in sites for one in lost(site.layer)]
        return Truncation(
            attributes=shape, tokens=(0,) * draws, whole=(nan,) * draws, measured=tuple(missing)
        )
    chosen = first_sequences(tokens, sequences)
    losses = Losses(network, stream, tokens, chosen=chosen, batch_tokens=batch_tokens)
    reader = LayerReader(network, stream, tokens, batch_tokens)
    return Truncation(
        attributes=shape,
        tokens=tuple(map(int, losses.tokens)),
        whole=tuple(map(float, losses.whole)),
        measured=tuple(sorted(_layers(losses, reader, sites, trial), key=trial.place)),
    )


def _layers(
    losses: Losses, reader: LayerReader, sites: Sequence[Site], trial: Trial
) -> Iterator[TruncatedLoss]:
    tokens = reader.tokens
    whole = np.isfinite(losses.whole).all()
    sinks: dict[Site, np.ndarray] = {}
    for site, norms in reader.norms(sites).items():
        wrong = np.count_nonzero(~np.isfinite(norms))
        if whole and not wrong:
            sinks[site] = sinks_by_norm(norms, tokens.position)
            continue
        reason = f"not finite: {wrong} of {len(tokens.ids)} rows" if wrong else "not finite: whole loss"
        draws = len(losses.draws)
        yield from trial.not_measured(site.layer, width=reader.stream.width, draws=draws, reason=reason)
    for site, moments in reader.moments(sinks):
        started = time.monotonic()
        is_short = losses.behind(site)
        found = [one for rows in trial.rows for one in _at(site, losses, moments, sinks[site], rows, trial)]
        yield from found
        way = "" if is_short else ", in whole passes: blocks behind take more than the hidden state"
        seconds = time.monotonic() - started
        print(
            f"truncation: {site.path}, {len(found)} ranks in {seconds:.1f} s{way}",
            file=sys.stderr,
            flush=True,
        )


def _at(
    site: Site, losses: Losses, moments: MomentsByDraw, sinks: np.ndarray, rows: str, trial: Trial
) -> Iterator[TruncatedLoss]:
    """Yield the losses for a choice of rows: the grid of both variants, and the ranks between that are asked for.

    `losses` has turned to the site; each draw is projected on the axes of the others.
    """
    fitted = {draw: principal_axes(moments.without(draw, rows), losses.device) for draw in losses.draws}
    width = len(next(iter(fitted.values())).mean)
    fewest = min(one.rows for one in fitted.values())
    if fewest < 2:
        reason = f"too few rows: {fewest} to fit axes on; 2 needed"
        only, draws = replace(trial, rows=[rows]), len(losses.draws)
        yield from only.not_measured(site.layer, width=width, draws=draws, reason=reason)
        return
    few = f"few rows: axes beyond {fewest - 1} are arbitrary, fitted on {fewest} rows"
    projections = Projections.of(fitted, losses.device)
    projected = ~sinks if rows == "no_sink" else np.ones_like(sinks)

    def row(variant: Variant, rank: int) -> TruncatedLoss:
        if variant == "keep" and rank == width:  # with all axes nothing is left out
            found = losses.whole
        else:
            found = losses.changed(partial(_projected, projections, projected, variant=variant, rank=rank))
        wrong = "" if np.isfinite(found).all() else "not finite: loss"
        return TruncatedLoss(
            layer=site.layer,
            rows=rows,
            variant=variant,
            rank=rank,
            losses=tuple(map(float, found)),
            flag=joined(wrong, few if fewest <= width else ""),
        )

    increases: dict[int, float] = {}
    waiting = trial.grid("keep", width)
    while waiting:
        rank = waiting.pop()
        kept = row("keep", rank)
        increases[rank] = float(np.mean(np.subtract(kept.losses, losses.whole)))
        yield kept
        if not waiting and (following := next_rank(increases)) is not None:
            waiting.append(following)
    yield from (row("remove", rank) for rank in trial.grid("remove", width))


def _projected(
    projections: Projections,
    chosen: np.ndarray,
    hidden: Tensor,
    one: Sequences,
    *,
    variant: Variant,
    rank: int,
) -> Tensor:
    """Project the chosen rows of a hidden state; `chosen`: (n,) bool."""
    rows = torch.as_tensor(chosen[one.index], device=hidden.device)
    draw = torch.as_tensor(one.draw, device=hidden.device)
    return projections.applied(hidden, draw, rows, variant=variant, rank=rank)
