"""From a checkpoint and the tokens of a dataset to the activations of every layer and the loss."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import transformers
from torch import Tensor
from tqdm import tqdm

import lmshape
from lmshape.background import BackgroundWriter
from lmshape.batch_size import starting_tokens
from lmshape.devices import choose_device, choose_dtype
from lmshape.extraction_checks import check_expected, check_tokens
from lmshape.loss import loss_by_draw, no_loss
from lmshape.network import Kind, Network, load_model
from lmshape.passes import read_all
from lmshape.progress import progress as progress_bar
from lmshape.readers import Reader, reader
from lmshape.residual import ResidualStream, Take, residual_stream
from lmshape.store import ActivationWriter, Attributes, write_loss_card
from lmshape.tokens import Tokens
from lmshape.weights import weights_sha256
from lmshape.writing.scratch import working_folder

# what makes an activation store, and everything made of it, self-describing
ROOT_ATTRIBUTES = frozenset(
    "model architecture kind parameters blocks repository revision commit weights_sha256 checkpoint step "
    "tokens_seen dataset tokenizer_sha256 special_tokens sampling seed dtype "
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
    dtype: str = "auto",
    device: str = "auto",
    device_map: Literal["none", "auto"] = "none",
    batch_tokens: int | str = "auto",
    threads: int,
    seed: int,
    mask_token_id: int | None = None,
    expected_blocks: int | None = None,
    expected_width: int | None = None,
    expected_vocabulary: int | None = None,
    remote_code: bool = False,
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
    checkpoint : folder with config.json and weights, or with one GGUF file
    tokens : what is read, the same for every checkpoint of a model
    output, loss_output : activation store and loss card to write; each appears when it is whole
    attributes : what is known of the cell; what the network and the tokens say of themselves is added
    kind : `decoder` (reads left to right) or `encoder` (masked)
    dtype : the type that the network computes in, `auto`: bfloat16 on a CUDA GPU, else float32; rows are stored
        as float32 whatever it is
    device : `auto` takes a GPU if there is one
    device_map : `auto` spreads the network over all GPUs, then memory, then disk; `none` does not
    batch_tokens : most tokens of a batch, `auto`: what fits; a longer sequence is a batch of its own
    threads, seed : CPU threads; seed of the mask
    mask_token_id : the tokenizer's mask token, needed for an encoder
    expected_blocks, expected_width, expected_vocabulary : what the registry says of the model, where it does
    remote_code : run the Python code that comes with the weights
    progress : whether to show tokens done, rate and time left

    Raises
    ------
    InputError
        When the checkpoint cannot be loaded whole, is not the expected network, cannot read the tokens, or
        does not fit into memory.
    ValueError
        When `attributes` leaves the files without one of `ROOT_ATTRIBUTES`.
    """
    torch.set_num_threads(threads)
    place = choose_device(device, device_map=device_map)
    dtype = choose_dtype(dtype, place)
    expected = {"blocks": expected_blocks, "width": expected_width, "vocabulary": expected_vocabulary}
    with _offload_folder(output, needed=device_map != "none") as offload:
        network = load_model(
            Path(checkpoint),
            kind=kind,
            dtype=dtype,
            device=place,
            device_map=device_map,
            offload=offload,
            remote_code=remote_code,
        )
        check_tokens(tokens, network.model)
        stream = residual_stream(network.model, _first_tokens(tokens, network.device))
        check_expected(network.model, stream, checkpoint, expected)
        reading = reader(kind, network, stream, mask_token_id=mask_token_id, seed=seed)
        facts = {"kind": kind, "dtype": dtype, "seed": seed, "blocks": len(stream.blocks)}
        known = _attributes(Path(checkpoint), network, {**tokens.attributes, **attributes, **facts})
        nll = write_activations(
            output,
            tokens,
            network=network,
            stream=stream,
            reading=reading,
            attributes=known,
            batch_tokens=batch_tokens,
            progress=progress,
        )
    _write_loss(loss_output, tokens, nll, network=network, reading=reading, attributes=known)


def write_activations(
    output: Path,
    tokens: Tokens,
    *,
    network: Network,
    stream: ResidualStream,
    reading: Reader,
    attributes: Attributes,
    batch_tokens: int | str,
    progress: bool,
) -> np.ndarray:
    """Write the activation store, one pass after the other, and return the loss of each token, (n,) float32 nats."""
    model, device = network.model, network.device
    vocabulary = model.get_input_embeddings().num_embeddings
    most = starting_tokens(batch_tokens, vocabulary=vocabulary, on_gpu=device.type not in ("cpu", "mps"))
    predicted = reading.predicted(tokens)
    nll = np.full(len(tokens.ids), np.nan, dtype=np.float32)
    with ActivationWriter(
        output, sites=stream.sites, width=stream.width, tokens=tokens, attributes=attributes
    ) as writer:
        with _bar(tokens, attributes, shown=progress) as bar, BackgroundWriter(writer) as background:

            def read(rows: np.ndarray, take: Take) -> None:
                ids = torch.as_tensor(tokens.ids[rows], dtype=torch.int64, device=device)
                chosen = torch.as_tensor(predicted[rows], device=device)
                nll[rows] = reading.read(ids, chosen, take).cpu().numpy()
                bar.update(rows.size)

            read_all(tokens, most, read=read, write=background.take, device=device)
        writer.write_nll(0, nll)  # after the last row: the order of writes decides where in the file each is
    return nll


@contextmanager
def _offload_folder(output: Path, *, needed: bool) -> Iterator[Path | None]:
    """Make a folder on scratch, or beside the output, where there is room, for weights that do not fit into memory."""
    if not needed:
        yield None
        return
    with working_folder(output, "weights") as folder:
        yield folder


def _first_tokens(tokens: Tokens, device: torch.device) -> Tensor:
    ids = tokens.ids[tokens.sequence == tokens.sequence[0]][:PROBE_TOKENS]
    return torch.as_tensor(ids[None], dtype=torch.int64, device=device)


def _attributes(folder: Path, network: Network, known: Attributes) -> dict[str, str | int | float]:
    """Add what the network says of itself; what is known stands (hashing large weights takes minutes)."""
    found = {
        "architecture": network.model.config.model_type,
        "parameters": network.parameters,
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


def _write_loss(
    path: Path, tokens: Tokens, nll: np.ndarray, *, network: Network, reading: Reader, attributes: Attributes
) -> None:
    if not network.absent:
        draws = loss_by_draw(tokens, nll, predicted=reading.predicted(tokens))
        write_loss_card(path, attributes=attributes, draws=draws)
        return
    count, first = len(network.absent), network.absent[0]
    reason = f"no language-model head: the checkpoint lacks {count} of its tensors, {first} first"
    write_loss_card(path, attributes={**attributes, "flag": reason}, draws=no_loss(tokens))


def _bar(tokens: Tokens, known: Attributes, *, shown: bool) -> tqdm:
    if not shown:
        return tqdm(disable=True)
    cell = f"{known['model']} {known['checkpoint']} {known['dataset']}"
    return progress_bar(len(tokens.ids), description=cell, unit="tokens")
