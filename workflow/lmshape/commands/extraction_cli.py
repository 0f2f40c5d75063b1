"""The verb of the command line that reads a checkpoint: the activations and the loss of a cell.

Stations are imported inside it, as in `lmshape.commands.cli`, which registers it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from lmshape.commands.arguments import (
    Blocks,
    CellAttributes,
    Gpus,
    Keep,
    ModelKind,
    Output,
    RemoteCode,
    Threads,
    TokenFile,
    Vocabulary,
    Weights,
    Width,
)


def extract(
    weights: Weights,
    output: Output,
    tokens: TokenFile,
    losses: Annotated[Path, typer.Option(help="loss card to write")],
    kind: ModelKind,
    attributes: CellAttributes,
    dtype: str = "auto",
    device: str = "auto",
    gpus: Gpus = None,
    device_map: str = "none",
    batch_tokens: str = "auto",
    blocks: Blocks = None,
    width: Width = None,
    vocabulary: Vocabulary = None,
    remote_code: RemoteCode = False,
    read_by: Annotated[
        list[str] | None,
        typer.Option(help="datasets; downloaded weights are deleted when all have been read"),
    ] = None,
    keep: Keep = False,
    threads: Threads = 1,
) -> None:
    """Write the activations of every layer, and the loss, of one checkpoint on one dataset."""
    from lmshape.hub.budget import release as note_reading
    from lmshape.hub.lock import read_receipt
    from lmshape.models.extract import extract as run
    from lmshape.models.opened import Opening
    from lmshape.store.tokens import read_tokens

    chosen = read_tokens(tokens)
    known = json.loads(attributes) | read_receipt(weights)
    opening = Opening(
        kind=kind.value,
        threads=threads,
        dtype=dtype,
        device=device,
        gpus=gpus,
        device_map=device_map,
        blocks=blocks,
        width=width,
        vocabulary=vocabulary,
        remote_code=remote_code,
    )
    run(
        weights,
        chosen,
        opening=opening,
        output=output,
        loss_output=losses,
        attributes=known,
        seed=int(chosen.attributes["seed"]),
        mask_token_id=int(chosen.attributes["mask_token_id"]),
        batch_tokens=batch_tokens,
    )
    if read_by:
        note_reading(weights, known["dataset"], of=read_by, keep=keep)
