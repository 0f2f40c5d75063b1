"""What panels are made of: lines over their intervals, nulls, axes, and the entries of legends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from lmshape.figures.notes import ISOTROPIC
from lmshape.figures.style import FAINT, Look, looks, paler
from lmshape.tables.rows import has_flag

SURROGATE = "Gaussian, same covariance"
METRIC_LABELS = {
    "anisotropy": "anisotropy $\\lambda_1/\\Sigma\\lambda$",
    "id_twonn": "intrinsic dimension (TwoNN)",
}
# The same with the unit or scale, in two lines, for an axis.
AXIS_LABELS = {
    "anisotropy": "anisotropy $\\lambda_1/\\Sigma\\lambda$\n(share of variance)",
    "id_twonn": "intrinsic dimension\n(TwoNN), log scale",
}
# The named blocks of a model, in every figure that has a line for each.
BAND_LOOKS = looks(["early", "middle", "last"])
BAND_NAMES = {
    "early": "early: a quarter of the blocks",
    "middle": "middle: half of them",
    "last": "last block",
}
DASHES = (4, 2.5)  # of a null, in points
_DASH: dict[str, Any] = {"linestyle": "none", "marker": "_", "markersize": 9, "markeredgewidth": 1.2}


# Values


def line(
    ax: Axes,
    frame: pd.DataFrame,
    *,
    x: str,
    look: Look,
    label: str,
    opacity: float = 0.2,
    most_markers: int = 1000,
) -> None:
    """Draw `value` over `x` and the band of its interval; NaN leaves a gap, a flagged number gets an open marker.

    With `opacity` 0 there is no band. Of more points than `most_markers`, some have none, so that dashes are seen.
    """
    frame = frame.sort_values(x, kind="stable")
    places, values = frame[x].to_numpy(), frame["value"].to_numpy(float)
    ax.plot(places, values, label=label, markevery=_markers(values, most_markers), **look.settings)
    flagged = has_flag(frame).to_numpy()
    if flagged.any():
        ax.plot(places[flagged], values[flagged], linestyle="none", marker=look.marker or "o", markersize=look.size,
                markerfacecolor="white", markeredgecolor=look.color)  # fmt: skip
    if opacity:
        _band(ax, places, frame, look=look, opacity=opacity)


def _markers(values: np.ndarray, most: int) -> float | int | None:
    """Say which points have a marker: all, or some evenly spaced along the line, or one in so many if it has gaps."""
    if len(values) <= most:
        return None
    return 1 / most if np.isfinite(values).all() else -(-len(values) // most)


def _band(ax: Axes, places: np.ndarray, frame: pd.DataFrame, *, look: Look, opacity: float) -> None:
    low, high = (frame[end].to_numpy(float) for end in ("ci_low", "ci_high"))
    if np.isfinite(low).any():
        ax.fill_between(places, low, high, color=look.color, alpha=opacity, linewidth=0)
    present = np.pad(frame["value"].notna().to_numpy(), 1)
    alone = present[1:-1] & ~present[:-2] & ~present[2:]
    if alone.any():
        ax.vlines(places[alone], low[alone], high[alone], color=look.color, linewidth=1.2)


def off_line(ax: Axes, frame: pd.DataFrame, *, x: float, look: Look) -> None:
    """Draw one value (one row) at `x` with its interval, joined to nothing."""
    if frame.empty or frame["value"].isna().all():
        return
    value, low, high = frame[["value", "ci_low", "ci_high"]].iloc[0]
    # a dash is all edge
    edge, width = (look.color, 1.2) if look.marker == "_" else ("white", 0.5)
    ax.plot([x], [value], linestyle="none", marker=look.marker or "o", color=look.color, markersize=look.size + 2,
            markeredgecolor=edge, markeredgewidth=width)  # fmt: skip
    ax.vlines([x], low, high, color=look.color, linewidth=1.2)


# Nulls


def null_line(
    ax: Axes,
    frame: pd.DataFrame,
    *,
    x: str,
    color: Any = FAINT,
    label: str = ISOTROPIC,
    marker: str = "",
    width: float = 1.0,
    stretch: float = 1.0,
) -> None:
    """Draw `null` over `x`, dashed, as one curve; nothing where it was not measured.

    `marker`, hollow at both ends, says in grey as well whose null it is. Dashes are as long whatever the `width`, so
    that a curve lies on another, wider one as a stripe; `stretch` makes them longer.
    """
    frame = frame[frame["null"].notna()].sort_values(x, kind="stable")
    if frame.empty:
        return
    if marker:
        ends = frame.iloc[[0, -1]]
        ax.plot(ends[x], ends["null"], color=color, linestyle="none", marker=marker, markersize=2 + 2 * width,
                markerfacecolor="white", label=f"_{label}")  # fmt: skip
    dashes = (0, tuple(part * stretch / width for part in DASHES))  # in widths of the line
    alone = "_" if len(frame) == 1 else ""
    ax.plot(
        frame[x], frame["null"], color=color, linestyle=dashes, linewidth=width, marker=alone, label=label
    )


def surrogate_line(
    ax: Axes, frame: pd.DataFrame, *, x: str, look: Look, label: str = "_surrogate", **dashes: float
) -> None:
    """Draw the null of a dimension in the paler color of the line that it belongs to, with its marker."""
    null_line(ax, frame, x=x, color=paler(look.color), label=label, marker=look.marker, **dashes)


def null_points(ax: Axes, frame: pd.DataFrame, *, x: str, color: Any) -> None:
    """Draw each `null` as a dash of its own, joined to nothing: where it stands at a single place of a line."""
    frame = frame[frame["null"].notna()]
    if len(frame):
        ax.plot(frame[x], frame["null"], color=color, **_DASH, label="_null")


# Axes


def final_norm_place(blocks: int) -> float:
    """Give the final norm's place on an axis of layers, a layer or a sixth of them past the last block."""
    return blocks + max(1.0, blocks / 6)


def layer_axis(ax: Axes, blocks: int, *, final_norm: bool, embedding: bool = True) -> None:
    """Make x the layers 0 … `blocks`, with a place of its own for the final norm; 1 … without embedding."""
    end = final_norm_place(blocks) if final_norm else blocks
    every = max(1, -(-blocks // 8))
    ticks: list[float] = [*range(0 if embedding else every, blocks + 1, every)]
    names = [str(tick) for tick in ticks]
    if final_norm:
        ticks, names = [*ticks, end], [*names, "norm"]
    ax.set_xticks(ticks, names)
    ax.set_xlim((0 if embedding else 1) - 0.06 * max(end, 6), end + 0.07 * max(end, 6))
    ax.set_xlabel("layer (0 = embedding)" if embedding else "layer (blocks)")


def anisotropy_axis(ax: Axes) -> None:
    """Make y the whole range of anisotropy."""
    ax.set_ylim(-0.01, 1.02)
    ax.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])


def dimension_axis(ax: Axes) -> None:
    """Make y a logarithmic axis of dimensions with plain numbers: 2, 5, 10."""
    ax.set_yscale("log")
    plain_log_axis(ax)


def metric_axis(ax: Axes, metric: str) -> None:
    """Make y the axis of anisotropy or of the TwoNN dimension."""
    ax.set_ylabel(AXIS_LABELS[metric])
    (anisotropy_axis if metric == "anisotropy" else dimension_axis)(ax)


def plain_log_axis(ax: Axes, axis: Literal["x", "y"] = "y") -> None:
    """Write plain numbers, 2, 5, 10, on a logarithmic axis."""
    its = ax.xaxis if axis == "x" else ax.yaxis
    its.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    its.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    its.set_minor_formatter(NullFormatter())
    ax.tick_params(axis=axis, which="minor", length=0)


def shade_every_other_row(ax: Axes, rows: int) -> None:
    """Shade rows 1, 3, … of a panel whose y counts rows downwards from 0."""
    for row in range(1, rows, 2):
        ax.axhspan(row - 0.5, row + 0.5, color="#F5F5F5", zorder=0, linewidth=0)
    ax.set_ylim(rows - 0.5, -0.5)


# Entries of legends


def entry(label: str, look: Look) -> Artist:
    """Give a line in its look."""
    return Line2D([], [], label=label, **look.settings)


def band_entries() -> list[Artist]:
    """Give the lines of the named blocks."""
    return [entry(BAND_NAMES[band], look) for band, look in BAND_LOOKS.items()]


def null_entry(label: str, *, color: Any = FAINT, marker: str = "") -> Artist:
    """Give the dashed line of a null, with `marker` where lines of several names have theirs."""
    hollow: dict[str, Any] = {"marker": marker, "markersize": 4, "markerfacecolor": "white"}
    return Line2D([], [], color=color, linestyle=(0, DASHES), linewidth=1.0, label=label, **hollow)


def null_entries(null: pd.Series, label: str) -> list[Artist]:
    """Give the dashed line of a null, if it was measured."""
    return [null_entry(label)] if null.notna().any() else []


def null_point_entry(label: str) -> Artist:
    """Give the dash of a null at a single place."""
    return Line2D([], [], color=FAINT, **_DASH, label=label)


def nulls_of_both(data: pd.DataFrame) -> dict[str, str]:
    """Name the nulls of a figure of anisotropy and dimension, each with the marker of its line."""
    metrics = set(data.loc[data["null"].notna(), "metric"])
    markers: Mapping[str, tuple[str, str]] = {"anisotropy": (ISOTROPIC, ""), "id_twonn": (SURROGATE, "o")}
    return dict(named for metric, named in markers.items() if metric in metrics)
