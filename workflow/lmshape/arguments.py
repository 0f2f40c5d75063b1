"""What the verbs of the command line share: options of one meaning, and closed choices."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


def _found(file: str) -> Path:
    """Return a file from the working directory, else from the repository."""
    from lmshape.registry import find_file

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
