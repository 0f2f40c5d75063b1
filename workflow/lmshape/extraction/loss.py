"""Loss per token of a decoder or a masked encoder, and its sums over the draws."""

from __future__ import annotations

from math import nan

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lmshape.store import DrawLoss
from lmshape.texts.tokens import Tokens

MASKED_SHARE = 0.15  # BERT's


def next_token_nll(logits: Tensor, ids: Tensor) -> Tensor:
    """Negative log-likelihood of each token given those before it, nats.

    logits: (batch, length, vocabulary), ids: (batch, length) → (batch, length) float32, NaN at position 0.
    Sequence by sequence: the float32 copy of the logits would otherwise double the memory of a pass.
    """
    nll = torch.full(ids.shape, torch.nan, device=ids.device)
    for values, scores, targets in zip(nll, logits, ids, strict=True):
        values[1:] = cross_entropy(scores[:-1].float(), targets[1:], reduction="none")
    return nll


def masked_nll(logits: Tensor, ids: Tensor, masked: Tensor) -> Tensor:
    """Negative log-likelihood of the masked tokens, nats; NaN at the others.

    logits: (batch, length, vocabulary) of the masked input; ids: (batch, length), what stood there; masked:
    (batch, length) bool.
    """
    nll = torch.full(ids.shape, torch.nan, device=ids.device)
    nll[masked] = cross_entropy(logits[masked].float(), ids[masked], reduction="none")
    return nll


def predictable(tokens: Tokens) -> np.ndarray:
    """(n,) bool: the tokens that a loss covers, all but the first of a sequence and the special ones."""
    return (tokens.position > 0) & ~tokens.special


def mask(tokens: Tokens, seed: int) -> np.ndarray:
    """(n,) bool: 15 % of the predictable tokens; the same ones for every checkpoint, by the seed alone."""
    chosen = np.random.default_rng(seed).random(len(tokens.ids)) < MASKED_SHARE
    return chosen & predictable(tokens)


def loss_by_draw(tokens: Tokens, nll: np.ndarray, *, predicted: np.ndarray) -> list[DrawLoss]:
    """Sum the loss of each draw over the tokens that count, in float64.

    nll: (n,) float32 nats; predicted: (n,) bool. Where only a share of the predictable tokens is predicted,
    as under a mask, they stand for that share of the draw's bytes.
    """
    covered = predictable(tokens)
    _, starts = np.unique(tokens.sequence, return_index=True)
    draws = []
    for draw in np.unique(tokens.draw):
        inside = tokens.draw == draw
        counted = inside & predicted
        share = np.count_nonzero(counted) / max(1, np.count_nonzero(inside & covered))
        text = tokens.sequence_bytes[tokens.draw[starts] == draw].sum()
        nats = nll[counted].sum(dtype=np.float64)
        draws.append(DrawLoss(int(draw), int(np.count_nonzero(counted)), float(nats), float(text * share)))
    return draws


def no_loss(tokens: Tokens) -> list[DrawLoss]:
    """Return the draws of a network that predicts nothing: no token, and no number for their loss."""
    return [DrawLoss(int(draw), 0, nan, 0.0) for draw in np.unique(tokens.draw)]
