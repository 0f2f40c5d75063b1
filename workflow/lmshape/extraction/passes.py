"""Batch after batch through a network, smaller ones where memory runs out; every row is given on once."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from lmshape.errors import InputError
from lmshape.networks.devices import is_out_of_memory
from lmshape.networks.residual import Take
from lmshape.store import Site
from lmshape.texts.tokens import Tokens

Read = Callable[[np.ndarray, Take], None]
Write = Callable[[np.ndarray, Site, Tensor], None]


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

    def split(self, sequences: int) -> Iterator[Batch]:
        """Yield the batch in parts of at most so many sequences."""
        for first in range(0, len(self.rows), sequences):
            yield Batch(self.rows[first : first + sequences], self.written)


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
    waiting = map(Batch, batches(tokens, batch_tokens))
    while (batch := next(waiting, None)) is not None:
        unfinished = _attempt(batch, read, write)
        if unfinished is not None:
            _release_memory()
            half = _half(unfinished, device)
            waiting = _split(chain([unfinished], waiting), half * batch.rows.shape[1])


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


def _split(waiting: Iterator[Batch], batch_tokens: int) -> Iterator[Batch]:
    for batch in waiting:
        yield from batch.split(max(1, batch_tokens // batch.rows.shape[1]))


def _release_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
