"""Many models on text and on other tokens: the middle block of each at its last checkpoint, a dot for each dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd

from lmshape.figures import marks, selection
from lmshape.figures.style import FAINT, Look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NOTE = "The middle block of each model at its last checkpoint; other layers and steps: in the CSV file."
LABELS = {"anisotropy": "anisotropy $\\lambda_1/\\Sigma\\lambda$", "id_twonn": "dimension (TwoNN), log scale"}
INCHES_A_MODEL = 0.3
BETWEEN = 0.6  # of a row, from the first dataset's dot to the last's


def draw(data: pd.DataFrame, look: Mapping[str, Look]) -> Figure:
    """Draw a row for each model and a panel for each metric and choice of rows, with dots over their intervals."""
    from matplotlib.figure import Figure

    middle, models = _middle(data), selection.in_order(data["model"])
    columns = middle[["metric", "rows"]].drop_duplicates().itertuples(index=False, name=None)
    columns = list(columns) or [("anisotropy", "all")]
    figure = Figure(figsize=(max(2.6 * len(columns), 10), INCHES_A_MODEL * len(models) + 1.9))
    axes = figure.subplots(1, len(columns), squeeze=False, sharey=True)[0]
    for (metric, rows), ax in zip(columns, axes, strict=True):
        of_panel = middle[(middle["metric"] == metric) & (middle["rows"] == rows)]
        _panel(ax, of_panel, models, look)
        ax.set_title(marks.SHORT_VARIANT_NAMES.get(rows, rows))
        _value_axis(ax, metric)
        if of_panel["value"].isna().all():
            marks.nothing_here(ax, "every value is flagged: nothing to draw")
    axes[0].set_yticks(range(len(models)), models)
    axes[0].set_ylim(len(models) - 0.5, -0.5)
    return figure


def _middle(data: pd.DataFrame) -> pd.DataFrame:
    blocks = data[(data["view"] == "by layer") & (data["site"] == "block")]
    layer = blocks.groupby("model")["layer"].transform("max").map(selection.middle_layer)
    return blocks[blocks["layer"] == layer]


def _panel(ax: Axes, frame: pd.DataFrame, models: Sequence[str], look: Mapping[str, Look]) -> None:
    place = {model: i for i, model in enumerate(models)}
    names = list(look)
    for i, (dataset, its) in enumerate(look.items()):
        of_dataset = frame[frame["dataset"] == dataset]
        rows = of_dataset["model"].map(place) + BETWEEN * (i / max(len(names) - 1, 1) - 0.5)
        its = replace(its, size=5.0)
        ax.hlines(rows, of_dataset["ci_low"], of_dataset["ci_high"], color=its.color, linewidth=1.2)
        ax.plot(of_dataset["value"], rows, label=dataset, **(its.settings | {"linestyle": "none"}))
        ax.plot(of_dataset["null"], rows, "|", markersize=7, color=FAINT, label="_null")
    for row in range(1, len(models), 2):
        ax.axhspan(row - 0.5, row + 0.5, color="#F5F5F5", zorder=0, linewidth=0)


def _value_axis(ax: Axes, metric: str) -> None:
    ax.set_xlabel(LABELS[metric])
    ax.grid(visible=True, axis="x")
    ax.grid(visible=False, axis="y")
    if metric == "anisotropy":
        ax.set_xlim(-0.02, 1.02)
        return
    ax.set_xscale("log")
    marks.plain_log_axis(ax, axis="x")
