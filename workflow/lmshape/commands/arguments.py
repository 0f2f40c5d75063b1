"""What the verbs of the command line share: options of one meaning, and closed choices."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


def _found(file: str) -> Path:
    """Return a file from the working directory, else from the repository."""
    from lmshape.study.registry import find_file

    return find_file(file, root=Path.cwd())


Output = Annotated[Path, typer.Option(help="what to write; it appears when it is whole")]
OwnMetrics = Annotated[
    Path | None, typer.Option(help="Python file of own metrics", parser=_found, metavar="FILE")
]
Span = Annotated[tuple[float, float], typer.Option(help="part of the text, as shares of its length")]
Threads = Annotated[int, typer.Option(help="CPU threads", min=1)]


class Protocol(StrEnum):
    """How sequences are cut from a text."""

    windows = "windows"
    paper = "paper"


class Order(StrEnum):
    """What the tokens of a sequence are."""

    text = "text"
    shuffled = "shuffled"
    random = "random"


class Kind(StrEnum):
    """Which loss a model was trained on."""

    decoder = "decoder"
    encoder = "encoder"


# what the verbs share that read a checkpoint's weights
Weights = Annotated[Path, typer.Argument(help="folder of the checkpoint")]
TokenFile = Annotated[Path, typer.Option(help="file that `tokenize` wrote")]
ModelKind = Annotated[Kind, typer.Option(help="what the model was trained to do")]
CellAttributes = Annotated[str, typer.Option(help="what the files shall say of the cell, as JSON")]
Gpus = Annotated[
    int | None, typer.Option(help="that the job was given; with 0 `auto` is the CPU, whatever is here")
]
Blocks = Annotated[int | None, typer.Option(help="blocks that the model must have")]
Width = Annotated[int | None, typer.Option(help="width that the model must have")]
Vocabulary = Annotated[int | None, typer.Option(help="entries that its vocabulary must have")]
RemoteCode = Annotated[bool, typer.Option(help="run the Python code that comes with the weights")]
Keep = Annotated[bool, typer.Option(help="do not delete downloaded weights")]
