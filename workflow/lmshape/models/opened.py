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
from lmshape.errors import InputError, unknown
from lmshape.models import DeviceMap, Extraction
from lmshape.models.network import DTYPES, Network, at_rest, load_model, loaded_network, longest_window
from lmshape.models.residual import ResidualStream, residual_stream, run
from lmshape.site import Site
from lmshape.store.hdf5 import Attributes
from lmshape.store.tokens import Tokens
from lmshape.store.weights import Kind
from lmshape.writing import working_folder

SEES_AHEAD = (
    "no next-token loss: rows change with later tokens, so that the network sees what it would predict"
)
SEEN_AHEAD = 0.02  # of the last row's move: bfloat16 rounds to 0.004, attention over 8 tokens moves others by about 0.1
PROBE_TOKENS = 8  # enough to see which way the hidden state takes


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening(Extraction):
    """Options for opening a checkpoint.

    Attributes
    ----------
    kind : `decoder` (reads left to right) or `encoder` (masked)
    threads : CPU threads
    gpus : that the job was given; with 0 `auto` is the CPU, whatever is here; None where GPUs are not counted
    blocks, width, vocabulary : what the registry says of the model, where it does
    remote_code : run the Python code that comes with the weights
    """

    kind: Kind
    threads: int
    gpus: int | None = None
    blocks: int | None = None
    width: int | None = None
    vocabulary: int | None = None
    remote_code: bool = False


class Placement(NamedTuple):
    """Where a network goes: one device, or a map that spreads it over all there is."""

    device: torch.device
    device_map: DeviceMap


def choose_device(opening: Opening) -> Placement:
    """Return where a network goes, `auto`: a GPU if there is one.

    The GPU is the first that the process sees: CUDA_VISIBLE_DEVICES, which a cluster sets for each job, says which.
    Several GPUs of one machine are shared out by the cluster, or by one Snakemake per GPU with a variable of its own.
    With `auto`, a job that was given no GPU takes none. A map would take them all, and is left out; where the machine
    has no GPU the map stays, for what does not fit into memory goes to the disk.

    Raises
    ------
    InputError
        For an unknown name, a GPU that is not there, and one device beside a map over all of them.
    """
    name, device_map = opening.device, opening.device_map
    if device_map != "none" and name not in ("auto", "cuda"):
        raise InputError(
            f"`device` is `{name}`, and `device_map: {device_map}` spreads the network over all GPUs; "
            "let `device` be `auto`, or `device_map` be `none`."
        )
    there = torch.cuda.is_available()
    if name == "auto" and there and opening.gpus == 0:
        return Placement(torch.device("cpu"), "none")
    if name == "auto":
        name = "cuda" if there else "cpu"
    return Placement(_named(name, is_there=there), device_map)


def _named(name: str, *, is_there: bool) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise unknown("device", name, ["auto", "cpu", "cuda"]) from error
    if device.type == "cuda" and not is_there:
        raise InputError(f"`device` is `{name}`, but PyTorch sees no GPU here; use `auto` or `cpu`.")
    return device


def choose_dtype(name: str, device: torch.device) -> str:
    """Return the number type of a name, `auto`: bfloat16 on a CUDA GPU, float32 elsewhere.

    Raises
    ------
    InputError
        For an unknown name.
    """
    if name == "auto":
        return "bfloat16" if device.type == "cuda" else "float32"
    if name not in DTYPES:
        raise unknown("dtype", name, ["auto", *DTYPES])
    return name


class Opened(NamedTuple):
    """A network with its residual stream, the tokens of its first pass, and what the files made with it say of it."""

    network: Network
    stream: ResidualStream
    batch_tokens: int
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
        if not len(tokens.ids):
            raise InputError("`tokens` is empty; a dataset needs at least one sequence.")
        check_ids(np.bincount(tokens.sequence).max(), tokens.ids.max(), network)
        first = tokens.ids[None, tokens.sequence == tokens.sequence[0]][:, :PROBE_TOKENS]
        probe = torch.as_tensor(first, dtype=torch.int64, device=network.device)
        stream = residual_stream(network.model, probe)
        if opening.kind == "decoder" and not network.no_loss and sees_ahead(network, stream, probe):
            network = replace(network, no_loss=SEES_AHEAD)
        _check_expected(network, stream, checkpoint, opening)
        facts: Attributes = {
            "kind": opening.kind,
            "dtype": dtype,
            "lmshape_version": lmshape.__version__,
            "torch_version": torch.__version__,
            "transformers_version": transformers.__version__,
        }
        on_gpu = network.device.type not in ("cpu", "mps")
        most = opening.starting_tokens(vocabulary=network.vocabulary, on_gpu=on_gpu)
        yield Opened(network, stream, most, facts)


@contextmanager
def _network(
    checkpoint: Path | PreTrainedModel, opening: Opening, output: Path
) -> Iterator[tuple[Network, str]]:
    """Give the network and the name of its number type."""
    if isinstance(checkpoint, PreTrainedModel):
        with at_rest(checkpoint):
            yield loaded_network(checkpoint), str(checkpoint.dtype).removeprefix("torch.")
        return
    device, device_map = choose_device(opening)
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


def check_ids(longest: int, largest: int, network: Network) -> None:
    """Refuse ids that a network cannot read; on a GPU they would end the process.

    Parameters
    ----------
    longest : tokens of the longest sequence
    largest : largest id

    Raises
    ------
    InputError
        For a sequence longer than the context; for an id outside of the vocabulary.
    """
    limit = longest_window(network.model)
    if limit is not None and longest > limit:
        raise InputError(
            f"a sequence has {longest} tokens, but `{network.model.config.model_type}` here reads at most {limit}; "
            "shorten the dataset's window."
        )
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
