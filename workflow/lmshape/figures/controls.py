"""The curves again on shuffled and random tokens: what depends on language, and what on the network alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lmshape.figures import layout, marks, notes, selection
from lmshape.figures.drawing import Drawing
from lmshape.figures.steps import step_axis
from lmshape.figures.style import FAINT, Look, nested_looks
from lmshape.site import middle_layer
from lmshape.tables.rows import final_checkpoints, in_order, trajectories

NULLS = {"anisotropy": "anisotropy_null", "id_twonn": "id_twonn_surrogate"}  # of each metric
MOST_MODELS = 4  # with curves of their own; more are compared by their middle blocks
MOST_MARKERS = 13  # of a line
NARROWEST = 1.3  # points: the last of nested lines, whose null has 1


def data(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Select anisotropy and TwoNN dimension of every choice of rows on every dataset, for two views.

    `view` "by layer" holds every layer of the last checkpoint, "over training" the middle layer at every
    step; `null` is what isotropic rows, or Gaussian rows of the same covariance, read. Decoders, whose claims the
    controls test, come first. Models on one dataset, which have no control, are left out if others have;
    `left_out` names them.
    """
    metrics = tables["metrics"]
    parts = [
        selection.with_null(selection.metric_rows(metrics, name), metrics, null)
        for name, null in NULLS.items()
    ]
    rows = pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
    rows = _controlled(rows.sort_values("kind", kind="stable"))
    rows = rows[(rows["metric"] != "id_twonn") | (rows["site"] != "embedding")]
    steps = trajectories(rows[rows["site"] != "final_norm"])
    middle = steps[steps["layer"] == steps.groupby("model")["layer"].transform("max").map(middle_layer)]
    views = [final_checkpoints(rows).assign(view="by layer"), middle.assign(view="over training")]
    return pd.concat([view for view in views if len(view)] or views[:1], ignore_index=True)


def _controlled(rows: pd.DataFrame) -> pd.DataFrame:
    datasets = rows.groupby("model", sort=False)["dataset"].nunique()
    alone = datasets[datasets < 2].index if (datasets > 1).any() else []
    return rows[~rows["model"].isin(alone)].assign(left_out=", ".join(alone))


def draw_panels(data: pd.DataFrame) -> Figure:
    """Draw both metrics by layer and over training, a line a dataset; of many models dots of their middle blocks."""
    look = nested_looks(in_order(data["dataset"]))
    many = data["model"].nunique() > MOST_MODELS
    figure = _dots(data, look) if many else _curves(data, look)
    entries = [marks.entry(dataset, its) for dataset, its in look.items()]
    entries += _null_entries(data, many=many)
    figure.legend(handles=entries, loc="outside upper right", ncols=3)
    return figure


def _null_entries(data: pd.DataFrame, *, many: bool) -> list[Artist]:
    nulls = marks.nulls_of_both(data)
    if many and nulls:
        tick: dict[str, Any] = {"linestyle": "none", "marker": "|", "markersize": 7, "color": FAINT}
        return [Line2D([], [], label="; ".join(nulls), **tick)]
    return [marks.null_entry(label, marker=marker) for label, marker in nulls.items()]


# Curves


def _curves(data: pd.DataFrame, look: Mapping[str, Look]) -> Figure:
    """Draw a row of panels for each model and choice of rows."""
    places = [(model, rows) for model in in_order(data["model"]) for rows in in_order(data["rows"])]
    figure = Figure(figsize=(13, 2.6 * len(places) + 0.7))
    grid = figure.subplots(len(places), 4, squeeze=False)
    for ax in grid[:, 2:].flat[1:]:
        ax.sharey(grid[0, 2])
    for (model, rows), axes in zip(places, grid, strict=True):
        for metric, (layers, training) in zip(NULLS, (axes[:2], axes[2:]), strict=True):
            of_pair = data[(data["model"] == model) & (data["rows"] == rows) & (data["metric"] == metric)]
            _by_layer(layers, of_pair[of_pair["view"] == "by layer"], look, metric, rows)
            _over_training(training, of_pair[of_pair["view"] == "over training"], look, metric, rows)
    return figure


def _by_layer(ax: Axes, frame: pd.DataFrame, look: Mapping[str, Look], metric: str, rows: str) -> None:
    if frame.empty:
        return layout.nothing_here(ax, _absence(metric, rows))
    blocks = int(frame["layer"].max())
    norm = frame["site"] == "final_norm"
    for dataset, of_dataset in frame.groupby("dataset", sort=False):
        final, its = of_dataset["site"] == "final_norm", look[dataset]
        marks.line(ax, of_dataset[~final], x="layer", look=its, label=dataset, most_markers=MOST_MARKERS)
        marks.off_line(ax, of_dataset[final], x=marks.final_norm_place(blocks), look=its)
    _nulls(ax, frame[~norm], "layer", look)
    marks.layer_axis(ax, blocks, final_norm=bool(norm.any()), embedding=metric == "anisotropy")
    layout.note_without_numbers(ax, frame)
    step = int(frame["step"].max())
    _finish_panel(ax, frame, metric, f"step {step}" if step >= 0 else "last checkpoint")


def _absence(metric: str, rows: str) -> str:
    if metric == "anisotropy" and rows == "one_per_type":
        return "One row of each token id is a control of the dimension alone."
    return f"`{metric}` not measured{' on a block' if metric == 'id_twonn' else ''}"


def _over_training(ax: Axes, frame: pd.DataFrame, look: Mapping[str, Look], metric: str, rows: str) -> None:
    if frame["step"].nunique() < 2:
        by_type = metric == "anisotropy" and rows == "one_per_type"
        return layout.nothing_here(ax, "" if by_type else "fewer than two training steps to draw")
    for dataset, of_dataset in frame.groupby("dataset", sort=False):
        marks.line(ax, of_dataset, x="step", look=look[dataset], label=dataset, most_markers=MOST_MARKERS)
    _nulls(ax, frame, "step", look)
    step_axis(ax, frame["step"])
    _finish_panel(ax, frame, metric, f"layer {frame['layer'].iloc[0]} over training")


def _nulls(ax: Axes, frame: pd.DataFrame, x: str, look: Mapping[str, Look]) -> None:
    """Draw the null of each dataset's dimension; of anisotropy the text's, which stands for all: n is the same."""
    for place, (dataset, of_dataset) in enumerate(frame.groupby("dataset", sort=False)):
        if (of_dataset["metric"] == "id_twonn").any():
            # narrower from one to the next, as the lines: where they coincide, they lie on one another
            width = 1 + 0.6 * max(look[dataset].width - NARROWEST, 0)
            marks.surrogate_line(ax, of_dataset, x=x, look=look[dataset], width=width, stretch=2)
        elif place == 0:
            marks.null_line(ax, of_dataset, x=x)


def _finish_panel(ax: Axes, frame: pd.DataFrame, metric: str, view: str) -> None:
    model, rows = frame[["model", "rows"]].iloc[0]
    ax.set_title(layout.panel_title(f"{model}, {view}", rows))
    marks.metric_axis(ax, metric)


# Dots

METRIC_LABELS = {
    "anisotropy": marks.METRIC_LABELS["anisotropy"],
    "id_twonn": "dimension (TwoNN), log scale",
}
INCHES_A_MODEL = 0.3
BETWEEN = 0.6  # of a row, from the first dataset's dot to the last's


def _dots(data: pd.DataFrame, look: Mapping[str, Look]) -> Figure:
    """Draw a row for each model and a panel for each metric and choice of rows, with dots over their intervals."""
    middle, models = _middle_blocks(data), in_order(data["model"])
    columns = list(middle[["metric", "rows"]].drop_duplicates().itertuples(index=False, name=None))
    columns = columns or [("anisotropy", "all")]
    figure = Figure(figsize=(max(2.6 * len(columns), 10), INCHES_A_MODEL * len(models) + 1.9))
    axes = figure.subplots(1, len(columns), squeeze=False, sharey=True)[0]
    for (metric, rows), ax in zip(columns, axes, strict=True):
        of_panel = middle[(middle["metric"] == metric) & (middle["rows"] == rows)]
        _dot_panel(ax, of_panel, models, look)
        ax.set_title(layout.SHORT_VARIANT_NAMES.get(rows, rows))
        _dot_axis(ax, metric)
        if of_panel["value"].isna().all():
            layout.nothing_here(ax, "every value is flagged: nothing to draw")
    axes[0].set_yticks(range(len(models)), models)
    return figure


def _middle_blocks(data: pd.DataFrame) -> pd.DataFrame:
    blocks = data[(data["view"] == "by layer") & (data["site"] == "block")]
    layer = blocks.groupby("model")["layer"].transform("max").map(middle_layer)
    return blocks[blocks["layer"] == layer]


def _dot_panel(ax: Axes, frame: pd.DataFrame, models: Sequence[str], look: Mapping[str, Look]) -> None:
    place = {model: i for i, model in enumerate(models)}
    for i, (dataset, its) in enumerate(look.items()):
        of_dataset = frame[frame["dataset"] == dataset]
        rows = of_dataset["model"].map(place) + BETWEEN * (i / max(len(look) - 1, 1) - 0.5)
        dot = replace(its, line="none", size=5.0)
        ax.hlines(rows, of_dataset["ci_low"], of_dataset["ci_high"], color=its.color, linewidth=1.2)
        ax.plot(of_dataset["value"], rows, label=dataset, **dot.settings)
        ax.plot(of_dataset["null"], rows, "|", markersize=7, color=FAINT, label="_null")
    marks.shade_every_other_row(ax, len(models))


def _dot_axis(ax: Axes, metric: str) -> None:
    ax.set_xlabel(METRIC_LABELS[metric])
    ax.grid(visible=True, axis="x")
    ax.grid(visible=False, axis="y")
    if metric == "anisotropy":
        ax.set_xlim(-0.02, 1.02)
    else:
        ax.set_xscale("log")
        marks.plain_log_axis(ax, axis="x")


# Notes


def _notes(data: pd.DataFrame) -> list[str]:
    many = data["model"].nunique() > MOST_MODELS
    controlled = data.groupby("model")["dataset"].nunique().max() > 1
    left_out = data["left_out"].astype(object).fillna("").iloc[0]
    nested = (
        "Lines, and their dashes, grow narrower in the order of the legend: where curves coincide, they lie on one"
        " another."
    )
    mark = "Ticks:" if many else "Dashed:"
    return [
        "The middle block of each model at its last checkpoint; other layers and steps: in the CSV file."
        if many
        else "",
        "" if controlled else "No model was measured on two datasets: there is no control to compare with.",
        nested if controlled and not many else "",
        f"Not drawn, as measured on one dataset only: {left_out}." if left_out else "",
        "" if many else "Dimensions have one scale, which need not begin at 0.",
        notes.intervals(data, notes.BOTH),
        notes.isotropic(data.loc[data["metric"] == "anisotropy", "null"], f"{mark} {notes.ISOTROPIC},"),
        notes.surrogate(data.loc[data["metric"] == "id_twonn", "null"], mark),
        notes.EMBEDDING,
        *notes.common(data),
    ]


CONTROLS = Drawing(
    title="The same curves on other tokens",
    reads=(*NULLS, *NULLS.values()),
    data=data,
    panels=draw_panels,
    notes=_notes,
    nothing="This study has neither `anisotropy` nor `id_twonn`.",
    heading="{title}: {datasets}",
    crowds=False,
)
