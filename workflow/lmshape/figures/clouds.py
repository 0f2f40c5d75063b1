"""The cloud itself: rows of a layer on their three leading principal axes, early, midway and late in training."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lmshape.figures import layout, notes, selection
from lmshape.figures.drawing import Drawing
from lmshape.figures.steps import step_name
from lmshape.figures.style import COLORS, INK
from lmshape.tables.rows import reason

MOST_MODELS = 4
MOMENTS = ("early", "midway", "late", "only checkpoint")
AXES = ("axis_1", "axis_2", "axis_3")
SINKS = {  # group → name, marker, color
    "position_0": ("position 0", "^", COLORS[1]),
    "other_sink": ("other sink (norm over 10 × median)", "D", COLORS[3]),
}
FAR = 6.0  # times the spread of the other rows: from there on a panel has a close-up of them
COLORMAP = "cividis"
NORM = Normalize(-2.5, 2.5)  # of axis 3, in its standard deviations


def data(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Select the clouds of three checkpoints: of the middle block of several models, of every block of one.

    Coordinates are in units of the root mean square distance from the mean, over all rows of the layer.
    """
    table = tables.get("clouds", pd.DataFrame())
    table = table if table.empty else selection.trusted(table, tables.get("checkpoints"))
    if table.empty:
        return pd.DataFrame(columns=["model", "band", "moment", selection.LEFT_OUT])
    several = table["model"].nunique() > 1
    table = selection.shown(table, most=MOST_MODELS)
    return _in_units(_moments(_middle(table) if several else table)).reset_index(drop=True)


def _middle(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of each model's middle block; of its last where there is but one."""
    named = frame.groupby("model")["band"].transform(
        lambda bands: "middle" if "middle" in set(bands) else "last"
    )
    return frame[frame["band"] == named]


def _moments(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of the first, a middle (by ln(1 + step)) and the last checkpoint, named in the column `moment`."""
    parts = []
    for _, of_model in frame.groupby("model", sort=False):
        steps = np.unique(of_model["step"])
        places = np.log1p(np.maximum(steps, 0))
        middle = steps[np.abs(places - (places[0] + places[-1]) / 2).argmin()]
        names = {steps[0]: "early", middle: "midway"} | {steps[-1]: "late"}
        names = names if len(steps) > 1 else {steps[0]: "only checkpoint"}
        parts.append(of_model.assign(moment=of_model["step"].map(names)).dropna(subset="moment"))
    return pd.concat(parts)


def _in_units(frame: pd.DataFrame) -> pd.DataFrame:
    """Divide coordinates by the root of the total variance, which weights and share of an axis give."""
    keys = ["model", "checkpoint", "layer"]
    squares = frame["weight"] * np.square(frame[list(AXES)]).sum(axis=1)
    shares = frame[[f"share_{k}" for k in (1, 2, 3)]].sum(axis=1)
    groups = frame.assign(squares=squares).groupby(keys)
    mean = groups["squares"].transform("sum") / groups["weight"].transform("sum")
    return frame.assign(**{axis: frame[axis] / np.sqrt(mean / shares) for axis in AXES})


def draw_panels(data: pd.DataFrame) -> Figure:
    """Draw early, midway and late under one another; a column for each model, or for each block of one."""
    columns = list(data[["model", "layer", "band"]].drop_duplicates().itertuples(index=False, name=None))
    moments = [name for name in MOMENTS if name in set(data["moment"])]
    figure = Figure(figsize=(max(3.3 * len(columns) + 1.0, 7.5), 3.3 * len(moments) + 0.8))
    grid = figure.subplots(len(moments), len(columns), squeeze=False)
    for moment, axes in zip(moments, grid, strict=True):
        for (model, layer, band), ax in zip(columns, axes, strict=True):
            own = data[(data["model"] == model) & (data["layer"] == layer) & (data["moment"] == moment)]
            _panel(ax, own)
            ax.set_title(_panel_title(model, layer, band, own))
    label = "axis 3, in its standard deviations"
    bar = figure.colorbar(
        ScalarMappable(NORM, COLORMAP), ax=grid, pad=0.015, aspect=45, label=label, extend="both"
    )
    bar.ax.tick_params(length=2)
    _legend(figure, data)
    return figure


def _panel(ax: Axes, frame: pd.DataFrame) -> None:
    if frame.empty or frame[list(AXES)].isna().all(axis=None):
        return layout.nothing_here(ax, reason(frame["flag"].iloc[0]) if len(frame) else "not measured")
    spread = np.sqrt(np.average(np.square(frame["axis_3"]), weights=frame["weight"]))
    third = frame["axis_3"] / (spread if spread > 0 else 1.0)
    rest = ~frame["group"].isin(SINKS)
    ax.scatter(frame.loc[rest, "axis_1"], frame.loc[rest, "axis_2"], c=third[rest], s=11, cmap=COLORMAP, norm=NORM,
               edgecolor=INK, linewidth=0.15)  # fmt: skip
    for group, (_, marker, color) in SINKS.items():
        own = frame[frame["group"] == group]
        ax.scatter(own["axis_1"], own["axis_2"], marker=marker, s=24, facecolor="none", edgecolor=color,
                   linewidth=1.0)  # fmt: skip
    ax.axhline(0, color="#BBBBBB", linewidth=0.6, zorder=0)
    ax.axvline(0, color="#BBBBBB", linewidth=0.6, zorder=0)
    ax.grid(visible=False)
    ax.set_aspect("equal", adjustable="datalim")
    _close_up(ax, frame[rest], third[rest])
    ax.set_xlabel(f"axis 1 ({_percent(frame, 1)} of variance)")
    ax.set_ylabel(f"axis 2 ({_percent(frame, 2)}; axis 3: {_percent(frame, 3)})")


def _close_up(ax: Axes, rest: pd.DataFrame, third: pd.Series) -> None:
    """Show the ordinary rows larger, in a box, where far rows leave them a dot."""
    size = np.abs(rest[["axis_1", "axis_2"]]).quantile(0.98).max()
    widest = max(abs(end) for end in ax.dataLim.extents)
    if rest.empty or not widest > FAR * size > 0:
        return
    inset = ax.inset_axes((0.22, 0.57, 0.41, 0.41))
    inset.scatter(rest["axis_1"], rest["axis_2"], c=third, s=5, cmap=COLORMAP, norm=NORM, linewidth=0)
    for axis, middle in zip("xy", rest[["axis_1", "axis_2"]].median(), strict=True):
        inset.set(**{f"{axis}lim": (middle - 1.5 * size, middle + 1.5 * size), f"{axis}ticks": []})
    inset.spines[["top", "right"]].set_visible(True)
    inset.text(0.04, 0.9, "other rows, larger", transform=inset.transAxes, fontsize=6.5)


def _percent(frame: pd.DataFrame, axis: int) -> str:
    value = 100 * frame[f"share_{axis}"].iloc[0]
    return f"{value:.1f} %" if value < 10 or value > 99 else f"{value:.0f} %"


def _panel_title(model: str, layer: int, band: str, frame: pd.DataFrame) -> str:
    if frame.empty:
        return f"{model}, {band} block {layer}"
    step = frame["step"].iloc[0]
    when = f"step {step_name(step)}" if step >= 0 else str(frame["checkpoint"].iloc[0])
    moment = str(frame["moment"].iloc[0]).replace("midway", "midway in log(step)")
    return f"{model}, {band} block {layer}\n{moment}: {when}"


def _legend(figure: Figure, data: pd.DataFrame) -> None:
    entries = [
        Line2D([], [], linestyle="none", marker=marker, markersize=6, markerfacecolor="none",
               markeredgecolor=color, label=name)
        for group, (name, marker, color) in SINKS.items()
        if (data["group"] == group).any()
    ]  # fmt: skip
    others = Line2D([], [], linestyle="none", marker="o", markersize=4, color="#7C7B78", label="other row")
    figure.legend(handles=[*entries, others], loc="outside upper right", ncols=3)


def _notes(data: pd.DataFrame) -> list[str]:
    drawn = data.groupby(["model", "checkpoint", "layer"]).size().max()
    share = f" ({_share_of_sinks(data)} of all rows)" if data["group"].isin(SINKS).any() else ""
    return [
        f"At most {drawn} rows a panel, chosen at random: all sinks up to 50 of each kind, so that they look more than"
        f" they are{share}.",
        "Units: root mean square distance of all rows from their mean; both axes of a panel have one scale, each panel"
        " its own. Each checkpoint has axes of its own; their signs put the farthest row on the positive side.",
        notes.distrusted(data),
        selection.left_out_note(data, "clouds"),
    ]


def _share_of_sinks(data: pd.DataFrame) -> str:
    weights = data.assign(sink=data["weight"].where(data["group"].isin(SINKS), 0.0))
    sums = weights.groupby(["model", "checkpoint", "layer"])[["sink", "weight"]].sum()
    shares = 100 * sums["sink"] / sums["weight"]
    low, high = f"{shares.min():.2g}", f"{shares.max():.2g}"
    return f"{low} %" if low == high else f"{low} to {high} %"


# It draws nothing from the table of metrics, and reads the rows of one metric alone.
CLOUDS = Drawing(
    title="The cloud on its three leading axes, early, midway and late in training",
    reads=("anisotropy",),
    data=data,
    panels=draw_panels,
    notes=_notes,
    nothing="This study has kept no points of its clouds: the family `leading` keeps some.",
    lacks=lambda data: data.empty or data[list(AXES)].isna().all(axis=None),
    crowds=False,
)
