"""Forward passes in batches, which shrink if memory runs out, and their loss."""

from __future__ import annotations

import gc
import sys
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import nan

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lmshape.errors import InputError
from lmshape.models.device import is_out_of_memory
from lmshape.models.network import Network
from lmshape.models.residual import ResidualStream, Take, run
from lmshape.site import Site
from lmshape.store.statistics import DrawLoss
from lmshape.store.tokens import Tokens
from lmshape.store.weights import Kind

Read = Callable[[np.ndarray, Take], None]
Write = Callable[[np.ndarray, Site, Tensor], None]
MASKED_SHARE = 0.15  # BERT's
SEEN_AHEAD = 0.02  # of the last row's move: bfloat16 rounds to 0.004, attention over 8 tokens moves others by about 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Sequences of one length, and what is written of them already.

    Attributes
    ----------
    rows : (sequences, length), the rows of the tokens
    written : sites that a pass has given on before memory ran out in it
    """

    rows: np.ndarray
    written: frozenset[Site] = frozenset()

    def split(self, batch_tokens: int) -> Iterator[Batch]:
        """Yield the batch in parts of at most so many tokens, and at least one sequence."""
        size = max(1, batch_tokens // self.rows.shape[1])
        for first in range(0, len(self.rows), size):
            yield Batch(self.rows[first : first + size], self.written)


def read_all(tokens: Tokens, batch_tokens: int, *, read: Read, write: Write, device: torch.device) -> None:
    """Read all tokens; a batch that does not fit is halved and read again, and those behind it are as small.

    Parameters
    ----------
    tokens : what is read
    batch_tokens : most tokens of a batch; a longer sequence is a batch of its own
    read : makes the passes of the tokens at rows (sequences, length) and gives its hidden states to the `take`
        that it gets; when it returns, the batch is done
    write : gets rows, site and hidden state, of every row and site once
    device : for the error message

    Raises
    ------
    InputError
        When memory runs out in a batch of one sequence.
    """
    waiting = deque(map(Batch, batches(tokens, batch_tokens)))
    while waiting:
        unfinished = _attempt(waiting.popleft(), read, write)
        if unfinished is not None:
            _release_memory()
            fitting = _half(unfinished, device) * unfinished.rows.shape[1]
            waiting = deque(part for batch in (unfinished, *waiting) for part in batch.split(fitting))


def batches(tokens: Tokens, batch_tokens: int) -> Iterator[np.ndarray]:
    """Rows of each batch, (sequences, length): sequences of one length, so that nothing is padded.

    The longest come first: memory that does not suffice shows at once.
    """
    _, starts, lengths = np.unique(tokens.sequence, return_index=True, return_counts=True)
    for length in np.unique(lengths)[::-1]:
        alike = starts[lengths == length]
        size = max(1, batch_tokens // length)
        for first in range(0, len(alike), size):
            yield alike[first : first + size, None] + np.arange(length)


def _attempt(batch: Batch, read: Read, write: Write) -> Batch | None:
    """Read a batch; return it, with the sites that got through, if memory ran out, and None if it is done."""
    written = set(batch.written)

    def take(site: Site, hidden: Tensor) -> None:
        if site not in written:
            write(batch.rows, site, hidden)
            written.add(site)

    try:
        read(batch.rows, take)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return Batch(batch.rows, frozenset(written))  # the error, and all that its frames hold, ends here
    return None


def _half(batch: Batch, device: torch.device) -> int:
    sequences, length = batch.rows.shape
    if sequences == 1:
        raise InputError(
            f"a sequence of {length} tokens does not fit into the memory of `{device}`; shorten the dataset's "
            "window, take `dtype: bfloat16`, a device with more memory, or `device_map: auto`."
        )
    half = sequences // 2
    message = (
        f"memory ran out with {sequences} sequences of {length} tokens on {device}; going on with {half}"
    )
    print(message, file=sys.stderr, flush=True)
    return half


def _release_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@torch.no_grad()
def sees_ahead(network: Network, stream: ResidualStream, ids: Tensor) -> bool:
    """Whether a row depends on a later token: two passes of ids (1, length), which differ in the last token alone.

    Rows of a causal network change by rounding alone. Of others they move by a share of what the last row does.
    """
    other = ids.clone()
    other[:, -1] = (ids[:, -1] + 1) % network.vocabulary
    found: dict[Site, list[Tensor]] = {}

    def take(site: Site, hidden: Tensor) -> None:
        found.setdefault(site, []).append(hidden[0].double())

    with stream.observed(take):
        for one in (ids, other):
            run(network.base, one)
    moves = [(after - before).norm(dim=-1) for before, after in found.values()]
    return any(bool((move[:-1] > SEEN_AHEAD * move[-1]).any()) for move in moves)


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
    as under a mask, they stand for that share of the draw's bytes. The bytes of a text that its tokens do not spell
    are NaN.
    """
    covered = predictable(tokens)
    _, starts = np.unique(tokens.sequence, return_index=True)
    draws = []
    for draw in np.unique(tokens.draw):
        inside = tokens.draw == draw
        counted = inside & predicted
        count = int(counted.sum())
        share = count / max(1, int((inside & covered).sum()))
        text = tokens.sequence_bytes[tokens.draw[starts] == draw].sum()
        nats = nll[counted].sum(dtype=np.float64)
        draws.append(DrawLoss(int(draw), count, float(nats), nan if tokens.doubt else float(text * share)))
    return draws


def no_loss(tokens: Tokens) -> list[DrawLoss]:
    """Return the draws of a network that predicts nothing: no token, and no number for their loss."""
    return [DrawLoss(int(draw), 0, nan, 0.0) for draw in np.unique(tokens.draw)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Reads a network batch by batch: every hidden state, and the loss of each token.

    A decoder reads from left to right: activations and loss come from the same pass. An encoder reads both ways: the
    activations of the text as it is, the loss from a second pass with some tokens masked. A network without the whole
    of its head has no loss: random predictions are none.

    Attributes
    ----------
    kind, network, stream : what is read
    mask_token_id : the tokenizer's mask token, needed for an encoder with a head
    seed : of the mask

    Raises
    ------
    InputError
        For an encoder with a head and without a mask token of its own.
    """

    kind: Kind
    network: Network
    stream: ResidualStream
    mask_token_id: int | None
    seed: int

    def __post_init__(self) -> None:
        """Refuse an encoder whose tokens cannot be masked."""
        if self.kind == "decoder" or self.network.no_loss:
            return
        if self.mask_token_id is None or not 0 <= self.mask_token_id < self.network.vocabulary:
            raise InputError(
                f"`mask_token_id` is {self.mask_token_id}; an encoder's loss needs its tokenizer's mask token, "
                f"an id below {self.network.vocabulary}."
            )

    def predicted(self, tokens: Tokens) -> np.ndarray:
        """(n,) bool: the tokens whose loss counts, the same for every checkpoint with a head."""
        if self.network.no_loss:
            return np.zeros(len(tokens.ids), dtype=bool)
        return predictable(tokens) if self.kind == "decoder" else mask(tokens, self.seed)

    @torch.no_grad()  # not inference mode: what a pass caches in a loaded model must serve a backward pass later
    def read(self, ids: Tensor, predicted: Tensor, take: Take) -> Tensor:
        """Give every hidden state to `take`; return the loss of each token.

        ids: (batch, length) int64, predicted: (batch, length) bool → (batch, length) float32 nats, NaN where
        there is none.
        """
        model = self.network.model
        if self.kind == "decoder" and not self.network.no_loss:
            with self.stream.observed(take):
                logits = run(model, ids).logits
            return next_token_nll(logits, ids)
        with self.stream.observed(take):
            run(self.network.base, ids)
        if self.network.no_loss or self.mask_token_id is None:
            return torch.full(ids.shape, torch.nan)
        logits = run(model, ids.masked_fill(predicted, self.mask_token_id)).logits
        return masked_nll(logits, ids, predicted)
