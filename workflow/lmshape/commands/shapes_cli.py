"""The verbs of the command line that show the shape of layers: spectra and points of one model, then of all.

Stations are imported inside their verb, as in `lmshape.commands.cli`, which registers these.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lmshape.commands.arguments import Output


def shapes(
    model: str,
    output: Annotated[Path, typer.Option(help="folder of spectra.parquet and clouds.parquet of the model")],
    study: Annotated[str, typer.Option(help="name of the study, a column of the tables")],
    checkpoint: Annotated[list[str], typer.Option(help="may be given again, as may the following")],
    dataset: Annotated[list[str], typer.Option(help="one: the model's first")],
    layers: Annotated[list[str] | None, typer.Option(help="block of layers as in the files, 00-06")] = None,
    family: Annotated[
        list[str] | None, typer.Option(help="spectral, leading: those that were measured")
    ] = None,
) -> None:
    """Take spectra and single rows of a few layers of a model from its statistics, below results/."""
    from lmshape.paths import statistics_files
    from lmshape.tables.shapes import shapes as run

    blocks = [tuple(int(layer) for layer in block.split("-")) for block in layers or []]
    archives = statistics_files(model, checkpoint, dataset, families=family or [], blocks=blocks)
    run([Path(archive) for archive in archives], output, study=study)


def combine_shapes(
    folders: Annotated[list[Path], typer.Argument(help="what `shapes` wrote, a folder for each model")],
    output: Output,
) -> None:
    """Combine the spectra and points of the models into the study's tables `spectra` and `clouds`."""
    from lmshape.tables.shapes import combine_shapes as run

    run(folders, output)
