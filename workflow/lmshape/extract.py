"""From a checkpoint and the tokens of a dataset to the activations of every layer and the loss."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
import transformers
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

import lmshape
from lmshape.background import BackgroundWriter
from lmshape.errors import InputError, unknown
from lmshape.loss import loss_by_draw
from lmshape.network import Kind, load_model, longest_window
from lmshape.progress import progress as progress_bar
from lmshape.readers import reader
from lmshape.residual import ResidualStream, residual_stream
from lmshape.store import ActivationWriter, Attributes, write_loss_card
from lmshape.tokens import Tokens
from lmshape.weights import weights_sha256

# what makes an activation store, and everything made of it, self-describing
ROOT_ATTRIBUTES = frozenset(
    "model architecture kind parameters blocks repository revision commit weights_sha256 checkpoint step "
    "tokens_seen dataset tokenizer_sha256 sampling seed dtype "
    "lmshape_version torch_version transformers_version".split()
)

PROBE_TOKENS = 8  # enough to see which way the hidden state takes


def extract(
    checkpoint: Path,
    tokens: Tokens,
    *,
    output: Path,
    loss_output: Path,
    attributes: Attributes,
    kind: Kind,
    dtype: str = "float32",
    device: str = "auto",
    batch_tokens: int = 8192,
    threads: int,
    seed: int,
    mask_token_id: int | None = None,
    expected_blocks: int | None = None,
    expected_width: int | None = None,
    progress: bool = True,
) -> None:
    """Write the activation store and the loss card of one cell.

    Sequences of one length share a batch, none is padded. Rows stand at their token's place. Decoders: the
    loss of each token given those before it, from the same pass. Encoders: the activations of the text as it
    is, and the loss of a fixed 15 % of the tokens from a second pass in which they are masked.

    Memory: the weights, one batch with its logits, and a few layers of it that wait for the disk.

    Parameters
    ----------
    checkpoint : folder with config.json and weights
    tokens : what is read, the same for every checkpoint of a model
    output, loss_output : activation store and loss card to write; each appears when it is whole
    attributes : what is known of the cell; what the network and the tokens say of themselves is added
    kind : `decoder` (reads left to right) or `encoder` (masked)
    dtype : the type that the network computes in; rows are stored as float32 whatever it is
    device : `auto` takes a GPU if there is one
    batch_tokens : most tokens of a batch; a longer sequence is a batch of its own
    threads, seed : CPU threads; seed of the mask
    mask_token_id : the tokenizer's mask token, needed for an encoder
    expected_blocks, expected_width : what the registry says of the model, where it does
    progress : whether to show tokens done, rate and time left

    Raises
    ------
    InputError
        When the checkpoint cannot be loaded whole, is not the expected network, or cannot read the tokens.
    ValueError
        When `attributes` leaves the files without one of `ROOT_ATTRIBUTES`.
    """
    torch.set_num_threads(threads)
    model = load_model(Path(checkpoint), kind=kind, dtype=dtype, device=_device(device))
    _check_tokens(tokens, model, batch_tokens=batch_tokens)
    stream = residual_stream(model, _first_tokens(tokens, model.device))
    _check_shape(stream, checkpoint, blocks=expected_blocks, width=expected_width)
    reading = reader(kind, model, stream, mask_token_id=mask_token_id, seed=seed)
    predicted = reading.predicted(tokens)
    facts = {"kind": kind, "dtype": dtype, "seed": seed, "blocks": len(stream.blocks)}
    known = _attributes(Path(checkpoint), model, {**tokens.attributes, **attributes, **facts})
    with (
        _bar(tokens, known, shown=progress) as bar,
        ActivationWriter(
            output, sites=stream.sites, width=stream.width, tokens=tokens, attributes=known
        ) as writer,
        BackgroundWriter(writer) as background,
    ):
        nll = np.full(len(tokens.ids), np.nan, dtype=np.float32)
        for rows in batches(tokens, batch_tokens):
            ids = torch.as_tensor(tokens.ids[rows], dtype=torch.int64, device=model.device)
            chosen = torch.as_tensor(predicted[rows], device=model.device)
            nll[rows] = reading.read(ids, chosen, partial(background.take, rows)).cpu().numpy()
            bar.update(rows.size)
        writer.write_nll(0, nll)
    draws = loss_by_draw(tokens, nll, predicted=predicted)
    write_loss_card(loss_output, attributes=known, draws=draws)


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


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise unknown("device", name, ["auto", "cpu", "cuda"]) from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"`device` is `{name}`, but PyTorch sees no GPU here; use `auto` or `cpu`.")
    return device


def _first_tokens(tokens: Tokens, device: torch.device) -> Tensor:
    ids = tokens.ids[tokens.sequence == tokens.sequence[0]][:PROBE_TOKENS]
    return torch.as_tensor(ids[None], dtype=torch.int64, device=device)


def _check_tokens(tokens: Tokens, model: PreTrainedModel, *, batch_tokens: int) -> None:
    if batch_tokens < 1:
        raise InputError(f"`batch_tokens` is {batch_tokens}; it must be at least 1.")
    if not len(tokens.ids):
        raise InputError("`tokens` is empty; a dataset needs at least one sequence.")
    longest, limit = np.bincount(tokens.sequence).max(), longest_window(model)
    if limit is not None and longest > limit:
        raise InputError(
            f"a sequence has {longest} tokens, but `{model.config.model_type}` here reads at most {limit}; "
            "shorten the dataset's window."
        )
    largest, vocabulary = tokens.ids.max(), model.get_input_embeddings().num_embeddings
    if largest >= vocabulary:
        raise InputError(
            f"token id {largest} is outside the network's vocabulary of {vocabulary}; "
            "tokenize with the tokenizer of this model."
        )


def _check_shape(stream: ResidualStream, folder: Path, *, blocks: int | None, width: int | None) -> None:
    found = (len(stream.blocks), stream.width)
    for name, value, expected in zip(("blocks", "width"), found, (blocks, width), strict=True):
        if expected is not None and value != expected:
            raise InputError(
                f"`{name}` of `{folder}` is {value}, but the registry says {expected}; correct one of them."
            )


def _attributes(folder: Path, model: PreTrainedModel, known: Attributes) -> dict[str, str | int | float]:
    """Add what the network says of itself; what is known stands (hashing large weights takes minutes)."""
    found = {
        "architecture": model.config.model_type,
        "parameters": model.num_parameters(),
        "lmshape_version": lmshape.__version__,
        "torch_version": torch.__version__,
        "transformers_version": transformers.__version__,
        **known,
    }
    if "weights_sha256" not in found:
        found["weights_sha256"] = weights_sha256(folder)
    absent = sorted(ROOT_ATTRIBUTES - found.keys())
    if absent:
        raise ValueError(f"`attributes` lacks {', '.join(absent)}; the files would not describe themselves.")
    return found


def _bar(tokens: Tokens, known: Attributes, *, shown: bool) -> tqdm:
    if not shown:
        return tqdm(disable=True)
    cell = f"{known['model']} {known['checkpoint']} {known['dataset']}"
    return progress_bar(len(tokens.ids), description=cell, unit="tokens")
