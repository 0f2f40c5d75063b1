"""Intrinsic dimension by block at each model's last checkpoint, beside that of Gaussian rows of its covariance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from lmshape.figures import by_layer, marks, selection
from lmshape.figures.style import Look, paler
from lmshape.tables.rows import final_checkpoints, first_dataset

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "Intrinsic dimension by layer: encoders against decoders"
READS = ("id_twonn", "id_twonn_surrogate")


def data(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Select the TwoNN dimension of blocks and final norm on the first dataset at each model's last checkpoint.

    `null` is that of Gaussian rows with the same covariance.
    """
    rows = selection.metric_rows(tables["metrics"], "id_twonn")
    last = final_checkpoints(first_dataset(rows[rows["site"] != "embedding"]))
    return selection.with_null(last, tables["metrics"], "id_twonn_surrogate")


def draw(data: pd.DataFrame) -> Figure:
    """Draw one panel for each choice of rows, one line for each model; a panel for each of many models."""
    view = by_layer.LayerView(
        title=TITLE,
        nothing="This study has no `id_twonn` of a block.",
        label=f"{marks.METRIC_LABELS['id_twonn']}, log scale",
        y_axis=marks.dimension_axis,
        beside=_surrogate,
        beside_handles=_surrogate_handles,
        notes=_notes,
        first_depth="",
        size=(4.0, 4.0),
    )
    return by_layer.draw(data, view)


def _surrogate(ax: Axes, frame: pd.DataFrame, look: Look) -> None:
    marks.null_line(ax, frame, x="depth", color=paler(look.color), label="_surrogate", marker=look.marker)


def _surrogate_handles(data: pd.DataFrame) -> Sequence[Artist]:
    return [marks.handle(marks.SURROGATE)] if data["null"].notna().any() else []


def _notes(data: pd.DataFrame) -> Sequence[str]:
    return [
        marks.interval_note(data, marks.STUDENT),
        marks.surrogate_note(data["null"]),
        marks.dimension_note(data),
        marks.EMBEDDING_NOTE,
        marks.sink_note(data),
        marks.flag_note(data),
    ]
