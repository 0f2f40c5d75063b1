"""The verbs of the command line that throw dimensions away: the loss of a cell, and the tables of all.

Stations are imported inside their verb, as in `lmshape.commands.cli`, which registers these.
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


def truncate(
    weights: Weights,
    output: Output,
    tokens: TokenFile,
    kind: ModelKind,
    attributes: CellAttributes,
    rows: Annotated[list[str], typer.Option(help="all, no_sink; may be given again")],
    sequences: Annotated[int, typer.Option(help="of each draw, whose loss is measured")],
    rank: Annotated[list[int] | None, typer.Option(help="leading axes to keep; may be given again")] = None,
    removed: Annotated[
        list[int] | None, typer.Option(help="leading axes to remove; may be given again")
    ] = None,
    dtype: str = "auto",
    device: str = "auto",
    gpus: Gpus = None,
    device_map: str = "none",
    batch_tokens: str = "auto",
    blocks: Blocks = None,
    width: Width = None,
    vocabulary: Vocabulary = None,
    remote_code: RemoteCode = False,
    reader: Annotated[
        str | None, typer.Option(help="what this job is called among those of `--read-by`")
    ] = None,
    read_by: Annotated[
        list[str] | None,
        typer.Option(help="all that read; downloaded weights are deleted when all of them have"),
    ] = None,
    keep: Keep = False,
    threads: Threads = 1,
) -> None:
    """Measure the loss of a decoder with the residual stream projected on its leading axes, layer by layer."""
    from lmshape.hub.budget import release as note_reading
    from lmshape.hub.lock import read_receipt
    from lmshape.models.opened import Opening
    from lmshape.store.tokens import read_tokens
    from lmshape.truncation.truncate import Trial
    from lmshape.truncation.truncate import truncate as run

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
        read_tokens(tokens),
        opening=opening,
        output=output,
        attributes=json.loads(attributes) | read_receipt(weights),
        trial=Trial(rows=rows, ranks=rank or None, removed=removed or None),
        sequences=sequences,
        batch_tokens=batch_tokens,
    )
    if reader and read_by:
        note_reading(weights, reader, of=read_by, keep=keep)


def truncation_tables(
    metrics: Annotated[Path, typer.Option(help="the study's table of metrics, Parquet")],
    output: Annotated[Path, typer.Option(help="folder of the study's tables")],
    study: Annotated[str, typer.Option(help="name of the study, a column of the tables")],
    files: Annotated[list[Path] | None, typer.Argument(help="what `truncate` wrote, a file a cell")] = None,
) -> None:
    """Combine truncations into the tables `truncation` and `truncation_ranks`, as Parquet and CSV."""
    from lmshape.truncation.tables import write_truncation_tables

    write_truncation_tables(files or [], metrics, output, study=study)
