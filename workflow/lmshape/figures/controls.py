"""The curves again on shuffled and random tokens: what depends on language, and what on the network alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd

from lmshape.figures import marks, selection
from lmshape.figures.steps import step_axis
from lmshape.figures.style import FAINT, Look, nested_looks, paler, styled
from lmshape.site import middle_layer
from lmshape.tables.rows import final_checkpoints, in_order, trajectories

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


NOTE = "The middle block of each model at its last checkpoint; other layers and steps: in the CSV file."
LABELS = {"anisotropy": "anisotropy $\\lambda_1/\\Sigma\\lambda$", "id_twonn": "dimension (TwoNN), log scale"}
INCHES_A_MODEL = 0.3
BETWEEN = 0.6  # of a row, from the first dataset's dot to the last's


def draw_of_control_dots(data: pd.DataFrame, look: Mapping[str, Look]) -> Figure:
    """Draw a row for each model and a panel for each metric and choice of rows, with dots over their intervals."""
    from matplotlib.figure import Figure

    middle, models = _middle(data), in_order(data["model"])
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
    layer = blocks.groupby("model")["layer"].transform("max").map(middle_layer)
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


TITLE = "The same curves on other tokens"
METRICS = ("anisotropy", "id_twonn")
NULLS = {"anisotropy": "anisotropy_null", "id_twonn": "id_twonn_surrogate"}
READS = (*METRICS, *NULLS.values())
MOST_MARKERS = 13  # of a line
NARROWEST = 1.3  # points: the last of nested lines, whose null has 1
MOST_MODELS = 4  # with curves of their own; more are compared by their middle blocks


def data(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Select anisotropy and TwoNN dimension of every choice of rows on every dataset, for two views.

    `view` "by layer" holds every layer of the last checkpoint, "over training" the middle layer at every
    step; `null` is what isotropic rows, or Gaussian rows of the same covariance, read. Decoders, whose claims the
    controls test, come first. Models on one dataset, which have no control, are left out if others have;
    `left_out` names them.
    """
    metrics = tables["metrics"]
    rows_of = {name: selection.metric_rows(metrics, name) for name in METRICS}
    parts = [selection.with_null(rows, metrics, NULLS[name]) for name, rows in rows_of.items()]
    rows = pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
    rows = _controlled(rows.sort_values("kind", kind="stable"))
    rows = rows[(rows["metric"] != "id_twonn") | (rows["site"] != "embedding")]
    steps = trajectories(rows[rows["site"] != "final_norm"])
    middle = steps[steps["layer"] == steps.groupby("model")["layer"].transform("max").map(middle_layer)]
    views = [
        final_checkpoints(rows).assign(view="by layer"),
        middle.assign(view="over training"),
    ]
    return pd.concat([view for view in views if len(view)] or views[:1], ignore_index=True)


def _controlled(rows: pd.DataFrame) -> pd.DataFrame:
    datasets = rows.groupby("model", sort=False)["dataset"].nunique()
    alone = datasets[datasets < 2].index if (datasets > 1).any() else []
    return rows[~rows["model"].isin(alone)].assign(left_out=", ".join(alone))


def draw(data: pd.DataFrame) -> Figure:
    """Draw a row of panels for each model and choice of rows, both metrics by layer and over training.

    A line is a dataset. Of more than four models, only the middle blocks are drawn: `control_dots`.
    """
    with styled():
        if data.empty:
            return marks.empty_figure(title=TITLE, note="This study has neither `anisotropy` nor `id_twonn`.")
        look = nested_looks(in_order(data["dataset"]))
        many = data["model"].nunique() > MOST_MODELS
        figure = draw_of_control_dots(data, look) if many else _curves(data, look)
        _legend(figure, look, data, many=many)
        title = f"{TITLE}: {', '.join(look)}"
        marks.finish(figure, title=title, notes=[NOTE if many else "", *_notes(data, many=many)])
        return figure


def _curves(data: pd.DataFrame, look: Mapping[str, Look]) -> Figure:
    from matplotlib.figure import Figure

    models, variants = in_order(data["model"]), in_order(data["rows"])
    places = [(model, rows) for model in models for rows in variants]
    figure = Figure(figsize=(13, 2.6 * len(places) + 0.7))
    grid = figure.subplots(len(places), 4, squeeze=False)
    for ax in grid[:, 2:].flat[1:]:
        ax.sharey(grid[0, 2])
    for (model, rows), axes in zip(places, grid, strict=True):
        for metric, pair in zip(METRICS, (axes[:2], axes[2:]), strict=True):
            of_pair = data[(data["model"] == model) & (data["rows"] == rows) & (data["metric"] == metric)]
            _by_layer(pair[0], of_pair, look, metric, rows)
            _over_training(pair[1], of_pair, look, metric, rows)
    return figure


def _legend(figure: Figure, look: Mapping[str, Look], data: pd.DataFrame, *, many: bool) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], label=dataset, **its.settings) for dataset, its in look.items()]
    handles += marks.handles(data, dots=many)
    figure.legend(handles=handles, loc="outside upper right", ncols=3)


def _by_layer(ax: Axes, frame: pd.DataFrame, look: Mapping[str, Look], metric: str, rows: str) -> None:
    frame = frame[frame["view"] == "by layer"]
    if frame.empty:
        return marks.nothing_here(ax, _absence(metric, rows))
    blocks = int(frame["layer"].max())
    for dataset, of_dataset in frame.groupby("dataset", sort=False):
        final = of_dataset["site"] == "final_norm"
        inside, its = of_dataset[~final], look[dataset]
        marks.line(ax, inside, x="layer", look=its, label=dataset, most_markers=MOST_MARKERS)
        marks.off_line(ax, of_dataset[final], x=marks.final_norm_place(blocks), look=look[dataset])
    _nulls(ax, frame[frame["site"] != "final_norm"], "layer", look)
    final_norm = bool((frame["site"] == "final_norm").any())
    marks.layer_axis(ax, blocks, final_norm=final_norm, embedding=metric == "anisotropy")
    step = int(frame["step"].max())
    marks.note_without_numbers(ax, frame)
    _finish_panel(ax, frame, metric, f"step {step}" if step >= 0 else "last checkpoint")


def _absence(metric: str, rows: str) -> str:
    if metric == "anisotropy" and rows == "one_per_type":
        return "One row of each token id is a control of the dimension alone."
    return f"`{metric}` not measured{' on a block' if metric == 'id_twonn' else ''}"


def _nulls(ax: Axes, frame: pd.DataFrame, x: str, look: Mapping[str, Look]) -> None:
    """Draw the null of each dataset's dimension; of anisotropy the text's, which stands for all: n is the same."""
    for place, (dataset, of_dataset) in enumerate(frame.groupby("dataset", sort=False)):
        if (of_dataset["metric"] == "id_twonn").any():
            its = look[dataset]
            # narrower from one to the next, as the lines: where they coincide, they lie on one another
            marks.null_line(ax, of_dataset, x=x, color=paler(its.color), label="_surrogate", marker=its.marker,
                       width=1 + 0.6 * max(its.width - NARROWEST, 0), stretch=2)  # fmt: skip
        elif place == 0:
            marks.null_line(ax, of_dataset, x=x)


def _over_training(ax: Axes, frame: pd.DataFrame, look: Mapping[str, Look], metric: str, rows: str) -> None:
    frame = frame[frame["view"] == "over training"]
    if frame["step"].nunique() < 2:
        by_type = metric == "anisotropy" and rows == "one_per_type"
        return marks.nothing_here(ax, "" if by_type else "fewer than two training steps to draw")
    for dataset, of_dataset in frame.groupby("dataset", sort=False):
        marks.line(ax, of_dataset, x="step", look=look[dataset], label=dataset, most_markers=MOST_MARKERS)
    _nulls(ax, frame, "step", look)
    step_axis(ax, frame["step"])
    _finish_panel(ax, frame, metric, f"layer {frame['layer'].iloc[0]} over training")


def _finish_panel(ax: Axes, frame: pd.DataFrame, metric: str, view: str) -> None:
    rows = frame["rows"].iloc[0]
    ax.set_title(f"{frame['model'].iloc[0]}, {view}\n{marks.SHORT_VARIANT_NAMES.get(rows, rows)}")
    ax.set_ylabel(marks.AXIS_LABELS[metric])
    if metric == "anisotropy":
        marks.anisotropy_axis(ax)
    else:
        marks.dimension_axis(ax)


def _notes(data: pd.DataFrame, *, many: bool) -> Sequence[str]:
    controlled = data.groupby("model")["dataset"].nunique().max() > 1
    left_out = data["left_out"].astype(object).fillna("").iloc[0]
    none = "No model was measured on two datasets: there is no control to compare with."
    nested = (
        "Lines, and their dashes, grow narrower in the order of the legend: where curves coincide, they lie on one"
        " another."
    )
    mark = "Ticks:" if many else "Dashed:"
    return [
        none if not controlled else "",
        nested if controlled and not many else "",
        f"Not drawn, as measured on one dataset only: {left_out}." if left_out else "",
        "" if many else "Dimensions have one scale, which need not begin at 0.",
        marks.interval_note(data, f"anisotropy: {marks.JACKKNIFE}; dimension: {marks.STUDENT}"),
        marks.isotropic_note(data.loc[data["metric"] == "anisotropy", "null"], f"{mark} {marks.ISOTROPIC},"),
        marks.surrogate_note(data.loc[data["metric"] == "id_twonn", "null"], mark),
        marks.EMBEDDING_NOTE,
        marks.sink_note(data),
        marks.flag_note(data),
        marks.distrusted_note(data),
    ]
