"""From a checkpoint and the tokens of a dataset to the activations of every layer and the loss.

Batch after batch, smaller ones where memory runs out; what a pass gives is written while the next one is made.
"""

from __future__ import annotations

import gc
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from math import nan
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import PreTrainedModel

from lmshape.errors import InputError
from lmshape.models.network import Network, memory_ran_out
from lmshape.models.opened import Opening, opened
from lmshape.models.residual import ResidualStream, Take, run
from lmshape.progress import progress as progress_bar
from lmshape.progress import size_text
from lmshape.site import Site
from lmshape.store.activations import ActivationWriter, HeldActivations, refuse_missing
from lmshape.store.hdf5 import Attributes
from lmshape.store.statistics import DrawLoss, write_loss_card
from lmshape.store.tokens import Tokens
from lmshape.store.weights import Kind, files_as_found, weights_sha256

Read = Callable[[np.ndarray, Take], None]
Write = Callable[[np.ndarray, Site, Tensor], None]
MASKED_SHARE = 0.15  # BERT's


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
    nowhere: frozenset[Site] = frozenset()
    waiting = deque((rows, nowhere) for rows in batches(tokens, batch_tokens))
    while waiting:
        rows, written = waiting.popleft()  # and the sites that were written before memory ran out
        reached = _attempt(rows, written, read, write)
        if reached is not None:
            _release_memory()
            fitting = _half(rows, device) * rows.shape[1]
            waiting = deque(
                (part, done) for batch, done in ((rows, reached), *waiting) for part in _parts(batch, fitting)
            )


def batches(tokens: Tokens, batch_tokens: int) -> Iterator[np.ndarray]:
    """Rows of each batch, (sequences, length): sequences of one length, so that nothing is padded.

    The longest come first: memory that does not suffice shows at once.
    """
    _, starts, lengths = np.unique(tokens.sequence, return_index=True, return_counts=True)
    for length in np.unique(lengths)[::-1]:
        yield from _parts(starts[lengths == length, None] + np.arange(length), batch_tokens)


def _parts(rows: np.ndarray, batch_tokens: int) -> Iterator[np.ndarray]:
    """Yield rows (sequences, length) in parts of at most so many tokens, and at least one sequence."""
    size = max(1, batch_tokens // rows.shape[1])
    return (rows[first : first + size] for first in range(0, len(rows), size))


def _attempt(rows: np.ndarray, written: frozenset[Site], read: Read, write: Write) -> frozenset[Site] | None:
    """Read a batch; return the sites that are written if memory ran out, and None if it is done."""
    reached = set(written)

    def take(site: Site, hidden: Tensor) -> None:
        if site not in reached:
            write(rows, site, hidden)
            reached.add(site)

    try:
        read(rows, take)
    except (RuntimeError, MemoryError) as error:
        if not memory_ran_out(error):
            raise
        return frozenset(reached)  # the error, and all that its frames hold, ends here
    return None


def _half(rows: np.ndarray, device: torch.device) -> int:
    sequences, length = rows.shape
    if sequences == 1:
        raise InputError(
            f"a sequence of {length} tokens does not fit into the memory of `{device}`; shorten the dataset's "
            "window, take `dtype: bfloat16`, a device with more memory, or `device_map: auto`."
        )
    half = sequences // 2
    print(
        f"memory ran out with {sequences} sequences of {length} tokens on {device}; going on with {half}",
        file=sys.stderr,
        flush=True,
    )
    return half


def _release_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


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


WAITING = 4  # matrices that may wait for the disk: bounds the memory when it is slower than the network


@contextmanager
def written_in_background(writer: ActivationWriter) -> Iterator[Write]:
    """Give a function that puts hidden states (batch, length, width) into an activation store from another thread.

    A write that fails raises its error at a later call, or at the end.
    """
    waiting: deque[Future[None]] = deque()

    def write(rows: np.ndarray, site: Site, values: np.ndarray) -> None:
        ends = np.flatnonzero(np.diff(rows) != 1) + 1
        for start, part in zip(rows[np.r_[0, ends]], np.split(values, ends), strict=True):
            writer.write(site, int(start), part)

    def take(rows: np.ndarray, site: Site, hidden: Tensor) -> None:
        # a copy: later blocks may work in place
        values = hidden.to("cpu", torch.float32, copy=True).flatten(0, -2).numpy()
        waiting.append(thread.submit(write, rows.ravel(), site, values))
        if len(waiting) > WAITING:
            waiting.popleft().result()

    with ThreadPoolExecutor(max_workers=1) as thread:
        try:
            yield take
            while waiting:
                waiting.popleft().result()
        except BaseException:
            thread.shutdown(cancel_futures=True)
            raise


@contextmanager
def held(clouds: Mapping[Site, Tensor]) -> Iterator[Write]:
    """Give a function that puts hidden states (batch, length, width) into the tensors (n, width) of `room_for`.

    Raises
    ------
    ValueError
        On an end before every row is there.
    """
    missing = {site: len(cloud) for site, cloud in clouds.items()}

    def take(rows: np.ndarray, site: Site, hidden: Tensor) -> None:
        cloud = clouds[site]
        cloud[rows.ravel()] = hidden.flatten(0, -2).to(cloud.device)
        missing[site] -= rows.size

    yield take
    refuse_missing(missing, "activations in memory")


# what makes an activation store, and everything made of it, self-describing
ROOT_ATTRIBUTES = frozenset(
    "model architecture kind parameters blocks repository revision commit weights_sha256 checkpoint step "
    "tokens_seen dataset tokenizer_sha256 text_sha256 special_tokens sampling seed dtype "
    "lmshape_version torch_version transformers_version".split()
)


def extract(
    checkpoint: Path | PreTrainedModel,
    tokens: Tokens,
    *,
    opening: Opening,
    output: Path,
    loss_output: Path,
    attributes: Attributes,
    seed: int,
    mask_token_id: int | None = None,
    progress: bool = True,
    held_bytes: int = 0,
) -> Path | HeldActivations:
    """Write the activations and the loss card of one cell, or hold the activations in memory.

    Sequences of one length share a batch, none is padded. Rows stand at their token's place. Decoders: the
    loss of each token given those before it, from the same pass. Encoders: the activations of the text as it
    is, and the loss of a fixed 15 % of the tokens from a second pass in which they are masked. Of a checkpoint
    without the whole of its head there are activations, and in the loss card the reason why there is no loss.

    Memory: the weights, one batch with its logits, and a few layers of it that wait for the disk, or all activations.
    A batch for which it does not suffice is halved, as are those behind it.

    Parameters
    ----------
    checkpoint : folder with config.json and weights, or with one GGUF file; or a loaded model
    tokens : what is read, the same for every checkpoint of a model
    opening : how the checkpoint is opened
    output, loss_output : activation store and loss card to write; each appears when it is whole. The store has float32
        whatever the network computes in
    attributes : what is known of the cell; what the network and the tokens say of themselves is added
    seed : of the mask
    mask_token_id : the tokenizer's mask token, needed for an encoder
    progress : whether to show tokens done, rate and time left
    held_bytes : activations of at most this size are held in the number type of the network, and not written

    Returns
    -------
    `output`, or the activations that are held.

    Raises
    ------
    InputError
        For what `opened` refuses, when memory does not suffice for a sequence, and when the weights change meanwhile.
    ValueError
        When `attributes` leaves the files without one of `ROOT_ATTRIBUTES`.
    """
    found = _files(checkpoint)
    with opened(checkpoint, tokens, opening, output=output) as (network, stream, most, facts):
        reading = Reader(
            kind=opening.kind, network=network, stream=stream, mask_token_id=mask_token_id, seed=seed
        )
        own = {**facts, "seed": seed, "blocks": len(stream.blocks)}
        known = _attributes(checkpoint, network, {**tokens.attributes, **attributes, **own})
        clouds = room_for(tokens, reading, held_bytes) if held_bytes else None
        activations: Path | HeldActivations = output
        with _bar(tokens, known, shown=progress) as bar:
            if clouds is None:
                nll = write_activations(output, tokens, reading, attributes=known, batch_tokens=most, bar=bar)
            else:
                with held(clouds) as write:
                    nll = passes(tokens, reading, batch_tokens=most, write=write, bar=bar)
                activations = HeldActivations(clouds, tokens, nll, known)
    if _files(checkpoint) != found:
        output.unlink(missing_ok=True)
        raise InputError(
            f"`{checkpoint}`: its weights were rewritten while they were read, so the activations may mix both. "
            "Run again when the checkpoint is saved."
        )
    _write_loss(loss_output, tokens, nll, reading, attributes=known)
    return activations


def _files(checkpoint: Path | PreTrainedModel) -> list[tuple[str, int, int]]:
    return [] if isinstance(checkpoint, PreTrainedModel) else files_as_found(Path(checkpoint))


def write_activations(
    output: Path, tokens: Tokens, reading: Reader, *, attributes: Attributes, batch_tokens: int, bar: tqdm
) -> np.ndarray:
    """Write the activation store, one pass after the other; return what `passes` does."""
    stream = reading.stream
    with ActivationWriter(
        output, sites=stream.sites, width=stream.width, tokens=tokens, attributes=attributes
    ) as writer:
        with written_in_background(writer) as write:
            nll = passes(tokens, reading, batch_tokens=batch_tokens, write=write, bar=bar)
        writer.write_nll(0, nll)  # after the last row: the order of writes decides where in the file each is
    return nll


def passes(tokens: Tokens, reading: Reader, *, batch_tokens: int, write: Write, bar: tqdm) -> np.ndarray:
    """Give every hidden state to `write`; return the loss of each token, (n,) float32 nats.

    `batch_tokens` : most tokens of a batch; a longer sequence is a batch of its own
    """
    device, predicted = reading.network.device, reading.predicted(tokens)
    nll = np.full(len(tokens.ids), np.nan, dtype=np.float32)

    def read(rows: np.ndarray, take: Take) -> None:
        ids = torch.as_tensor(tokens.ids[rows], dtype=torch.int64, device=device)
        chosen = torch.as_tensor(predicted[rows], device=device)
        nll[rows] = reading.read(ids, chosen, take).cpu().numpy()
        bar.update(rows.size)

    read_all(tokens, batch_tokens, read=read, write=write, device=device)
    return nll


def room_for(tokens: Tokens, reading: Reader, held_bytes: int) -> dict[Site, Tensor] | None:
    """Return a tensor for the rows (n, width) of each site, of the number type that they come in, not yet filled.

    They lie on the network's GPU if it has twice their size free, else in memory. None, and a line on stderr that says
    why, where they take more than `held_bytes`, or memory does not suffice.
    """
    network, stream = reading.network, reading.stream
    types: dict[Site, torch.dtype] = {}

    def take(site: Site, hidden: Tensor) -> None:
        types[site] = hidden.dtype

    with torch.no_grad(), stream.observed(take):
        run(network.base, torch.as_tensor(tokens.ids[None, :1], dtype=torch.int64, device=network.device))
    n, width = len(tokens.ids), stream.width
    size = n * width * sum(dtype.itemsize for dtype in types.values())
    why = f"the job may hold {size_text(held_bytes)}"
    if size <= held_bytes:
        try:
            place = _place_for(size, network.device)
            return {site: torch.empty(n, width, dtype=dtype, device=place) for site, dtype in types.items()}
        except (RuntimeError, MemoryError) as error:
            if not memory_ran_out(error):
                raise
            why = "memory does not suffice"
    print(
        f"{size_text(size)} of activations, and {why}: they pass through a file", file=sys.stderr, flush=True
    )
    return None


def _place_for(size: int, device: torch.device) -> torch.device:
    roomy = device.type == "cuda" and torch.cuda.mem_get_info(device)[0] >= 2 * size
    return device if roomy else torch.device("cpu")


def _attributes(
    checkpoint: Path | PreTrainedModel, network: Network, known: Attributes
) -> dict[str, str | int | float]:
    """Add what the network says of itself; what is known stands (hashing large weights takes minutes)."""
    found = {
        "architecture": network.model.config.model_type,
        "parameters": network.model.num_parameters(),
        **known,
    }
    if "weights_sha256" not in found and not isinstance(checkpoint, PreTrainedModel):
        found["weights_sha256"] = weights_sha256(Path(checkpoint))
    absent = sorted(ROOT_ATTRIBUTES - found.keys())
    if absent:
        raise ValueError(f"`attributes` lacks {', '.join(absent)}; the files would not describe themselves.")
    return found


def _write_loss(
    path: Path, tokens: Tokens, nll: np.ndarray, reading: Reader, *, attributes: Attributes
) -> None:
    why = reading.network.no_loss
    draws = no_loss(tokens) if why else loss_by_draw(tokens, nll, predicted=reading.predicted(tokens))
    flag = {"flag": why or tokens.doubt} if why or tokens.doubt else {}
    write_loss_card(path, attributes={**attributes, **flag}, draws=draws)


def _bar(tokens: Tokens, known: Attributes, *, shown: bool) -> tqdm:
    if not shown:
        return tqdm(disable=True)
    cell = f"{known['model']} {known['checkpoint']} {known['dataset']}"
    return progress_bar(len(tokens.ids), description=cell, unit="tokens")
