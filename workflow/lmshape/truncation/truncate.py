"""How many directions of the residual stream a decoder needs: its loss with only some of them, layer by layer."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, nan
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lmshape.errors import InputError
from lmshape.geometry.checks import lengths
from lmshape.geometry.rows import sinks_by_norm
from lmshape.models.batch_size import starting_tokens
from lmshape.models.network import Kind, Network
from lmshape.models.opened import Opening, opened
from lmshape.models.passes import read_all
from lmshape.models.residual import ResidualStream, Take, run
from lmshape.site import Site
from lmshape.store.hdf5 import Attributes
from lmshape.store.tokens import Tokens
from lmshape.truncation.file import Measured, Truncation, write_truncation
from lmshape.truncation.projection import (
    VARIANTS,
    Losses,
    MomentsByDraw,
    PrincipalAxes,
    Projections,
    Sequences,
    Variant,
    first_sequences,
    principal_axes,
)
from lmshape.truncation.ranks import kept_ranks, layers_at_once, next_rank, removed_ranks


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What is tried at every layer.

    Attributes
    ----------
    rows : which rows are projected: `all`, `no_sink`
    ranks, removed : ranks of the projection, and numbers of leading axes that are taken out; None: see `ranks`
    """

    rows: Sequence[str]
    ranks: Sequence[int] | None = None
    removed: Sequence[int] | None = None

    def grid(self, variant: Variant, width: int) -> list[int]:
        """Ranks that are measured whatever comes of them."""
        return kept_ranks(width, self.ranks) if variant == "keep" else removed_ranks(width, self.removed)


def truncated_layer(
    losses: Losses,
    moments: MomentsByDraw,
    *,
    layer: int,
    sinks: np.ndarray,
    trial: Trial,
    device: torch.device,
) -> Iterator[Measured]:
    """Yield the losses at every rank; `losses` has turned to the layer.

    Parameters
    ----------
    losses : of the network behind the layer
    moments : of the layer's rows
    layer : for the results
    sinks : (n,) bool: rows that `no_sink` neither fits axes on nor projects
    trial : what is tried
    device : where matrices are diagonalized
    """
    for rows in trial.rows:
        projected = ~sinks if rows == "no_sink" else np.ones_like(sinks)
        fitted = {draw: principal_axes(moments.without(draw, rows), device) for draw in losses.draws}
        yield from _Curve(losses, projected, fitted, layer=layer, rows=rows).measured(trial)


def not_measured(trial: Trial, *, layer: int, width: int, draws: int, reason: str) -> Iterator[Measured]:
    """Yield the ranks of the grid without numbers, and why."""
    for rows in trial.rows:
        for variant in VARIANTS:
            for rank in trial.grid(variant, width):
                place = {"layer": layer, "rows": rows, "variant": variant, "rank": rank}
                yield Measured(**place, losses=(nan,) * draws, flag=reason)


class _Curve:
    """Losses over ranks at one layer for one choice of rows."""

    def __init__(
        self,
        losses: Losses,
        projected: np.ndarray,
        fitted: dict[int, PrincipalAxes],
        *,
        layer: int,
        rows: str,
    ) -> None:
        self._losses, self._projected = losses, projected
        self._width = len(next(iter(fitted.values())).mean)
        self._fewest = min(one.rows for one in fitted.values())
        self._projections = Projections.of(fitted, losses.device)
        self._place = {"layer": layer, "rows": rows}

    def measured(self, trial: Trial) -> Iterator[Measured]:
        """Yield the grid of both variants, and between the ranks that are kept those that are asked for."""
        flag = self._doubt()
        if self._fewest < 2:
            place = {"layer": self._place["layer"], "width": self._width, "draws": len(self._losses.draws)}
            only = Trial(rows=[self._place["rows"]], ranks=trial.ranks, removed=trial.removed)
            yield from not_measured(only, **place, reason=flag)
            return
        increases: dict[int, float] = {}
        waiting = trial.grid("keep", self._width)
        while waiting:
            rank = waiting.pop()
            losses = self._at("keep", rank)
            increases[rank] = float(np.mean(losses - self._losses.whole))
            yield self._row("keep", rank, losses, flag)
            if not waiting and (following := next_rank(increases)) is not None:
                waiting.append(following)
        for rank in trial.grid("remove", self._width):
            yield self._row("remove", rank, self._at("remove", rank), flag)

    def _at(self, variant: Variant, rank: int) -> np.ndarray:
        if variant == "keep" and rank == self._width:
            return self._losses.whole  # nothing is left out
        return self._losses.changed(lambda hidden, one: self._applied(hidden, one, variant, rank))

    def _applied(self, hidden: Tensor, one: Sequences, variant: Variant, rank: int) -> Tensor:
        rows = torch.as_tensor(self._projected[one.index], device=hidden.device)
        draw = torch.as_tensor(one.draw, device=hidden.device)
        return self._projections.applied(hidden, draw, rows, variant=variant, rank=rank)

    def _row(self, variant: Variant, rank: int, losses: np.ndarray, flag: str) -> Measured:
        wrong = "" if all(map(isfinite, losses)) else "not finite: loss"
        reasons = "; ".join(filter(None, [wrong, flag]))
        numbers = tuple(map(float, losses))
        return Measured(**self._place, variant=variant, rank=rank, losses=numbers, flag=reasons)

    def _doubt(self) -> str:
        if self._fewest < 2:
            return f"too few rows: {self._fewest} to fit axes on; 2 needed"
        if self._fewest <= self._width:
            return f"few rows: axes beyond {self._fewest - 1} are arbitrary, fitted on {self._fewest} rows"
        return ""


Use = Callable[[np.ndarray, Site, np.ndarray], None]


class LayerReader:
    """Passes over all tokens of a cell, head left out, that give the rows of some sites in float32.

    Parameters
    ----------
    network, stream : a decoder and its residual stream
    tokens : the n tokens
    batch_tokens : most tokens of a batch
    """

    def __init__(
        self, network: Network, stream: ResidualStream, tokens: Tokens, *, batch_tokens: int
    ) -> None:
        self._network, self._stream, self._tokens = network, stream, tokens
        self._batch_tokens = batch_tokens

    def read(self, sites: Sequence[Site], use: Use) -> None:
        """Give index (m,), site and rows (m, d) float32 to `use`, each row of the sites once."""
        wanted = set(sites)

        def one_pass(rows: np.ndarray, take: Take) -> None:
            ids = torch.as_tensor(self._tokens.ids[rows], dtype=torch.int64, device=self._network.device)
            with torch.inference_mode(), self._stream.observed(take):
                run(self._network.model.base_model, ids)

        def write(rows: np.ndarray, site: Site, hidden: Tensor) -> None:
            if site in wanted:
                use(rows.reshape(-1), site, hidden.reshape(rows.size, -1).float().cpu().numpy())

        read_all(self._tokens, self._batch_tokens, read=one_pass, write=write, device=self._network.device)


def layer_norms(reader: LayerReader, sites: Sequence[Site], count: int) -> dict[Site, np.ndarray]:
    """Return the Euclidean norms (n,) float64 of the rows of each site; not finite where a row is not."""
    norms = {site: np.empty(count) for site in sites}

    def use(index: np.ndarray, site: Site, rows: np.ndarray) -> None:
        norms[site][index] = lengths(rows)

    reader.read(sites, use)
    return norms


def moments_by_layer(
    reader: LayerReader, sinks: Mapping[Site, np.ndarray], draw: np.ndarray, width: int
) -> Iterator[tuple[Site, MomentsByDraw]]:
    """Yield the moments of each site, in a pass for as many of them as are held at a time.

    Parameters
    ----------
    reader : of the rows
    sinks : site → (n,) bool
    draw : (n,) the draw of each row
    width : d
    """
    held = layers_at_once(width, len(np.unique(draw)))
    sites = list(sinks)
    for first in range(0, len(sites), held):
        sums = {site: MomentsByDraw(width, draw, sinks[site]) for site in sites[first : first + held]}
        reader.read(list(sums), lambda index, site, rows, sums=sums: sums[site].update(index, rows))
        while sums:  # each is let go as soon as it is done with
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
    batch_tokens: int | str = "auto",
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
    output : file to write, see `lmshape.truncation.file`
    attributes : what is known of the cell
    trial : choices of rows, ranks
    sequences : of each draw, whose loss is measured
    batch_tokens : most tokens of a batch, as in `lmshape.models.extract`

    Raises
    ------
    InputError
        For an encoder, one draw, no sequence, and for what `opened` refuses.
    """
    _check(opening.kind, tokens, sequences)
    with opened(checkpoint, tokens, opening, output=output) as (network, stream, facts):
        truncation = truncations(
            network, stream, tokens, trial=trial, sequences=sequences, batch_tokens=batch_tokens
        )
    known = {**attributes, **facts, "sequences": sequences, **truncation.attributes}
    write_truncation(output, replace(truncation, attributes=known))


def truncations(
    network: Network,
    stream: ResidualStream,
    tokens: Tokens,
    *,
    trial: Trial,
    sequences: int,
    batch_tokens: int | str,
) -> Truncation:
    """Measure a network that is loaded; see `truncate`."""
    sites = [site for site in stream.sites if site.name != "final_norm"]
    shape = {"blocks": len(stream.blocks), "width": stream.width}
    if network.no_loss:
        return _without_head(network, tokens, sites, trial, shape)
    on_gpu = network.device.type not in ("cpu", "mps")
    vocabulary = network.model.get_input_embeddings().num_embeddings
    most = starting_tokens(batch_tokens, vocabulary=vocabulary, on_gpu=on_gpu)
    chosen = first_sequences(tokens, sequences)
    losses = Losses(network, stream, tokens, chosen=chosen, batch_tokens=most)
    reader = LayerReader(network, stream, tokens, batch_tokens=most)
    measured = list(_layers(losses, reader, sites, tokens, trial=trial, width=stream.width))
    return Truncation(
        attributes=shape,
        tokens=tuple(map(int, losses.tokens)),
        whole=tuple(map(float, losses.whole)),
        measured=tuple(_in_order(measured, trial)),
    )


def _layers(
    losses: Losses, reader: LayerReader, sites: Sequence[Site], tokens: Tokens, *, trial: Trial, width: int
) -> Iterator[Measured]:
    norms = layer_norms(reader, sites, len(tokens.ids))
    draws = len(losses.draws)
    finite = np.isfinite(losses.whole).all()
    for site in sites:
        wrong = np.count_nonzero(~np.isfinite(norms[site]))
        if wrong or not finite:
            reason = f"not finite: {wrong} of {len(tokens.ids)} rows" if wrong else "not finite: whole loss"
            yield from not_measured(trial, layer=site.layer, width=width, draws=draws, reason=reason)
    sinks = {
        site: sinks_by_norm(norms[site], tokens.position)
        for site in sites
        if finite and np.isfinite(norms[site]).all()
    }
    for site, moments in moments_by_layer(reader, sinks, tokens.draw, width):
        started = time.monotonic()
        is_short = losses.behind(site)
        place = {"layer": site.layer, "sinks": sinks[site]}
        rows = list(truncated_layer(losses, moments, **place, trial=trial, device=losses.device))
        seconds = time.monotonic() - started
        _tell(f"truncation: {site.path}, {len(rows)} ranks in {seconds:.1f} s", is_short)
        yield from rows


def _without_head(
    network: Network, tokens: Tokens, sites: Sequence[Site], trial: Trial, shape: Attributes
) -> Truncation:
    """Return what is left to say of a checkpoint whose loss nobody can tell."""
    draws = len(np.unique(tokens.draw))
    missing = [
        one
        for site in sites
        for one in not_measured(
            trial, layer=site.layer, width=shape["width"], draws=draws, reason=network.no_loss
        )
    ]
    nothing = {"tokens": (0,) * draws, "whole": (nan,) * draws}
    return Truncation(attributes=shape, measured=tuple(_in_order(missing, trial)), **nothing)


def _in_order(measured: Sequence[Measured], trial: Trial) -> list[Measured]:
    rows = list(trial.rows)
    key = lambda one: (one.layer, rows.index(one.rows), VARIANTS.index(one.variant), one.rank)  # noqa: E731
    return sorted(measured, key=key)


def _check(kind: Kind, tokens: Tokens, sequences: int) -> None:
    if kind != "decoder":
        raise InputError(
            f"`kind` is {kind}: a truncation is measured by the loss of the next token, which only decoders have. "
            "Leave the model out of it."
        )
    draws = len(np.unique(tokens.draw))
    if draws < 2:
        raise InputError(
            f"`tokens` has {draws} draw; axes are fitted on the others, so that 2 are needed, and the intervals are "
            "better with 5. Raise `draws` under `sampling`."
        )
    if sequences < 1:
        raise InputError(f"`sequences` is {sequences}; it must be at least 1.")


def _tell(line: str, is_short: bool) -> None:
    way = "" if is_short else ", in whole passes: blocks behind take more than the hidden state"
    print(f"{line}{way}", file=sys.stderr, flush=True)
