"""What figures are made of: a line over its interval, the final norm beside it, notes, a grid of panels."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lmshape.figures.selection import has_flag, in_order, reason
from lmshape.figures.style import FAINT, INK, Look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

VARIANT_NAMES = {
    "all": "all rows",
    "no_sink": "without sink rows (position 0, huge norms)",
    "one_per_type": "one row of each token id",
}
METRIC_LABELS = {
    "anisotropy": "anisotropy $\\lambda_1/\\Sigma\\lambda$",
    "id_twonn": "intrinsic dimension (TwoNN)",
}
JACKKNIFE = "delete-one-draw jackknife"
STUDENT = "mean and Student's t"
EMBEDDING_NOTE = (
    "The embedding's dimension is left out: its rows are a finite set, one for each token (and position) there"
    " is, and no cloud like the blocks'; its number is in the table `metrics`."
)
CHARACTERS_PER_INCH = 16.5
LEAST_WIDTH = 7.0  # inches; the title of a single panel needs them


def line(ax: Axes, frame: pd.DataFrame, *, x: str, look: Look, label: str, opacity: float = 0.2) -> None:
    """Draw `value` over `x` and the band of its interval; NaN leaves a gap, a flagged number gets an open marker."""
    frame = frame.sort_values(x, kind="stable")
    flagged = has_flag(frame)
    ax.fill_between(frame[x], frame["ci_low"], frame["ci_high"], color=look.color, alpha=opacity, linewidth=0)
    ax.plot(frame[x], frame["value"], label=label, **look.settings)
    ax.plot(frame.loc[flagged, x], frame.loc[flagged, "value"], linestyle="none", marker=look.marker,
            markersize=look.size, markerfacecolor="white", markeredgecolor=look.color)  # fmt: skip
    present = frame["value"].notna()
    alone = frame[present & ~present.shift(1, fill_value=False) & ~present.shift(-1, fill_value=False)]
    ax.vlines(alone[x], alone["ci_low"], alone["ci_high"], color=look.color, linewidth=1.2)


def off_line(ax: Axes, frame: pd.DataFrame, *, x: float, look: Look) -> None:
    """Draw one value (one row) at `x` with its interval, joined to nothing."""
    if frame.empty or frame["value"].isna().all():
        return
    value, low, high = frame[["value", "ci_low", "ci_high"]].iloc[0]
    # a dash is all edge
    edge, width = (look.color, 1.2) if look.marker == "_" else ("white", 0.5)
    ax.plot([x], [value], linestyle="none", marker=look.marker, color=look.color, markersize=look.size + 2,
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
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.tick_params(axis="y", which="minor", length=0)


def interval_note(frame: pd.DataFrame, how: str) -> str:
    """Say what the bands are, and over how many draws; `how` names the way to the interval."""
    draws = sorted({int(count) for count in frame.loc[frame["value"].notna(), "draws"]})
    if not draws or draws[-1] < 2:
        return "One draw of sequences: no interval." if draws else ""
    count = f"{draws[-1]}" if len(draws) == 1 else f"{draws[0]} to {draws[-1]}"
    return f"Bands: 95 % interval over {count} draws of sequences ({how})."


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
    named = [f"{model}: {_shortened(names)}" for model, names in by_model.items() if names]
    if not named:
        return ""
    return f"Not drawn, since their weights are another step's: {'; '.join(named)}."


def _shortened(names: str, most: int = 4) -> str:
    every = names.split(", ")
    more = len(every) - most
    return ", ".join(every[:most]) + (f" and {more} more" if more > 0 else "")


def finish(figure: Figure, *, title: str, notes: Sequence[str]) -> None:
    """Put the title above and the notes below, wrapped to the figure's width."""
    width = int(figure.get_figwidth() * CHARACTERS_PER_INCH)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
    text = textwrap.fill(" ".join(note for note in notes if note), width)
    figure.supxlabel(text, x=0.01, ha="left", fontsize=8, color=FAINT, linespacing=1.4)


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


def panel_grid(
    names: Sequence[str],
    variants: Sequence[str],
    *,
    size: tuple[float, float],
    columns: int = 4,
    same_scale: bool = True,
) -> tuple[Figure, dict[tuple[str, str], Axes]]:
    """Lay out a panel for every name and variant: variants under one another, names side by side, wrapped.

    All panels have the same scale of y, or each its own.

    Returns
    -------
    The figure and its axes by (name, variant).
    """
    from matplotlib.figure import Figure

    columns = min(columns, len(names))
    width = max(size[0] * columns, LEAST_WIDTH)
    bands = -(-len(names) // columns)
    figure = Figure(figsize=(width, size[1] * bands * len(variants)))
    grid = figure.subplots(bands * len(variants), columns, squeeze=False, sharey=same_scale)
    panels = {}
    for i in range(bands * columns):
        for j, variant in enumerate(variants):
            ax = grid[(i // columns) * len(variants) + j, i % columns]
            if i < len(names):
                panels[names[i], variant] = ax
            else:
                ax.remove()
    return figure, panels


def model_grid(models: Sequence[str], *, columns: int, height: float = 3.0) -> tuple[Figure, np.ndarray]:
    """Lay out a row of panels for each model, 13 inches wide at 4 panels; the panels of a row share y."""
    from matplotlib.figure import Figure

    width = max(3.25 * columns, LEAST_WIDTH)
    figure = Figure(figsize=(width, height * len(models) + 0.7))
    return figure, figure.subplots(len(models), columns, squeeze=False, sharey="row")


def _in_the_middle(ax: Axes, note: str) -> None:
    ax.text(0.5, 0.5, textwrap.fill(note, 48), transform=ax.transAxes, ha="center", va="center", color=FAINT)


def _reasons(frame: pd.DataFrame) -> str:
    return "; ".join(in_order(frame["flag"].map(reason))[:3])
