"""How many directions of the residual stream a decoder needs: its loss with only some of them, layer by layer."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import nan
from pathlib import Path

import numpy as np

from lmshape.errors import InputError
from lmshape.extraction.batch_size import starting_tokens
from lmshape.extraction.opened import Opening, opened
from lmshape.geometry.sinks import sinks_by_norm
from lmshape.networks.network import Kind, Network
from lmshape.networks.residual import ResidualStream
from lmshape.store import Attributes, Site
from lmshape.texts.tokens import Tokens
from lmshape.truncation.file import Measured, Truncation, write_truncation
from lmshape.truncation.layer import Trial, not_measured, truncated_layer
from lmshape.truncation.layer_moments import LayerReader, layer_norms, moments_by_layer
from lmshape.truncation.projection import VARIANTS
from lmshape.truncation.rest_of_network import Losses, first_sequences


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
    With `no_sink` the rows that `lmshape.geometry.sinks` finds are neither fitted nor projected.

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
    batch_tokens : most tokens of a batch, as in `lmshape.extraction.extract`

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
