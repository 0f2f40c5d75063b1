"""What a probe during pretraining writes: the CSV file of the geometry by step and layer."""

from __future__ import annotations

from collections.abc import Iterable
from math import isnan
from pathlib import Path

from lmshape.writing.atomic import replaced_when_whole

COLUMNS = ("step", "layer", "metric", "value")
Row = tuple[int, int, str, float]


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write step, layer, metric and value, whole or not at all: NaN is an empty cell, no row the header alone."""
    lines = (
        f"{step},{layer},{metric},{'' if isnan(value) else value}" for step, layer, metric, value in rows
    )
    with replaced_when_whole(Path(path)) as partial:
        Path(partial).write_text("\n".join([",".join(COLUMNS), *lines]) + "\n")
