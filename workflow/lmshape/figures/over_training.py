"""Anisotropy and dimension over training: layers at every checkpoint, and the middle block at every step."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import pandas as pd
from matplotlib.lines import Line2D

from lmshape.figures import layout, selection
from lmshape.figures.by_layer import arranged
from lmshape.figures.drawing import Drawing
from lmshape.figures.layout import mark_gone, places_by_rank, step_axis, step_bar
from lmshape.figures.style import FAINT, Page, shades
from lmshape.tables.rows import final_checkpoints, first_dataset, trajectories


def gone_entry() -> list[Line2D]:
    """Give the entry of a checkpoint of which only the tables are left."""
    return [Line2D([], [], color=FAINT, linestyle="none", marker="x", label="weights gone")]


def single_step(data: pd.DataFrame, what: str) -> str:
    """Say that no model was measured at two known steps."""
    steps = data.dropna(subset="value").groupby("model")["step"].nunique()
    return "" if len(steps) and steps.max() > 1 else f"No model has {what} at two training steps."


def several_steps(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of models with two known steps or more; the column `left_out` names the others."""
    steps = frame.groupby("model", sort=False)["step"].nunique()
    single = steps.index[steps < 2]
    return frame[~frame["model"].isin(single)].assign(
        left_out=", ".join(f"{name} (one step)" for name in single)
    )


# Anisotropy: a line for each checkpoint


def _anisotropy(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Select anisotropy on the first dataset at every layer and known step, with its `null`."""
    rows = first_dataset(selection.metric_rows(tables["metrics"], "anisotropy"))
    steps = selection.with_null(trajectories(rows), tables["metrics"], "anisotropy_null")
    return several_steps(steps)


def _draw_anisotropy(data: pd.DataFrame, page: Page) -> layout.Picture:
    """Draw a panel for each model and choice of rows; colors span the model's own steps."""
    frame = layout.place_final_norm(selection.panel_per_choice(data))
    frame = frame.assign(place=places_by_rank(frame))
    look = shades(sorted(set(frame["place"])))
    facets = layout.lines(frame, x="depth", hue="place", panel="panel", page=page, look=look, bands=False)
    layout.each(facets, layout.share_axis)
    layout.null_lines(facets, final_checkpoints(frame), x="depth", hue="place", panel="panel")
    layout.each(facets, partial(layout.depth_axis, data=frame))
    runs = frame.groupby("panel", sort=False)["step"].unique().map(sorted)
    if len({tuple(steps) for steps in runs}) == 1:
        step_bar(facets.figure, runs.iloc[0], ax=list(facets.axes.flat), aspect=35)
    else:
        for name, ax in facets.axes_dict.items():
            step_bar(facets.figure, runs[name], ax=ax, aspect=25)
    return layout.Picture(facets, layout.null_entries(frame["null"], "isotropic rows"), "anisotropy λ1/Σλ")


ANISOTROPY = Drawing(
    title="Anisotropy by layer as training proceeds",
    reads=("anisotropy", "anisotropy_null"),
    data=_anisotropy,
    panels=_draw_anisotropy,
    nothing=partial(single_step, what="anisotropy"),
)


# Intrinsic dimension: a line for each model's middle block


def _dimension(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Select the TwoNN dimension of each model's middle block on the first dataset at every step.

    Of every choice of rows; `null` is that of Gaussian rows with the same covariance, and `gone` says of which
    checkpoints only the tables are left.
    """
    rows = first_dataset(selection.metric_rows(tables["metrics"], "id_twonn"))
    rows = selection.with_null(
        trajectories(selection.middle_blocks(rows)), tables["metrics"], "id_twonn_surrogate"
    )
    return several_steps(selection.with_gone(rows, tables.get("checkpoints")))


def _draw_dimension(data: pd.DataFrame, page: Page) -> layout.Picture:
    """Draw a panel for each choice of rows on a scale of its own; a panel for each of many models."""
    frame, panel, hue, look = arranged(data)
    facets = layout.lines(
        frame, x="step", hue=hue, panel=panel, page=page, look=look, sharey=False, sharex=False
    )
    layout.each(facets, layout.log_axis)
    layout.null_lines(facets, frame, x="step", hue=hue, panel=panel, palette=look.palette)
    legend = layout.entries(look)
    for name, ax in facets.axes_dict.items():
        step_axis(ax, frame.loc[frame[panel] == name, "step"])
        mark_gone(ax, frame[frame[panel] == name])
    legend += layout.null_entries(frame["null"], "Gaussian rows,\nsame covariance")
    legend += gone_entry() if frame["gone"].any() else []
    return layout.Picture(facets, legend, "dimension (TwoNN, log)")


DIMENSION = Drawing(
    title="Intrinsic dimension of the middle block over training",
    reads=("id_twonn", "id_twonn_surrogate"),
    data=_dimension,
    panels=_draw_dimension,
    nothing=partial(single_step, what="an intrinsic dimension of a block"),
)
