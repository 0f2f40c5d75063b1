"""The loss of a few sequences again and again, the residual stream behind one layer being another each time.

Only the blocks behind the layer are computed, from states kept of one whole pass, where that gives the whole pass's
loss; where it does not, every pass is a whole one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lmshape.extraction.loss import next_token_nll, predictable
from lmshape.extraction.passes import read_all
from lmshape.networks.devices import is_out_of_memory
from lmshape.networks.interventions import Shortcut, replaced
from lmshape.networks.network import Network
from lmshape.networks.residual import ResidualStream, Take, run
from lmshape.store import Site
from lmshape.texts.tokens import Tokens

ROUNDING = 1e-5  # nats a token: what another way of computing the same may change

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


class Losses:
    """Losses of a network on some sequences, by draw.

    Parameters
    ----------
    network, stream : a decoder and its residual stream
    tokens : all n tokens of a cell
    chosen : (n,) bool: tokens of the sequences that are read, whole ones
    batch_tokens : most tokens of a batch; where memory runs out in the first pass, batches are smaller

    Attributes
    ----------
    device : of the ids
    tokens : (K,) predicted tokens of each draw
    whole : (K,) loss of each draw, the network being as it is
    """

    def __init__(
        self,
        network: Network,
        stream: ResidualStream,
        tokens: Tokens,
        *,
        chosen: np.ndarray,
        batch_tokens: int,
    ) -> None:
        self._network, self._stream, self.device = network, stream, network.device
        self._draws = np.unique(tokens.draw)
        self._batches = self._fitting(tokens, np.flatnonzero(chosen), batch_tokens)
        self._shortcut = Shortcut.of(stream, network.model, self._batches[0].ids[:1])
        self._site, self._states, self._is_short = None, [], False
        counts = sum(np.bincount(_draws_of(one), minlength=self._draws[-1] + 1) for one in self._batches)
        self.tokens = counts[self._draws]
        self.whole = self._by_draw(self._nll)

    @property
    def draws(self) -> list[int]:
        """The K draws, ascending."""
        return self._draws.tolist()

    def behind(self, site: Site) -> bool:
        """Turn to a site, in a pass; return whether the way from there is the short one."""
        self._site = site
        self._states = []  # those of the site before go first, so that never two layers' are held
        self._states = [self._state(one) for one in self._batches]
        self._is_short = True
        self._is_short = self._gives_the_whole()
        if not self._is_short:
            self._states = []
        return self._is_short

    def _gives_the_whole(self) -> bool:
        """Whether the short way, with nothing changed, comes to the loss of the whole pass."""
        try:
            short = self.changed(lambda hidden, one: hidden.clone())
        except IN_VAIN as error:
            if is_out_of_memory(error):
                raise
            return False
        return bool(np.allclose(short, self.whole, rtol=0, atol=ROUNDING, equal_nan=True))

    def changed(self, change: Changed) -> np.ndarray:
        """Return the loss of each draw, (K,) nats a token, with another state behind the site.

        `change` makes a new tensor of a hidden state and its batch.
        """
        if not self._is_short:
            return self._by_draw(lambda one: self._nll_through(one, change))
        of = dict(zip(map(id, self._batches), self._states, strict=True))
        return self._by_draw(lambda one: self._nll_from(one, change(of[id(one)], one)))

    def _nll_from(self, one: Sequences, state: Tensor) -> Tensor:
        with self._shortcut.resumed(self._site, state):
            return self._nll(one)

    def _nll_through(self, one: Sequences, change: Changed) -> Tensor:
        with replaced(self._stream, self._site, lambda hidden: change(hidden, one)):
            return self._nll(one)

    def _nll(self, one: Sequences) -> Tensor:
        return next_token_nll(run(self._network.model, one.ids).logits, one.ids)

    def _state(self, one: Sequences) -> Tensor:
        kept: list[Tensor] = []

        def take(site: Site, hidden: Tensor) -> None:
            if site == self._site:
                kept.append(hidden.clone())

        with torch.inference_mode(), self._stream.observed(take):
            run(self._network.model.base_model, one.ids)
        return kept[0]

    @torch.inference_mode()
    def _by_draw(self, nll: Callable[[Sequences], Tensor]) -> np.ndarray:
        sums = np.zeros(self._draws[-1] + 1)
        for one in self._batches:
            values = nll(one).cpu().numpy()[one.predicted].astype(np.float64)
            sums += np.bincount(_draws_of(one), weights=values, minlength=len(sums))
        return sums[self._draws] / self.tokens

    def _fitting(self, tokens: Tokens, rows: np.ndarray, batch_tokens: int) -> list[Sequences]:
        """Batches that a whole pass gets through."""
        read: list[Sequences] = []
        predicted = predictable(tokens)

        def attempt(index: np.ndarray, take: Take) -> None:
            index = rows[index]
            ids = torch.as_tensor(tokens.ids[index], dtype=torch.int64, device=self._network.device)
            one = Sequences(index, ids, predicted[index], tokens.draw[index[:, 0]])
            with torch.inference_mode():
                self._nll(one)
            read.append(one)

        some = _only(tokens, rows)
        read_all(some, batch_tokens, read=attempt, write=_nothing, device=self._network.device)
        return read


def _draws_of(one: Sequences) -> np.ndarray:
    """Return the draw of each token that counts."""
    return np.broadcast_to(one.draw[:, None], one.predicted.shape)[one.predicted]


def _only(tokens: Tokens, rows: np.ndarray) -> Tokens:
    """Tokens of some rows, for their lengths and order."""
    columns = {
        name: getattr(tokens, name)[rows] for name in ("ids", "sequence", "position", "draw", "special")
    }
    return Tokens(**columns, sequence_bytes=tokens.sequence_bytes, attributes=tokens.attributes)


def _nothing(rows: np.ndarray, site: Site, hidden: Tensor) -> None:
    """Keep nothing: a loss is all that is wanted."""


def first_sequences(tokens: Tokens, most: int) -> np.ndarray:
    """(n,) bool: the first sequences of each draw, at most so many."""
    sequence, starts = np.unique(tokens.sequence, return_index=True)
    draw = tokens.draw[starts]
    firsts: Sequence[np.ndarray] = [sequence[draw == one][:most] for one in np.unique(draw)]
    return np.isin(tokens.sequence, np.concatenate(firsts))
