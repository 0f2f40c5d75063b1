"""The curves again on shuffled and random tokens: what depends on language, and what on the network alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lmshape.figures import marks, nulls, selection
from lmshape.figures.steps import step_axis
from lmshape.figures.style import Look, nested_looks, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "The same curves on other tokens"
METRICS = ("anisotropy", "id_twonn")


def data(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Select anisotropy and TwoNN dimension of all rows on every dataset, for two views.

    `view` "by layer" holds every layer of the last checkpoint, "over training" the middle layer at every
    step. Decoders, whose claims the controls test, come first. Models on one dataset, which have no control,
    are left out if others have; `left_out` names them.
    """
    rows = pd.concat(
        [selection.metric_rows(tables["metrics"], metric) for metric in METRICS], ignore_index=True
    )
    rows = selection.variant(rows, "all").sort_values("kind", kind="stable")
    rows = _controlled(rows[(rows["metric"] != "id_twonn") | (rows["site"] != "embedding")])
    rows = selection.with_null(rows, tables["metrics"], "anisotropy_null")
    rows["null"] = rows["null"].where(rows["metric"] == "anisotropy")
    steps = selection.trajectories(rows[rows["site"] != "final_norm"])
    middle = steps[
        steps["layer"] == steps.groupby("model")["layer"].transform("max").map(selection.middle_layer)
    ]
    views = [
        selection.final_checkpoints(rows).assign(view="by layer"),
        middle.assign(view="over training"),
    ]
    return pd.concat([view for view in views if len(view)] or views[:1], ignore_index=True)


def _controlled(rows: pd.DataFrame) -> pd.DataFrame:
    datasets = rows.groupby("model", sort=False)["dataset"].nunique()
    alone = datasets[datasets < 2].index if (datasets > 1).any() else []
    return rows[~rows["model"].isin(alone)].assign(left_out=", ".join(alone))


def draw(data: pd.DataFrame) -> Figure:
    """Draw a row of panels for each model, both metrics by layer and over training; a line a dataset."""
    with styled():
        if data.empty:
            return marks.empty_figure(title=TITLE, note="This study has neither `anisotropy` nor `id_twonn`.")
        models, datasets = selection.in_order(data["model"]), selection.in_order(data["dataset"])
        look = nested_looks(datasets)
        figure, grid = _grid(len(models))
        for model, axes in zip(models, grid, strict=True):
            of_model = data[data["model"] == model]
            for metric, pair in zip(METRICS, (axes[:2], axes[2:]), strict=True):
                _by_layer(pair[0], of_model[of_model["metric"] == metric], look, metric)
                _over_training(pair[1], of_model[of_model["metric"] == metric], look, metric)
        _legend(figure, look, data["null"])
        marks.finish(figure, title=f"{TITLE}: {', '.join(datasets)}", notes=_notes(data))
        return figure


def _grid(models: int) -> tuple[Figure, np.ndarray]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3 * models + 0.7))
    grid = figure.subplots(models, 4, squeeze=False)
    for ax in grid[:, 2:].flat[1:]:
        ax.sharey(grid[0, 2])
    return figure, grid


def _legend(figure: Figure, look: Mapping[str, Look], null: pd.Series) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], label=dataset, **its.settings) for dataset, its in look.items()]
    handles += [nulls.handle(nulls.ISOTROPIC)] if null.notna().any() else []
    figure.legend(handles=handles, loc="outside upper right", ncols=min(len(handles), 4))


def _by_layer(ax: Axes, frame: pd.DataFrame, look: Mapping[str, Look], metric: str) -> None:
    frame = frame[frame["view"] == "by layer"]
    if frame.empty:
        where = " on a block" if metric == "id_twonn" else ""
        return marks.nothing_here(ax, f"`{metric}` not measured{where}")
    blocks = int(frame["layer"].max())
    for dataset, of_dataset in frame.groupby("dataset", sort=False):
        final = of_dataset["site"] == "final_norm"
        marks.line(ax, of_dataset[~final], x="layer", look=look[dataset], label=dataset)
        marks.off_line(ax, of_dataset[final], x=marks.final_norm_place(blocks), look=look[dataset])
    nulls.line(ax, _of_text(frame[frame["site"] != "final_norm"]), x="layer")
    final_norm = bool((frame["site"] == "final_norm").any())
    marks.layer_axis(ax, blocks, final_norm=final_norm, embedding=metric == "anisotropy")
    step = int(frame["step"].max())
    marks.note_without_numbers(ax, frame)
    where = f"step {step}" if step >= 0 else "last checkpoint"
    _finish_panel(ax, frame, metric, f"{frame['model'].iloc[0]}\n{where}")


def _of_text(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of the first dataset, whose null stands for all: they have as many rows, to a few sinks."""
    return frame[frame["dataset"].isin(frame["dataset"].head(1))]


def _over_training(ax: Axes, frame: pd.DataFrame, look: Mapping[str, Look], metric: str) -> None:
    frame = frame[frame["view"] == "over training"]
    if frame["step"].nunique() < 2:
        return marks.nothing_here(ax, "fewer than two training steps to draw")
    for dataset, of_dataset in frame.groupby("dataset", sort=False):
        marks.line(ax, of_dataset, x="step", look=look[dataset], label=dataset)
    nulls.line(ax, _of_text(frame), x="step")
    step_axis(ax, frame["step"])
    _finish_panel(
        ax, frame, metric, f"{frame['model'].iloc[0]}\nlayer {frame['layer'].iloc[0]} over training"
    )


def _finish_panel(ax: Axes, frame: pd.DataFrame, metric: str, title: str) -> None:
    ax.set(ylabel=marks.METRIC_LABELS[metric], title=title)
    if metric == "anisotropy":
        marks.anisotropy_axis(ax)


def _notes(data: pd.DataFrame) -> list[str]:
    controlled = data.groupby("model")["dataset"].nunique().max() > 1
    left_out = data["left_out"].astype(object).fillna("").iloc[0]
    return [
        "Lines grow narrower in the order of the legend: where curves coincide, they lie on one another."
        if controlled
        else "No model was measured on two datasets: there is no control to compare with.",
        f"Not drawn, as measured on one dataset only: {left_out}." if left_out else "",
        "All rows, sinks included. Dimensions have one scale, which need not begin at 0.",
        marks.interval_note(data, f"anisotropy: {marks.JACKKNIFE}; dimension: {marks.STUDENT}"),
        nulls.isotropic_note(data["null"]),
        marks.EMBEDDING_NOTE,
        marks.flag_note(data),
        marks.distrusted_note(data),
    ]
