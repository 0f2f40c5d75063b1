"""Intrinsic dimension over training steps at a few blocks of each model, beside what the spectrum alone makes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from lmshape.figures import marks, nulls, selection
from lmshape.figures.steps import step_axis
from lmshape.figures.style import looks, paler, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "Intrinsic dimension over training"
BAND_LOOKS = looks(["early", "middle", "last"])


def data(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Select the TwoNN dimension and its surrogate's on the first dataset, at the named blocks and every step.

    Of all rows and, if it was measured, of one row of each token id.
    """
    rows = selection.first_dataset(selection.metric_rows(tables["metrics"], "id_twonn"))
    rows = selection.with_null(selection.with_one_per_type(rows), tables["metrics"], "id_twonn_surrogate")
    return selection.with_named_layers(selection.trajectories(rows))


def draw(data: pd.DataFrame) -> Figure:
    """Draw a panel for each model and choice of rows, on a scale for each model; a line for each named block."""
    with styled():
        if data.empty:
            return marks.empty_figure(
                title=TITLE, note="This study has no `id_twonn` of a block at a known training step."
            )
        models, variants = selection.in_order(data["model"]), selection.in_order(data["rows"])
        figure, panels = marks.panel_grid(models, variants, size=(3.9, 3.1), same_scale=False)
        for (model, rows), ax in panels.items():
            of_model = data[data["model"] == model]
            if rows != variants[0]:
                ax.sharey(panels[model, variants[0]])
            _panel(ax, of_model[of_model["rows"] == rows], steps=data["step"], legend=rows == variants[0])
            kind = of_model["kind"].iloc[0]
            ax.set_title(f"{model} ({kind})\n{marks.VARIANT_NAMES.get(rows, rows)}")
        nulls.legend(figure, data["null"], nulls.SURROGATE)
        title = f"{TITLE}, {selection.dataset_names(data)}"
        marks.finish(figure, title=title, notes=_notes(data))
        return figure


def _panel(ax: Axes, frame: pd.DataFrame, *, steps: pd.Series, legend: bool) -> None:
    marks.dimension_axis(ax)
    if frame.empty:
        return marks.nothing_here(ax, "not measured on these rows")
    for layer, of_layer in frame.groupby("layer"):
        color = paler(BAND_LOOKS[of_layer["band"].iloc[0]].color)
        nulls.line(ax, of_layer, x="step", color=color, label=f"_surrogate of layer {layer:.0f}")
    layer_lines(ax, frame, legend=legend)
    step_axis(ax, steps)
    if ax.get_subplotspec().is_first_col():
        ax.set_ylabel(f"{marks.METRIC_LABELS['id_twonn']}, log scale")


def layer_lines(ax: Axes, frame: pd.DataFrame, *, legend: bool = True) -> None:
    """Draw the dimension of each named block of one model over steps, and a legend of the layers' numbers."""
    for layer, of_layer in frame.groupby("layer"):
        band = of_layer["band"].iloc[0]
        marks.line(ax, of_layer, x="step", look=BAND_LOOKS[band], label=f"{band} (layer {layer:.0f})")
    if legend:
        ax.legend(loc="best")
    marks.note_without_numbers(ax, frame)


def _notes(data: pd.DataFrame) -> list[str]:
    single = [
        model for model, steps in data.groupby("model", sort=False)["step"].nunique().items() if steps == 1
    ]
    return [
        "Each model has its own scale, which does not begin at 0." if data["model"].nunique() > 1 else "",
        marks.interval_note(data, marks.STUDENT),
        nulls.surrogate_note(data["null"]),
        f"One checkpoint only: {', '.join(single)}." if single else "",
        "An estimate at this number of rows, biased low in high dimension.",
        marks.EMBEDDING_NOTE,
        marks.flag_note(data),
        marks.distrusted_note(data),
    ]
