"""The verbs of the command line that throw dimensions away: the loss of a cell, and the tables of all.

Stations are imported inside their verb, as in `lmshape.cli`, which registers these.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from lmshape.arguments import Kind, Output, Threads


def truncate(
    weights: Annotated[Path, typer.Argument(help="folder of the checkpoint")],
    output: Output,
    tokens: Annotated[Path, typer.Option(help="file that `tokenize` wrote")],
    kind: Annotated[
        Kind, typer.Option(help="what the model was trained to do; only decoders have this loss")
    ],
    attributes: Annotated[str, typer.Option(help="what the file shall say of the cell, as JSON")],
    rows: Annotated[list[str], typer.Option(help="all, no_sink; may be given again")],
    sequences: Annotated[int, typer.Option(help="of each draw, whose loss is measured")],
    rank: Annotated[list[int] | None, typer.Option(help="leading axes to keep; may be given again")] = None,
    removed: Annotated[
        list[int] | None, typer.Option(help="leading axes to remove; may be given again")
    ] = None,
    dtype: str = "auto",
    device: str = "auto",
    gpus: Annotated[
        int | None, typer.Option(help="that the job was given; with 0 `auto` is the CPU, whatever is here")
    ] = None,
    device_map: str = "none",
    batch_tokens: str = "auto",
    blocks: Annotated[int | None, typer.Option(help="blocks that the model must have")] = None,
    width: Annotated[int | None, typer.Option(help="width that the model must have")] = None,
    vocabulary: Annotated[int | None, typer.Option(help="entries that its vocabulary must have")] = None,
    remote_code: Annotated[
        bool, typer.Option(help="run the Python code that comes with the weights")
    ] = False,
    reader: Annotated[
        str | None, typer.Option(help="what this job is called among those of `--read-by`")
    ] = None,
    read_by: Annotated[
        list[str] | None,
        typer.Option(help="all that read; downloaded weights are deleted when all of them have"),
    ] = None,
    keep: Annotated[bool, typer.Option(help="do not delete downloaded weights")] = False,
    threads: Threads = 1,
) -> None:
    """Measure the loss of a decoder with the residual stream projected on its leading axes, layer by layer."""
    from lmshape.hub.budget import release as note_reading
    from lmshape.hub.receipt import read_receipt
    from lmshape.store import read_tokens
    from lmshape.truncation import truncate as run
    from lmshape.truncation_layer import Trial

    run(
        weights,
        read_tokens(tokens),
        output=output,
        attributes=json.loads(attributes) | read_receipt(weights),
        kind=kind.value,
        trial=Trial(rows=rows, ranks=rank or None, removed=removed or None),
        sequences=sequences,
        dtype=dtype,
        device="cpu" if device == "auto" and gpus == 0 else device,
        device_map=device_map,
        batch_tokens=batch_tokens,
        threads=threads,
        expected_blocks=blocks,
        expected_width=width,
        expected_vocabulary=vocabulary,
        remote_code=remote_code,
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
    from lmshape.truncation_tables import write_truncation_tables

    write_truncation_tables(files or [], metrics, output, study=study)
