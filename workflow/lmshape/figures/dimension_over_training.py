"""Intrinsic dimension over training steps at a few blocks of each model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from lmshape.figures import marks, selection
from lmshape.figures.steps import step_axis
from lmshape.figures.style import looks, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "Intrinsic dimension over training"
BAND_LOOKS = looks(["early", "middle", "last"])


def data(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Select the TwoNN dimension of all rows on the first dataset, at the named blocks and every step."""
    rows = selection.first_dataset(selection.metric_rows(tables["metrics"], "id_twonn"))
    return selection.with_named_layers(selection.trajectories(selection.variant(rows, "all")))


def draw(data: pd.DataFrame) -> Figure:
    """Draw a panel for each model on a scale of its own, a line for each named block."""
    with styled():
        if data.empty:
            return marks.empty_figure(
                title=TITLE, note="This study has no `id_twonn` of a block at a known training step."
            )
        models = selection.in_order(data["model"])
        figure, panels = marks.panel_grid(models, ["all"], size=(3.9, 3.7), same_scale=False)
        for model in models:
            ax = panels[model, "all"]
            layer_lines(ax, data[data["model"] == model])
            ax.set_title(f"{model} ({data.loc[data['model'] == model, 'kind'].iloc[0]})")
            step_axis(ax, data["step"])
        for ax in panels.values():
            if ax.get_subplotspec().is_first_col():
                ax.set_ylabel(marks.METRIC_LABELS["id_twonn"])
        title = f"{TITLE}, {selection.dataset_names(data)}"
        marks.finish(figure, title=title, notes=_notes(data))
        return figure


def layer_lines(ax: Axes, frame: pd.DataFrame) -> None:
    """Draw the dimension of each named block of one model over steps, and a legend of the layers' numbers."""
    for layer, of_layer in frame.groupby("layer"):
        band = of_layer["band"].iloc[0]
        marks.line(ax, of_layer, x="step", look=BAND_LOOKS[band], label=f"{band} (layer {layer:.0f})")
    ax.legend(loc="best")
    marks.note_without_numbers(ax, frame)


def _notes(data: pd.DataFrame) -> list[str]:
    single = [
        model for model, steps in data.groupby("model", sort=False)["step"].nunique().items() if steps == 1
    ]
    return [
        "Each panel has its own scale, which need not begin at 0." if data["model"].nunique() > 1 else "",
        marks.interval_note(data, marks.STUDENT),
        f"One checkpoint only: {', '.join(single)}." if single else "",
        "An estimate at this number of rows, biased low in high dimension.",
        marks.EMBEDDING_NOTE,
        marks.flag_note(data),
    ]
