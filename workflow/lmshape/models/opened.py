"""Open a checkpoint for its tokens: load all weights, check them, find the residual stream."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel

import lmshape
from lmshape.errors import InputError
from lmshape.models.device import DeviceMap, choose_device, choose_dtype
from lmshape.models.network import Network, at_rest, load_model, loaded_network, longest_window
from lmshape.models.passes import sees_ahead
from lmshape.models.residual import ResidualStream, residual_stream
from lmshape.store.hdf5 import Attributes
from lmshape.store.tokens import Tokens
from lmshape.store.weights import Kind
from lmshape.writing import working_folder

SEES_AHEAD = (
    "no next-token loss: rows change with later tokens, so that the network sees what it would predict"
)
PROBE_TOKENS = 8  # enough to see which way the hidden state takes


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """Options for opening a checkpoint.

    Attributes
    ----------
    kind : `decoder` (reads left to right) or `encoder` (masked)
    threads : CPU threads
    dtype : the type that the network computes in, `auto`: bfloat16 on a CUDA GPU, else float32
    device : `auto` takes a GPU if there is one
    gpus : that the job was given; with 0 `auto` is the CPU, whatever is here
    device_map : `auto` spreads the network over all GPUs, then memory, then disk; `none` does not
    blocks, width, vocabulary : what the registry says of the model, where it does
    remote_code : run the Python code that comes with the weights
    """

    kind: Kind
    threads: int
    dtype: str = "auto"
    device: str = "auto"
    gpus: int | None = None
    device_map: DeviceMap = "none"
    blocks: int | None = None
    width: int | None = None
    vocabulary: int | None = None
    remote_code: bool = False


class Opened(NamedTuple):
    """A network with its residual stream, and what the files made with it say of how it was opened."""

    network: Network
    stream: ResidualStream
    facts: Attributes


@contextmanager
def opened(
    checkpoint: Path | PreTrainedModel, tokens: Tokens, opening: Opening, *, output: Path
) -> Iterator[Opened]:
    """Open a checkpoint for as long as the block lasts; weights that are spread may lie beside `output` meanwhile.

    Parameters
    ----------
    checkpoint : folder with config.json and weights, or with one GGUF file; or a loaded model, which stays where it is
        and in its number type, and is at rest meanwhile
    tokens : what it will read
    opening : how
    output : file that is made of it

    Raises
    ------
    InputError
        When the checkpoint cannot be loaded whole, is not the expected network, cannot read the tokens, or
        does not fit into memory.
    """
    torch.set_num_threads(opening.threads)
    with _network(checkpoint, opening, output) as (network, dtype):
        _check_tokens(tokens, network)
        probe = _first_tokens(tokens, network.device)
        stream = residual_stream(network.model, probe)
        if opening.kind == "decoder" and sees_ahead(network, stream, probe):
            network = replace(network, unfit=SEES_AHEAD)
        _check_expected(network, stream, checkpoint, opening)
        facts: Attributes = {
            "kind": opening.kind,
            "dtype": dtype,
            "lmshape_version": lmshape.__version__,
            "torch_version": torch.__version__,
            "transformers_version": transformers.__version__,
        }
        yield Opened(network, stream, facts)


@contextmanager
def _network(
    checkpoint: Path | PreTrainedModel, opening: Opening, output: Path
) -> Iterator[tuple[Network, str]]:
    """Give the network and the name of its number type."""
    if isinstance(checkpoint, PreTrainedModel):
        with at_rest(checkpoint):
            yield loaded_network(checkpoint), str(checkpoint.dtype).removeprefix("torch.")
        return
    device, device_map = choose_device(opening.device, device_map=opening.device_map, gpus=opening.gpus)
    dtype = choose_dtype(opening.dtype, device)
    with nullcontext() if device_map == "none" else working_folder(output, "weights") as offload:
        network = load_model(
            Path(checkpoint),
            kind=opening.kind,
            dtype=dtype,
            device=device,
            device_map=device_map,
            offload=offload,
            remote_code=opening.remote_code,
        )
        yield network, dtype


def _check_tokens(tokens: Tokens, network: Network) -> None:
    """Refuse tokens that a network cannot read.

    Raises
    ------
    InputError
        Without tokens; for a sequence longer than the context; for an id outside of the vocabulary.
    """
    if not len(tokens.ids):
        raise InputError("`tokens` is empty; a dataset needs at least one sequence.")
    longest, limit = np.bincount(tokens.sequence).max(), longest_window(network.model)
    if limit is not None and longest > limit:
        raise InputError(
            f"a sequence has {longest} tokens, but `{network.model.config.model_type}` here reads at most {limit}; "
            "shorten the dataset's window."
        )
    largest = tokens.ids.max()
    if largest >= network.vocabulary:
        raise InputError(
            f"token id {largest} is outside the network's vocabulary of {network.vocabulary}; "
            "tokenize with the tokenizer of this model."
        )


def _check_expected(
    network: Network, stream: ResidualStream, checkpoint: Path | PreTrainedModel, opening: Opening
) -> None:
    """Refuse a network whose blocks, width or vocabulary are not what the registry says of it, where it does.

    The vocabulary is that of config.json: the embedding may have more rows, as padding.

    Raises
    ------
    InputError
        When one of them is another.
    """
    vocabulary = network.model.config.get_text_config().vocab_size
    found = {"blocks": len(stream.blocks), "width": stream.width, "vocabulary": vocabulary}
    for name, value in found.items():
        expected = getattr(opening, name)
        if expected not in (None, value):
            raise InputError(
                f"`{name}` of `{checkpoint}` is {value}, but the registry says {expected}; correct one of them."
            )


def _first_tokens(tokens: Tokens, device: torch.device) -> Tensor:
    ids = tokens.ids[tokens.sequence == tokens.sequence[0]][:PROBE_TOKENS]
    return torch.as_tensor(ids[None], dtype=torch.int64, device=device)
