"""What figures are made of: a line over its interval, the final norm beside it, axes, notes.

The grids of panels, and title and notes around them, are those of `layout`, at hand under this name as well.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from lmshape.figures.few_models import shortened
from lmshape.figures.layout import finish as finish
from lmshape.figures.layout import label_outer_panels as label_outer_panels
from lmshape.figures.layout import model_grid as model_grid
from lmshape.figures.layout import panel_grid as panel_grid
from lmshape.figures.layout import small_multiples as small_multiples
from lmshape.figures.selection import has_flag, in_order, reason
from lmshape.figures.style import FAINT, Look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

VARIANT_NAMES = {
    "all": "all rows",
    "no_sink": "without sink rows (position 0, huge norms)",
    "one_per_type": "one row of each token id",
}
SHORT_VARIANT_NAMES = {
    "all": "all rows",
    "no_sink": "without sinks",
    "one_per_type": "one row of each token id",
}
SINK_NOTE = "Sinks: position 0 of each sequence, and rows with a norm over 10\u00a0×\u00a0the layer's median."
METRIC_LABELS = {
    "anisotropy": "anisotropy $\\lambda_1/\\Sigma\\lambda$",
    "id_twonn": "intrinsic dimension (TwoNN)",
}
# The same with the unit or scale, in two lines, for an axis.
AXIS_LABELS = {
    "anisotropy": "anisotropy $\\lambda_1/\\Sigma\\lambda$\n(share of variance)",
    "id_twonn": "intrinsic dimension\n(TwoNN), log scale",
}
MOST_NAMED = 4  # checkpoints of a model in a note
JACKKNIFE = "delete-one-draw jackknife"
STUDENT = "mean and Student's t"
EMBEDDING_NOTE = (
    "The embedding's dimension is left out: its rows are a finite set, one for each token (and position) there"
    " is, and no cloud like the blocks'; its number is in the table `metrics`."
)


UNDER_ONE = (
    "Under 1: near-copies of one token, whose two nearest distances differ by orders of magnitude; not a dimension of"
    " anything."
)


def dimension_note(frame: pd.DataFrame) -> str:
    """Say what limits a dimension, what one row of each token id is for, and what is none, as far as they are drawn."""
    about = "A dimension is that at this number of rows, biased low in high dimension."
    copies = " With all rows, a token's nearest neighbor is mostly the same token elsewhere."
    dimensions = frame.loc[frame["metric"].str.startswith("id_"), "value"]
    said = about + (copies if (frame["rows"] == "one_per_type").any() else "")
    return f"{said} {UNDER_ONE}" if (dimensions < 1).any() else said


def panel_title(model: str, rows: str, *, crowded: bool = False) -> str:
    """Name a panel: the model, and under it which rows; shortly where panels are small."""
    names = SHORT_VARIANT_NAMES if crowded else VARIANT_NAMES
    return f"{model}\n{names.get(rows, rows)}"


def sink_note(frame: pd.DataFrame) -> str:
    """Say what sinks are, if rows without them are drawn."""
    return SINK_NOTE if (frame["rows"] == "no_sink").any() else ""


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


def final_norm_place(blocks: int) -> float:
    """Give the final norm's place on an axis of layers, a layer or a sixth of them past the last block."""
    return blocks + max(1.0, blocks / 6)


def layer_axis(ax: Axes, blocks: int, *, final_norm: bool, embedding: bool = True) -> None:
    """Make x the layers 0 … `blocks`, with a place of its own for the final norm; 1 … without embedding."""
    end = final_norm_place(blocks) if final_norm else blocks
    every = max(1, -(-blocks // 8))
    ticks = [*range(0 if embedding else every, blocks + 1, every)]
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


def plain_log_axis(ax: Axes, axis: Literal["x", "y"] = "y") -> None:
    """Write plain numbers, 2, 5, 10, on a logarithmic axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    its = getattr(ax, f"{axis}axis")
    its.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    its.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    its.set_minor_formatter(NullFormatter())
    ax.tick_params(axis=axis, which="minor", length=0)


def interval_note(frame: pd.DataFrame, how: str) -> str:
    """Say what the bands are, and over how many draws; `how` names the way to the interval."""
    draws = sorted({int(count) for count in frame.loc[frame["value"].notna(), "draws"]})
    if not draws or draws[-1] < 2:
        return "One draw of sequences: no interval." if draws else ""
    count = f"{draws[-1]}" if len(draws) == 1 else f"{draws[0]} to {draws[-1]}"
    return f"Bands: 95 % interval over {count} draws of sequences ({how})."


def csv_interval_note(frame: pd.DataFrame) -> str:
    """Say where the intervals are that are not drawn."""
    return "Intervals are in the figure's CSV file." if frame["ci_low"].notna().any() else ""


def flag_note(frame: pd.DataFrame) -> str:
    """Count the flagged values: those that are not numbers, and those that are numbers to read with care."""
    flagged = has_flag(frame)
    gaps, numbers = frame[flagged & frame["value"].isna()], frame[flagged & frame["value"].notna()]
    parts = []
    if len(gaps):
        parts.append(f"Gaps: {len(gaps)} of {len(frame)} values are not numbers ({_reasons(gaps)}).")
    if len(numbers):
        parts.append(
            f"Open markers: {len(numbers)} of {len(frame)} values are flagged ({_reasons(numbers)})."
        )
    return " ".join(parts)


def distrusted_note(frame: pd.DataFrame) -> str:
    """Name the checkpoints that are not drawn since their weights are another step's; "" without a trajectory."""
    if "distrusted" not in frame:
        return ""
    by_model = frame.dropna(subset="distrusted").drop_duplicates("model").set_index("model")["distrusted"]
    named = [
        f"{model}: {shortened(names.split(', '), MOST_NAMED)}" for model, names in by_model.items() if names
    ]
    if not named:
        return ""
    return f"Not drawn, since their weights are another step's: {'; '.join(named)}."


def empty_figure(*, title: str, note: str) -> Figure:
    """Say in a figure why there is nothing to draw."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 2.2))
    ax = figure.subplots()
    nothing_here(ax, note)
    finish(figure, title=title, notes=[])
    return figure


def nothing_here(ax: Axes, note: str) -> None:
    """Say in a panel why it is empty."""
    ax.set_axis_off()
    _in_the_middle(ax, note)


def note_without_numbers(ax: Axes, frame: pd.DataFrame) -> None:
    """Say in a panel with axes that none of its values is a number."""
    if frame["value"].isna().all():
        _in_the_middle(ax, "every value is flagged: nothing to draw")
        together = ax.get_shared_y_axes().get_siblings(ax)
        if ax.get_yscale() == "log" and all(one.dataLim.minposy == float("inf") for one in together):
            ax.set_ylim(1, 10)  # a logarithmic axis without a number cannot be drawn


def _in_the_middle(ax: Axes, note: str) -> None:
    ax.text(0.5, 0.5, textwrap.fill(note, 48), transform=ax.transAxes, ha="center", va="center", color=FAINT)


def _reasons(frame: pd.DataFrame) -> str:
    return "; ".join(in_order(frame["flag"].map(reason))[:3])
