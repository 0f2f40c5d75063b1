"""How far each block is a linear map, at each model's last checkpoint: of its whole output and of its update alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from lmshape.figures import by_layer, marks, selection
from lmshape.figures.style import FAINT, Look, paler
from lmshape.tables.rows import final_checkpoints, first_dataset

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "Linearity by layer: encoders against decoders"
MEASURES = {"linearity": "whole output", "linearity_residual": "update alone"}
READS = (*MEASURES, *(f"{measure}_held_out" for measure in MEASURES), "linearity_null")
IN_SAMPLE = "in sample: fitted to the same rows"
NULL = "in sample, of noise: d/n"


def data(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Select the held-out linearity of each block on the first dataset at each model's last checkpoint.

    `in_sample` is the same of the rows that the map was fitted to, `null` what it reads for noise; `panel` names
    the measure and the rows.
    """
    metrics = tables["metrics"]
    last = pd.concat([_held_out(metrics, measure) for measure in MEASURES], ignore_index=True)
    with_null = selection.with_null(last, metrics, "linearity_null")
    variants = with_null["rows"].map(marks.SHORT_VARIANT_NAMES).fillna(with_null["rows"])
    panel = with_null["metric"].map({f"{name}_held_out": words for name, words in MEASURES.items()})
    return with_null.assign(panel=panel + ", " + variants)


def _held_out(metrics: pd.DataFrame, measure: str) -> pd.DataFrame:
    rows = selection.metric_rows(metrics, f"{measure}_held_out")
    last = final_checkpoints(first_dataset(rows[rows["site"] == "block"]))
    return selection.with_null(last, metrics, measure).rename(columns={"null": "in_sample"})


def draw(data: pd.DataFrame) -> Figure:
    """Draw a panel for each measure and choice of rows, one line for each model; a panel for each of many models."""
    view = by_layer.LayerView(
        title=TITLE,
        nothing="This study has no held-out linearity of a block.",
        label="linearity: explained share of variance, held out",
        y_axis=_axis,
        beside=_beside,
        beside_handles=_handles,
        notes=_notes,
        panels="panel",
        first_depth="0",
        size=(3.3, 3.9),
    )
    return by_layer.draw(data, view)


def _axis(ax: Axes) -> None:
    """Make y 0 to 1, or from the lowest value where a map predicts worse than the mean."""
    together = ax.get_shared_y_axes().get_siblings(ax)
    ax.set_ylim(min(-0.03, *(min(one.dataLim.y0 - 0.03, -0.03) for one in together)), 1.03)
    ax.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])


def _beside(ax: Axes, frame: pd.DataFrame, look: Look) -> None:
    frame = frame.sort_values("layer", kind="stable")
    ax.plot(frame["depth"], frame["in_sample"], color=paler(look.color), linewidth=0.8, label="_in sample")
    marks.null_line(ax, frame, x="depth", label=NULL)


def _handles(data: pd.DataFrame) -> Sequence[Artist]:
    from matplotlib.lines import Line2D

    handles = []
    if data["in_sample"].notna().any():
        handles.append(Line2D([], [], color=FAINT, linewidth=0.8, label=IN_SAMPLE))
    return handles + ([marks.handle(NULL)] if data["null"].notna().any() else [])


def _notes(data: pd.DataFrame) -> Sequence[str]:
    return [
        "1 − ‖XA − Y‖² of the best linear map A from a block's input X to Y: its output, which carries X along,"
        " or its update alone, output less input. A is fitted to half of the sequences and scored on the other half.",
        marks.interval_note(data, marks.JACKKNIFE),
        marks.sink_note(data),
        marks.flag_note(data),
    ]
