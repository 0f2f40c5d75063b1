"""What principal axes are fitted on: norms and moments of each layer's rows, from passes over all tokens of a cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from lmshape.extraction.passes import read_all
from lmshape.geometry.lengths import lengths
from lmshape.networks.network import Network
from lmshape.networks.residual import ResidualStream, Take, run
from lmshape.store import Site
from lmshape.texts.tokens import Tokens
from lmshape.truncation.moment_memory import layers_at_once
from lmshape.truncation.principal_axes import MomentsByDraw

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
