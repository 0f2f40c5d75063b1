"""Anisotropy by layer at each model's last checkpoint: encoders against decoders, with and without sinks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from lmshape.figures import by_layer, marks, selection
from lmshape.figures.style import Look
from lmshape.tables.rows import final_checkpoints, first_dataset

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "Anisotropy by layer: encoders against decoders"
READS = ("anisotropy", "anisotropy_null")


def data(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Select anisotropy on the first dataset at each model's last checkpoint, and its null."""
    rows = selection.metric_rows(tables["metrics"], "anisotropy")
    last = final_checkpoints(first_dataset(rows))
    return selection.with_null(last, tables["metrics"], "anisotropy_null")


def draw(data: pd.DataFrame) -> Figure:
    """Draw one panel for each choice of rows, one line for each model; a panel for each of many models."""
    view = by_layer.LayerView(
        title=TITLE,
        nothing="This study has no anisotropy to draw.",
        label=f"{marks.METRIC_LABELS['anisotropy']} (share of variance)",
        y_axis=marks.anisotropy_axis,
        beside=_null,
        beside_handles=_null_handles,
        notes=_notes,
    )
    return by_layer.draw(data, view)


def _null(ax: Axes, frame: pd.DataFrame, _: Look) -> None:
    marks.null_line(ax, frame, x="depth")


def _null_handles(data: pd.DataFrame) -> Sequence[Artist]:
    return [marks.handle(marks.ISOTROPIC)] if data["null"].notna().any() else []


def _notes(data: pd.DataFrame) -> Sequence[str]:
    return [
        marks.interval_note(data, marks.JACKKNIFE),
        marks.isotropic_note(data["null"]),
        marks.sink_note(data),
        marks.flag_note(data),
    ]
