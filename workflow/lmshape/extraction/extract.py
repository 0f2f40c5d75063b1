"""From a checkpoint and the tokens of a dataset to the activations of every layer and the loss."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from lmshape.extraction.background import BackgroundWriter
from lmshape.extraction.batch_size import starting_tokens
from lmshape.extraction.loss import loss_by_draw, no_loss
from lmshape.extraction.opened import Opening, opened
from lmshape.extraction.passes import read_all
from lmshape.extraction.readers import Reader, reader
from lmshape.networks.network import Network
from lmshape.networks.residual import ResidualStream, Take
from lmshape.networks.weights import weights_sha256
from lmshape.progress import progress as progress_bar
from lmshape.store import ActivationWriter, Attributes, write_loss_card
from lmshape.texts.tokens import Tokens

# what makes an activation store, and everything made of it, self-describing
ROOT_ATTRIBUTES = frozenset(
    "model architecture kind parameters blocks repository revision commit weights_sha256 checkpoint step "
    "tokens_seen dataset tokenizer_sha256 special_tokens sampling seed dtype "
    "lmshape_version torch_version transformers_version".split()
)


def extract(
    checkpoint: Path,
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
    checkpoint : folder with config.json and weights, or with one GGUF file
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
        For what `opened` refuses, and when memory does not suffice for a sequence.
    ValueError
        When `attributes` leaves the files without one of `ROOT_ATTRIBUTES`.
    """
    with opened(checkpoint, tokens, opening, output=output) as (network, stream, facts):
        reading = reader(opening.kind, network, stream, mask_token_id=mask_token_id, seed=seed)
        own = {**facts, "seed": seed, "blocks": len(stream.blocks)}
        known = _attributes(Path(checkpoint), network, {**tokens.attributes, **attributes, **own})
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


def _attributes(folder: Path, network: Network, known: Attributes) -> dict[str, str | int | float]:
    """Add what the network says of itself; what is known stands (hashing large weights takes minutes)."""
    found = {
        "architecture": network.model.config.model_type,
        "parameters": network.parameters,
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
    if network.no_loss:
        write_loss_card(path, attributes={**attributes, "flag": network.no_loss}, draws=no_loss(tokens))
    else:
        draws = loss_by_draw(tokens, nll, predicted=reading.predicted(tokens))
        write_loss_card(path, attributes=attributes, draws=draws)


def _bar(tokens: Tokens, known: Attributes, *, shown: bool) -> tqdm:
    if not shown:
        return tqdm(disable=True)
    cell = f"{known['model']} {known['checkpoint']} {known['dataset']}"
    return progress_bar(len(tokens.ids), description=cell, unit="tokens")
