"""From a checkpoint and the tokens of a dataset to the activations of every layer and the loss."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from lmshape.errors import InputError
from lmshape.models.batch_size import starting_tokens
from lmshape.models.network import Network
from lmshape.models.opened import Opening, opened
from lmshape.models.passes import Reader, Write, loss_by_draw, no_loss, read_all
from lmshape.models.residual import Take
from lmshape.progress import progress as progress_bar
from lmshape.site import Site
from lmshape.store.activations import ActivationWriter
from lmshape.store.hdf5 import Attributes
from lmshape.store.statistics import write_loss_card
from lmshape.store.tokens import Tokens
from lmshape.store.weights import files_as_found, weights_sha256

WAITING = 4  # matrices that may wait for the disk: bounds the memory when it is slower than the network


@contextmanager
def written_in_background(writer: ActivationWriter) -> Iterator[Write]:
    """Give a function that puts hidden states (batch, length, width) into an activation store from another thread.

    A write that fails raises its error at a later call, or at the end.
    """
    waiting: deque[Future[None]] = deque()

    def write(rows: np.ndarray, site: Site, values: np.ndarray) -> None:
        ends = np.flatnonzero(np.diff(rows) != 1) + 1
        for start, run in zip(rows[np.r_[0, ends]], np.split(values, ends), strict=True):
            writer.write(site, int(start), run)

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


# what makes an activation store, and everything made of it, self-describing
ROOT_ATTRIBUTES = frozenset(
    "model architecture kind parameters blocks repository revision commit weights_sha256 checkpoint step "
    "tokens_seen dataset tokenizer_sha256 special_tokens sampling seed dtype "
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
    batch_tokens: int | str = "auto",
    progress: bool = True,
) -> None:
    """Write the activation store and the loss card of one cell.

    Sequences of one length share a batch, none is padded. Rows stand at their token's place. Decoders: the
    loss of each token given those before it, from the same pass. Encoders: the activations of the text as it
    is, and the loss of a fixed 15 % of the tokens from a second pass in which they are masked. Of a checkpoint
    without the whole of its head there are activations, and in the loss card the reason why there is no loss.

    Memory: the weights, one batch with its logits, and a few layers of it that wait for the disk. A batch for
    which it does not suffice is halved, as are those behind it.

    Parameters
    ----------
    checkpoint : folder with config.json and weights, or with one GGUF file; or a loaded model
    tokens : what is read, the same for every checkpoint of a model
    opening : how the checkpoint is opened; rows are stored as float32 whatever the network computes in
    output, loss_output : activation store and loss card to write; each appears when it is whole
    attributes : what is known of the cell; what the network and the tokens say of themselves is added
    seed : of the mask
    mask_token_id : the tokenizer's mask token, needed for an encoder
    batch_tokens : most tokens of a batch, `auto`: what fits; a longer sequence is a batch of its own
    progress : whether to show tokens done, rate and time left

    Raises
    ------
    InputError
        For what `opened` refuses, when memory does not suffice for a sequence, and when the weights change meanwhile.
    ValueError
        When `attributes` leaves the files without one of `ROOT_ATTRIBUTES`.
    """
    found = _files(checkpoint)
    with opened(checkpoint, tokens, opening, output=output) as (network, stream, facts):
        reading = Reader(
            kind=opening.kind, network=network, stream=stream, mask_token_id=mask_token_id, seed=seed
        )
        own = {**facts, "seed": seed, "blocks": len(stream.blocks)}
        known = _attributes(checkpoint, network, {**tokens.attributes, **attributes, **own})
        nll = write_activations(
            output,
            tokens,
            reading,
            attributes=known,
            batch_tokens=batch_tokens,
            progress=progress,
        )
    if _files(checkpoint) != found:
        output.unlink()
        raise InputError(
            f"`{checkpoint}`: its weights were rewritten while they were read, so the activations may mix both. "
            "Run again when the checkpoint is saved."
        )
    _write_loss(loss_output, tokens, nll, reading, attributes=known)


def _files(checkpoint: Path | PreTrainedModel) -> list[tuple[str, int, int]]:
    return [] if isinstance(checkpoint, PreTrainedModel) else files_as_found(Path(checkpoint))


def write_activations(
    output: Path,
    tokens: Tokens,
    reading: Reader,
    *,
    attributes: Attributes,
    batch_tokens: int | str,
    progress: bool,
) -> np.ndarray:
    """Write the activation store, one pass after the other, and return the loss of each token, (n,) float32 nats."""
    network, stream, device = reading.network, reading.stream, reading.network.device
    on_gpu = device.type not in ("cpu", "mps")
    most = starting_tokens(batch_tokens, vocabulary=network.vocabulary, on_gpu=on_gpu)
    predicted = reading.predicted(tokens)
    nll = np.full(len(tokens.ids), np.nan, dtype=np.float32)
    with ActivationWriter(
        output, sites=stream.sites, width=stream.width, tokens=tokens, attributes=attributes
    ) as writer:
        with _bar(tokens, attributes, shown=progress) as bar, written_in_background(writer) as write:

            def read(rows: np.ndarray, take: Take) -> None:
                ids = torch.as_tensor(tokens.ids[rows], dtype=torch.int64, device=device)
                chosen = torch.as_tensor(predicted[rows], device=device)
                nll[rows] = reading.read(ids, chosen, take).cpu().numpy()
                bar.update(rows.size)

            read_all(tokens, most, read=read, write=write, device=device)
        writer.write_nll(0, nll)  # after the last row: the order of writes decides where in the file each is
    return nll


def _attributes(
    checkpoint: Path | PreTrainedModel, network: Network, known: Attributes
) -> dict[str, str | int | float]:
    """Add what the network says of itself; what is known stands (hashing large weights takes minutes)."""
    found = {
        "architecture": network.model.config.model_type,
        "parameters": network.parameters,
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
    flag = reading.network.no_loss or tokens.doubt
    draws = (
        no_loss(tokens)
        if reading.network.no_loss
        else loss_by_draw(tokens, nll, predicted=reading.predicted(tokens))
    )
    write_loss_card(path, attributes={**attributes, **({"flag": flag} if flag else {})}, draws=draws)


def _bar(tokens: Tokens, known: Attributes, *, shown: bool) -> tqdm:
    if not shown:
        return tqdm(disable=True)
    cell = f"{known['model']} {known['checkpoint']} {known['dataset']}"
    return progress_bar(len(tokens.ids), description=cell, unit="tokens")
