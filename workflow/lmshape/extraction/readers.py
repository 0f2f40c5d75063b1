"""How a network reads a batch: what passes it takes to get the activations and the loss of its tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from lmshape.errors import InputError
from lmshape.extraction.loss import mask, masked_nll, next_token_nll, predictable
from lmshape.networks.network import Kind, Network
from lmshape.networks.residual import ResidualStream, Take, run
from lmshape.texts.tokens import Tokens


class Reader(Protocol):
    """What extraction needs of a network."""

    def predicted(self, tokens: Tokens) -> np.ndarray:
        """(n,) bool: the tokens whose loss counts, the same for every checkpoint."""

    def read(self, ids: Tensor, predicted: Tensor, take: Take) -> Tensor:
        """Give every hidden state to `take`; return the loss of each token.

        ids: (batch, length) int64, predicted: (batch, length) bool → (batch, length) float32 nats, NaN where
        there is none.
        """


@dataclass(frozen=True, slots=True)
class Decoder:
    """Reads from left to right: activations and loss come from the same pass."""

    model: PreTrainedModel
    stream: ResidualStream

    def predicted(self, tokens: Tokens) -> np.ndarray:
        """All but the first token of a sequence and the special ones."""
        return predictable(tokens)

    @torch.inference_mode()
    def read(self, ids: Tensor, predicted: Tensor, take: Take) -> Tensor:
        """Loss of every token given those before it, NaN for the first."""
        with self.stream.observed(take):
            logits = run(self.model, ids).logits
        return next_token_nll(logits, ids)


@dataclass(frozen=True, slots=True)
class Encoder:
    """Reads both ways: activations of the text as it is, loss from a second pass with some tokens masked."""

    model: PreTrainedModel
    stream: ResidualStream
    mask_token_id: int
    seed: int

    def predicted(self, tokens: Tokens) -> np.ndarray:
        """A fixed share of the tokens, chosen by the seed alone."""
        return mask(tokens, self.seed)

    @torch.inference_mode()
    def read(self, ids: Tensor, predicted: Tensor, take: Take) -> Tensor:
        """Loss of the tokens at `predicted`, all of them masked at once; NaN elsewhere."""
        with self.stream.observed(take):
            run(self.model.base_model, ids)
        logits = run(self.model, ids.masked_fill(predicted, self.mask_token_id)).logits
        return masked_nll(logits, ids, predicted)


@dataclass(frozen=True, slots=True)
class Headless:
    """Reads without a head: the checkpoint has none, or not all of it, and random predictions are no loss."""

    model: PreTrainedModel
    stream: ResidualStream

    def predicted(self, tokens: Tokens) -> np.ndarray:
        """Return no token."""
        return np.zeros(len(tokens.ids), dtype=bool)

    @torch.inference_mode()
    def read(self, ids: Tensor, predicted: Tensor, take: Take) -> Tensor:
        """NaN for every token."""
        with self.stream.observed(take):
            run(self.model.base_model, ids)
        return torch.full(ids.shape, torch.nan)


def reader(
    kind: Kind, network: Network, stream: ResidualStream, *, mask_token_id: int | None, seed: int
) -> Reader:
    """Choose the reader of a network; an encoder with a head, but without a mask token of its own, is refused."""
    model = network.model
    if network.absent:
        return Headless(model, stream)
    if kind == "decoder":
        return Decoder(model, stream)
    vocabulary = model.get_input_embeddings().num_embeddings
    if mask_token_id is None or not 0 <= mask_token_id < vocabulary:
        raise InputError(
            f"`mask_token_id` is {mask_token_id}; an encoder's loss needs its tokenizer's mask token, "
            f"an id below {vocabulary}."
        )
    return Encoder(model, stream, mask_token_id, seed)
