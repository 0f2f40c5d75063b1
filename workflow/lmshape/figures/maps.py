"""Layers against training steps as a heat map, with the block of the largest value at each step."""

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
from lmshape.figures.drawing import Drawing
from lmshape.figures.layout import DIGIT, some, step_name
from lmshape.figures.over_training import several_steps, single_step
from lmshape.figures.style import FAINT, INK, Page
from lmshape.tables.rows import first_dataset, trajectories

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
    groups = blocks.groupby(keys, sort=False)["value"]
    highest = blocks.loc[groups.idxmax()].set_index(keys)
    lowest = blocks.loc[groups.idxmin()].set_index(keys)
    above = highest["ci_low"].fillna(highest["value"]) > lowest["ci_high"].fillna(lowest["value"])
    found = above[above & (groups.size() > 2)].index
    places = highest.loc[found].reset_index()[[*keys, "layer"]]
    peaks = frame[[*keys, "layer", "site"]].merge(places.assign(site="block", peak=True), how="left")
    return frame.assign(peak=peaks["peak"].eq(True).to_numpy())


def select(tables: Mapping[str, pd.DataFrame], metric: str) -> pd.DataFrame:
    """Select a metric on the first dataset at every layer and step of every model; `peak` marks the largest block."""
    rows = first_dataset(selection.metric_rows(tables["metrics"], metric))
    inside = rows[(rows["site"] != "embedding") | (metric == "anisotropy")]
    return with_peaks(several_steps(trajectories(inside[inside["site"] != "final_norm"])))


def draw_panels(data: pd.DataFrame, page: Page, label: str, log: bool) -> layout.Picture:
    """Draw a map for each model and choice of rows; a bar of colors each, or one where all share a scale."""
    frame = selection.panel_per_choice(data)
    facets = layout.panels(frame, "panel", page, sharex=False, sharey=False)
    choices = frame.groupby("choice", sort=False)["value"]
    shared = _norm(frame["value"], log=False)
    norms = {choice: _norm(values, log=True) if log else shared for choice, values in choices}
    for name, ax in facets.axes_dict.items():
        own = frame[frame["panel"] == name]
        _map(ax, own, norms[own["choice"].iloc[0]], page)
    _bars(facets, frame, norms, label)
    ring = Line2D([], [], markersize=5, label="highest block\nof the step", **RING)
    return layout.Picture(facets, [ring] if frame["peak"].any() else [], "layer")


def _norm(values: pd.Series, *, log: bool) -> Normalize:
    known = values[values > 0] if log else values.dropna()
    if known.empty:
        return Normalize(0, 1)
    if log:
        return LogNorm(known.min(), max(known.max(), 1.05 * known.min()))
    return Normalize(0, ceil(10 * known.max()) / 10)


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


def _bars(facets: layout.Panels, frame: pd.DataFrame, norms: Mapping[str, Normalize], label: str) -> None:
    """Draw a bar of colors beside each panel, or one beside all where they share a scale."""
    every = list(facets.axes.flat)
    if len({id(norm) for norm in norms.values()}) == 1:
        shared = ScalarMappable(next(iter(norms.values())), COLORMAP)
        facets.figure.colorbar(shared, ax=every, pad=0.015, aspect=35, label=label)
        return
    for name, ax in facets.axes_dict.items():
        norm = norms[frame.loc[frame["panel"] == name, "choice"].iloc[0]]
        last = label if ax is every[-1] else ""
        bar = facets.figure.colorbar(ScalarMappable(norm, COLORMAP), ax=ax, pad=0.02, aspect=25, label=last)
        layout.plain_ticks(bar.ax)


ANISOTROPY = Drawing(
    title="Anisotropy, layer by training step",
    reads=("anisotropy",),
    data=partial(select, metric="anisotropy"),
    panels=partial(draw_panels, label="anisotropy λ1/Σλ", log=False),
    nothing=partial(single_step, what="anisotropy"),
)
DIMENSION = Drawing(
    title="Intrinsic dimension, layer by training step",
    reads=("id_twonn",),
    data=partial(select, metric="id_twonn"),
    panels=partial(draw_panels, label="dimension (TwoNN, log)", log=True),
    nothing=partial(single_step, what="an intrinsic dimension of a block"),
)
