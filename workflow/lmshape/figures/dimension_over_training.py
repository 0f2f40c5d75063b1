"""Intrinsic dimension over training steps at a few blocks of each model, beside what the spectrum alone makes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from lmshape.figures import marks, selection
from lmshape.figures.marks import crowded
from lmshape.figures.steps import step_axis
from lmshape.figures.style import INK, looks, paler, styled
from lmshape.tables.rows import first_dataset, in_order, trajectories

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "Intrinsic dimension over training"
READS = ("id_twonn", "id_twonn_surrogate")
BAND_LOOKS = looks(["early", "middle", "last"])
MOST_MARKERS = 16  # of a line; more of them are a chain that hides how it is dashed


def data(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Select the TwoNN dimension and its surrogate's on the first dataset, at the named blocks and every step.

    Of every choice of rows: all, without sinks and one row of each token id, as far as they were measured.
    """
    rows = first_dataset(selection.metric_rows(tables["metrics"], "id_twonn"))
    rows = selection.with_null(rows, tables["metrics"], "id_twonn_surrogate")
    return selection.with_named_layers(trajectories(rows))


def draw(data: pd.DataFrame) -> Figure:
    """Draw a panel for each model and choice of rows, on a scale for each model; a line for each named block."""
    models, variants = in_order(data["model"]), in_order(data["rows"])
    many = crowded(models)
    with styled(crowded=many):
        if data.empty:
            return marks.empty_figure(
                title=TITLE, note="This study has no `id_twonn` of a block at a known training step."
            )
        figure, panels = marks.small_multiples(models, variants, size=(3.9, 2.8), same_scale=False)
        for (model, rows), ax in panels.items():
            of_model = data[data["model"] == model]
            if rows != variants[0]:
                ax.sharey(panels[model, variants[0]])
            legend = rows == variants[0] and not many
            _panel(ax, of_model[of_model["rows"] == rows], legend=legend)
            kind = of_model["kind"].iloc[0]
            ax.set_title(marks.panel_title(f"{model} ({kind})", rows, crowded=True))
        marks.label_outer_panels(panels.values(), y=not many)
        _legend(figure, data, many=many)
        title = f"{TITLE}, {selection.dataset_names(data)}"
        marks.finish(figure, title=title, notes=_notes(data))
        return figure


def _panel(ax: Axes, frame: pd.DataFrame, *, legend: bool) -> None:
    marks.dimension_axis(ax)
    if frame.empty:
        return marks.nothing_here(ax, "not measured on these rows")
    for layer, of_layer in frame.groupby("layer"):
        look = BAND_LOOKS[of_layer["band"].iloc[0]]
        marks.null_line(ax, of_layer, x="step", color=paler(look.color), label=f"_surrogate of layer {layer:.0f}",
                   marker=look.marker)  # fmt: skip
    layer_lines(ax, frame, legend=legend)
    step_axis(ax, frame["step"])
    ax.set_ylabel(marks.AXIS_LABELS["id_twonn"])


def layer_lines(ax: Axes, frame: pd.DataFrame, *, legend: bool = True) -> None:
    """Draw the dimension of each named block of one model over steps, and a legend of the layers' numbers."""
    for layer, of_layer in frame.groupby("layer"):
        band = of_layer["band"].iloc[0]
        label, look = f"{band} (layer {layer:.0f})", BAND_LOOKS[band]
        marks.line(ax, of_layer, x="step", look=look, label=label, most_markers=MOST_MARKERS)
    if legend:
        ax.legend(loc="best")
    marks.note_without_numbers(ax, frame)


def _legend(figure: Figure, data: pd.DataFrame, *, many: bool) -> None:
    from matplotlib.lines import Line2D

    names = {
        "early": "early: a quarter of the blocks",
        "middle": "middle: half of them",
        "last": "last block",
    }
    lines = [Line2D([], [], label=names[band], **look.settings) for band, look in BAND_LOOKS.items()]
    lines = lines if many else []
    surrogate = [marks.handle(marks.SURROGATE)] if data["null"].notna().any() else []
    if lines or surrogate:
        figure.legend(handles=[*lines, *surrogate], loc="outside upper right", ncols=2 if many else 1)
    if many:
        figure.supylabel(f"{marks.METRIC_LABELS['id_twonn']}, log scale", fontsize=8.5, color=INK)


def _notes(data: pd.DataFrame) -> list[str]:
    single = [
        model for model, steps in data.groupby("model", sort=False)["step"].nunique().items() if steps == 1
    ]
    return [
        "Each model has its own scale, which does not begin at 0." if data["model"].nunique() > 1 else "",
        marks.interval_note(data, marks.STUDENT),
        marks.surrogate_note(data["null"]),
        f"One checkpoint only: {', '.join(single)}." if single else "",
        marks.dimension_note(data),
        marks.EMBEDDING_NOTE,
        marks.sink_note(data),
        marks.flag_note(data),
        marks.distrusted_note(data),
    ]
