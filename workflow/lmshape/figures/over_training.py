"""Anisotropy and dimension over training: layers at every checkpoint, the middle block at every step, and maps of both.

A map has layers over training steps, with the block of the largest value at each step.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import ceil
from typing import Any

import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.lines import Line2D

from lmshape.figures import layout, selection
from lmshape.figures.by_layer import arranged
from lmshape.figures.drawing import Drawing
from lmshape.figures.layout import DIGIT, places_by_rank, some, step_bar, step_name
from lmshape.figures.style import FAINT, INK, Page, shades
from lmshape.tables.rows import first_dataset, trajectories


def gone_entry(data: pd.DataFrame) -> list[Line2D]:
    """Give the entry of checkpoints of which only the tables are left, if there are any."""
    entry = Line2D([], [], color=FAINT, linestyle="none", marker="x", label="weights gone")
    return [entry] if data["gone"].any() else []


def single_step(data: pd.DataFrame, what: str) -> str:
    """Say that no model was measured at two known steps."""
    steps = data.dropna(subset="value").groupby("model")["step"].nunique()
    return "" if (steps > 1).any() else f"No model has {what} at two training steps."


def several_steps(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of models with two known steps or more; the column `left_out` names the others."""
    steps = frame.groupby("model", sort=False)["step"].nunique()
    single = steps.index[steps < 2]
    left_out = ", ".join(f"{name} (one step)" for name in single)
    return frame[~frame["model"].isin(single)].assign(left_out=left_out)


# Anisotropy: a line for each checkpoint


def _anisotropy(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Select anisotropy on the first dataset at every layer and known step, with its `null`."""
    rows = first_dataset(selection.metric_rows(tables["metrics"], "anisotropy"))
    return several_steps(selection.with_null(trajectories(rows), tables["metrics"], "anisotropy_null"))


def _draw_anisotropy(data: pd.DataFrame, page: Page) -> layout.Picture:
    """Draw a panel for each model and choice of rows; colors span the model's own steps, the null is of the last."""
    frame = selection.panel_per_choice(data)
    frame = frame.assign(place=places_by_rank(frame))
    frame = frame.assign(null=frame["null"].where(frame["place"] == 1))
    look = shades(sorted(set(frame["place"])))
    facets = layout.lines(frame, x="depth", hue="place", panel="panel", page=page, look=look, bands=False)
    layout.each(facets, layout.share_axis)
    layout.null_lines(facets, x="depth", hue="place")
    runs = frame.groupby("panel", sort=False)["step"].unique().map(sorted)
    if len({tuple(steps) for steps in runs}) == 1:
        step_bar(facets.figure, runs.iloc[0], ax=list(facets.axes.flat), aspect=35)
    else:
        for ax, own in facets.parts():
            step_bar(facets.figure, own["step"], ax=ax, aspect=25)
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
    followed = trajectories(selection.middle_blocks(rows))
    rows = selection.with_null(followed, tables["metrics"], "id_twonn_surrogate")
    return several_steps(selection.with_gone(rows, tables.get("checkpoints")))


def _draw_dimension(data: pd.DataFrame, page: Page) -> layout.Picture:
    """Draw a panel for each choice of rows on a scale of its own; a panel for each of many models."""
    frame, panel, hue, look = arranged(data)
    facets = layout.lines(frame, x="step", hue=hue, panel=panel, page=page, look=look, sharey=False)
    layout.each(facets, layout.log_axis)
    layout.null_lines(facets, x="step", hue=hue, palette=look.palette)
    nulls = layout.null_entries(frame["null"], "Gaussian rows,\nsame covariance")
    return layout.Picture(
        facets, [*layout.entries(look), *nulls, *gone_entry(frame)], "dimension (TwoNN, log)"
    )


DIMENSION = Drawing(
    title="Intrinsic dimension of the middle block over training",
    reads=("id_twonn", "id_twonn_surrogate"),
    data=_dimension,
    panels=_draw_dimension,
    nothing=partial(single_step, what="an intrinsic dimension of a block"),
)


# Maps of layers over steps

MOST_RINGS = 30  # steps; rings of more are smaller
COLORMAP = "viridis"  # even steps of lightness: it reads in grey, and no color-blindness confuses it
RING: dict[str, Any] = {
    "linestyle": "none",
    "marker": "o",
    "markerfacecolor": "white",
    "markeredgecolor": INK,
}


def with_peaks(frame: pd.DataFrame) -> pd.DataFrame:
    """Add `peak`: the block of the largest value at its step, if its interval is wholly above that of the lowest.

    A profile that is level by that rule, or has fewer than three blocks, has no peak.
    """
    keys = ["model", "dataset", "rows", "metric", "step"]
    blocks = frame[(frame["site"] == "block") & frame["value"].notna()]
    if blocks.empty:
        return frame.assign(peak=False)
    groups = blocks.groupby(keys)["value"]
    highest, lowest = (blocks.loc[places].set_index(keys) for places in (groups.idxmax(), groups.idxmin()))
    above = highest["ci_low"].fillna(highest["value"]) > lowest["ci_high"].fillna(lowest["value"])
    peaks = groups.idxmax()[above & (groups.size() > 2)]
    return frame.assign(peak=frame.index.isin(peaks))


def _map_data(tables: Mapping[str, pd.DataFrame], metric: str) -> pd.DataFrame:
    """Select a metric on the first dataset at every layer and step of every model; `peak` marks the largest block."""
    rows = first_dataset(selection.metric_rows(tables["metrics"], metric))
    inside = rows[(rows["site"] != "embedding") | (metric == "anisotropy")]
    return with_peaks(several_steps(trajectories(inside[inside["site"] != "final_norm"])))


def _draw_maps(data: pd.DataFrame, page: Page, label: str, log: bool) -> layout.Picture:
    """Draw a map for each model and choice of rows; a bar of colors each, or one where all share a scale."""
    frame = selection.panel_per_choice(data)
    facets = layout.panels(frame, "panel", page, sharex=False, sharey=False)
    choices = frame.groupby("choice", sort=False)["value"]
    shared = Normalize(0, ceil(10 * frame["value"].max()) / 10)
    norms = {choice: _log_norm(values) if log else shared for choice, values in choices}
    one_scale, every = len(set(norms.values())) == 1, list(facets.axes.flat)
    for ax, own in facets.parts():
        norm = norms[own["choice"].iloc[0]]
        colors = ScalarMappable(norm, COLORMAP)
        _map(ax, own, norm, page)
        if not one_scale:
            name = label if ax is every[-1] else ""
            bar = facets.figure.colorbar(colors, ax=ax, pad=0.02, aspect=25, label=name)
            layout.plain_ticks(bar.ax)
    if one_scale:
        facets.figure.colorbar(colors, ax=every, pad=0.015, aspect=35, label=label)
    ring = Line2D([], [], markersize=5, label="highest block\nof the step", **RING)
    return layout.Picture(facets, [ring] if frame["peak"].any() else [], "layer")


def _log_norm(values: pd.Series) -> Normalize:
    known = values[values > 0]
    return LogNorm(known.min(), max(known.max(), 1.05 * known.min())) if len(known) else Normalize(0, 1)


def _map(ax: Axes, frame: pd.DataFrame, norm: Normalize, page: Page) -> None:
    cells = frame.pivot(index="layer", columns="step", values="value").astype(float)
    ax.set_facecolor("#F4F4F4")
    ax.patch.set(hatch="////", edgecolor="#C9C9C9")  # shows where a cell has no number
    seaborn.heatmap(cells, ax=ax, cmap=COLORMAP, norm=norm, cbar=False, rasterized=True)
    ax.invert_yaxis()
    steps, layers = list(cells.columns), list(cells.index)
    named = some(steps)
    touch = sum(len(step_name(step)) + 1.5 for step in named) * DIGIT * page.font > layout.width_in_points(ax)
    ax.set_xticks([steps.index(step) + 0.5 for step in named], [step_name(step) for step in named])
    ax.tick_params(axis="x", labelrotation=60 if touch else 0)
    shown = range(0, len(layers), max(1, ceil(len(layers) / 8)))
    ax.set_yticks([place + 0.5 for place in shown], [str(layers[place]) for place in shown], rotation=0)
    peaks = frame[frame["peak"].astype(bool)]
    places = peaks["step"].map(steps.index) + 0.5, peaks["layer"].map(layers.index) + 0.5
    ax.plot(*places, markersize=4 if len(steps) <= MOST_RINGS else 2, **RING)
    ax.set(xlabel="training step", ylabel="")
    ax.tick_params(length=2, color=FAINT)
    ax.grid(visible=False)


ANISOTROPY_MAP = Drawing(
    title="Anisotropy, layer by training step",
    reads=("anisotropy",),
    data=partial(_map_data, metric="anisotropy"),
    panels=partial(_draw_maps, label="anisotropy λ1/Σλ", log=False),
    nothing=partial(single_step, what="anisotropy"),
)
DIMENSION_MAP = Drawing(
    title="Intrinsic dimension, layer by training step",
    reads=("id_twonn",),
    data=partial(_map_data, metric="id_twonn"),
    panels=partial(_draw_maps, label="dimension (TwoNN, log)", log=True),
    nothing=partial(single_step, what="an intrinsic dimension of a block"),
)
