"""What figures are made of: a line over its interval, the final norm beside it, axes, notes.

The grids of panels, and title and notes around them, are those of `layout`, at hand under this name as well.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from lmshape.figures.selection import shortened
from lmshape.figures.style import FAINT, INK, Look
from lmshape.tables.rows import has_flag, in_order, reason

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D


# More lines than this in a panel are not told apart; more panels than this are drawn smaller.
MOST_TOGETHER = 8
CROWDED_SIZE = (2.2, 1.75)  # inches of a panel where there are many
CROWDED_COLUMNS = 6
CHARACTERS_PER_INCH = 16.5  # of the notes
TITLE_CHARACTERS_PER_INCH = 9.5
LEAST_WIDTH = 7.0  # inches; the title of a single panel needs them


def crowded(models: Sequence[str]) -> bool:
    """Whether there are too many models for one panel, or for panels of full size."""
    return len(models) > MOST_TOGETHER


def small_multiples(
    models: Sequence[str], variants: Sequence[str], *, size: tuple[float, float], same_scale: bool = True
) -> tuple[Figure, dict[tuple[str, str], Axes]]:
    """Lay out a panel for every model and variant, as `panel_grid`; small ones, six a row, where there are many."""
    if not crowded(models):
        return panel_grid(models, variants, size=size, same_scale=same_scale)
    return panel_grid(models, variants, size=CROWDED_SIZE, columns=CROWDED_COLUMNS, same_scale=same_scale)


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


def label_outer_panels(panels: Iterable[Axes], *, y: bool = True) -> None:
    """Keep the name of x under the lowest panel of each column alone, and that of y, if any, left of the first."""
    panels = list(panels)
    lowest: dict[int, int] = {}
    for ax in panels:
        place = ax.get_subplotspec()
        lowest[place.colspan.start] = max(lowest.get(place.colspan.start, 0), place.rowspan.stop)
    for ax in panels:
        place = ax.get_subplotspec()
        if place.rowspan.stop != lowest[place.colspan.start]:
            ax.set_xlabel("")
        if not y or not place.is_first_col():
            ax.set_ylabel("")


def finish(figure: Figure, *, title: str, notes: Sequence[str]) -> None:
    """Put the title above, beside the legend, and the notes below, both wrapped to the figure's width."""
    width = figure.get_figwidth()
    beside = max((_inches_wide(figure, legend) for legend in figure.legends), default=0.0)
    text = textwrap.fill(title, max(int((width - beside) * TITLE_CHARACTERS_PER_INCH), 20))
    figure.suptitle(text, x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
    text = textwrap.fill(" ".join(note for note in notes if note), int(width * CHARACTERS_PER_INCH))
    figure.supxlabel(text, x=0.01, ha="left", fontsize=8, color=FAINT, linespacing=1.4)


def _inches_wide(figure: Figure, legend: object) -> float:
    # the renderer of a figure that nobody shows is Agg's
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    renderer = FigureCanvasAgg(figure).get_renderer()
    return legend.get_window_extent(renderer).width / figure.dpi


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


ISOTROPIC = "isotropic rows at this n and d"
SURROGATE = "Gaussian, same covariance"
_OF_METRICS = (("anisotropy", ISOTROPIC, ""), ("id_twonn", SURROGATE, "o"))
DASHES = (0, (4, 2.5))
_DASH = {"linestyle": "none", "marker": "_", "markersize": 9, "markeredgewidth": 1.2}


def null_line(
    ax: Axes,
    frame: pd.DataFrame,
    *,
    x: str,
    color: str = FAINT,
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
    if len(frame):
        alone = "_" if len(frame) == 1 else ""
        if marker:
            ends = frame.iloc[[0, -1]]
            ax.plot(ends[x], ends["null"], color=color, linestyle="none", marker=marker, markersize=2 + 2 * width,
                    markerfacecolor="white", label=f"_{label}")  # fmt: skip
        dashes = (0, tuple(part * stretch / width for part in DASHES[1]))  # in widths of the line
        ax.plot(
            frame[x], frame["null"], color=color, linestyle=dashes, linewidth=width, marker=alone, label=label
        )


def points(ax: Axes, frame: pd.DataFrame, *, x: str, color: str) -> None:
    """Draw each `null` as a dash of its own, joined to nothing: where it stands at a single place of a line."""
    frame = frame[frame["null"].notna()]
    if len(frame):
        ax.plot(frame[x], frame["null"], color=color, **_DASH, label="_null")


def point_handle(label: str) -> Line2D:
    """Give the dash of a null at a single place for a legend."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color=FAINT, **_DASH, label=label)


def legend(figure: Figure, null: pd.Series, label: str) -> None:
    """Name the dashed lines at the upper right of the figure, if there are any."""
    if null.notna().any():
        figure.legend(handles=[handle(label)], loc="outside upper right")


def handle(label: str, marker: str = "") -> Line2D:
    """Give the dashed line of a null for a legend, with `marker` where lines of several names have theirs."""
    from matplotlib.lines import Line2D

    hollow = {"marker": marker, "markersize": 4, "markerfacecolor": "white"}
    return Line2D([], [], color=FAINT, linestyle=DASHES, linewidth=1.0, label=label, **hollow)


def handles(data: pd.DataFrame, *, dots: bool = False) -> list[Line2D]:
    """Give an entry of a legend for each null of a figure of both metrics; of `dots`, both are a tick."""
    from matplotlib.lines import Line2D

    there = data.loc[data["null"].notna(), "metric"].unique()
    drawn = {name: (label, marker) for name, label, marker in _OF_METRICS if name in there}
    if dots and drawn:
        label = "; ".join(label for label, _ in drawn.values())
        return [Line2D([], [], linestyle="none", marker="|", markersize=7, color=FAINT, label=label)]
    return [handle(label, marker) for label, marker in drawn.values()]


def isotropic_note(null: pd.Series, mark: str = f"Dashed: {ISOTROPIC},") -> str:
    """Say what the dashed line at the bottom is; `mark` opens the sentence."""
    values = sorted({f"{value:.2g}" for value in null.dropna()}, key=float)
    if not values:
        return ""
    span = values[0] if len(values) == 1 else f"{values[0]} to {values[-1]}"
    return f"{mark} (1\u00a0+\u00a0√(d/n))²/d\u00a0=\u00a0{span}."


def surrogate_note(null: pd.Series, mark: str = "Dashed:") -> str:
    """Say what the dashed lines beside a dimension are; `mark` opens the sentence."""
    if null.isna().all():
        return ""
    return (
        f"{mark} Gaussian rows with the same covariance and n; a dimension equal to theirs says nothing beyond the"
        " spectrum."
    )
