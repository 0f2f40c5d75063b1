"""Panels of the figure of loss spikes: losses with their onsets, the course before an onset, curves of alarms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lmshape.figures import marks
from lmshape.figures.spike_words import ROLES, axis_name, short_name
from lmshape.figures.style import COLORS, FAINT, INK, Look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.gridspec import GridSpec

LOOKS = {
    "dimension": Look(COLORS[0], "-", "o", width=2.0),
    "geometry": Look(COLORS[2], (0, (5, 1.5)), "^"),
    "baseline": Look(COLORS[1], (0, (1.2, 1.2)), "s", width=2.0),
}
COLUMNS = 4  # of losses in a row


def loss_panels(figure: Figure, grid: GridSpec, data: pd.DataFrame, runs: list[str]) -> None:
    """Draw the loss of each run over its steps, a line at each onset, the spikes shaded."""
    losses, spikes = (data[data["series"] == name] for name in ("loss", "spike"))
    width = 12 // COLUMNS
    for place, run in enumerate(runs):
        row, column = divmod(place, COLUMNS)
        ax = figure.add_subplot(grid[row, width * column : width * (column + 1)])
        curve = losses[losses["run"] == run]
        ax.plot(curve["step"], curve["value"].where(np.isfinite(curve["value"])), color=INK, linewidth=0.8)
        own = spikes[(spikes["run"] == run) & spikes["step"].notna()]
        for spike in own.itertuples():
            end = spike.recovery_step if spike.recovery_step == spike.recovery_step else curve["step"].max()
            ax.axvspan(spike.step, end, color=COLORS[1], alpha=0.15, linewidth=0)
            ax.axvline(spike.step, color=COLORS[1], linewidth=1.0, linestyle=(0, (3, 1.5)))
        count = len(own)
        ax.set_title(f"{run}: {count} spike{'' if count == 1 else 's'}" if count else f"{run}: no spike")
        ax.margins(x=0.02)
        if column == 0:
            ax.set_ylabel("training loss\n(nats per token)")
        if place + COLUMNS >= len(runs):
            ax.set_xlabel("training step")


def course_panel(ax: Axes, data: pd.DataFrame, role: str) -> None:
    """Draw the mean change of one of the three series from the onset back, beside that of quiet windows."""
    rows = data[(data["series"] == "course") & (data["role"] == role)].sort_values("step")
    chosen = data[(data["series"] == "auc") & (data["role"] == role)]
    if rows.empty:
        marks.nothing_here(ax, _why_nothing(role, chosen))
        return
    look = LOOKS[role]
    ax.fill_between(
        rows["step"],
        rows["quiet_low"],
        rows["quiet_high"],
        color="#D9D9D9",
        linewidth=0,
        label="95 % of quiet windows",
    )
    ax.plot(
        rows["step"], rows["quiet"], color=FAINT, linewidth=1.0, linestyle=(0, (4, 2)), label="their mean"
    )
    ax.fill_between(rows["step"], rows["ci_low"], rows["ci_high"], color=look.color, alpha=0.25, linewidth=0)
    ax.plot(rows["step"], rows["value"], label="before spikes: mean, 95 %", **look.settings)
    ax.axvline(0, color=COLORS[1], linewidth=1.0, linestyle=(0, (3, 1.5)))
    ax.axhline(0, color=FAINT, linewidth=0.6)
    first = rows.iloc[0]
    ax.set(
        title=f"{ROLES[role]}: {short_name(first['metric'], first['layer'])}", xlabel="steps from the onset"
    )
    ax.set_ylabel(f"change of {axis_name(first['metric'])}")
    _scale(ax, rows, above=0.4 if role == "dimension" else 0.2)
    if role == "dimension":
        ax.legend(loc="upper left", fontsize=7.5, handlelength=2.2)


def _scale(ax: Axes, rows: pd.DataFrame, *, above: float) -> None:
    """Let the line and its band have the panel; quiet windows take as much again on each side, and are cut beyond.

    `above` is the room over them, for words, as a share of their height.
    """
    low, high = _ends(rows, ["value", "ci_low", "ci_high"])
    quiet_low, quiet_high = _ends(rows, ["quiet_low", "quiet_high"])
    span = high - low or 1.0
    bottom, top = max(min(low, quiet_low), low - span), min(max(high, quiet_high), high + span)
    ax.set_ylim(bottom - 0.08 * (top - bottom), top + above * (top - bottom))
    ax.margins(x=0.02)
    beyond = [end for end, cut in ((quiet_low, quiet_low < bottom), (quiet_high, quiet_high > top)) if cut]
    if beyond:
        said = f"cut off: grey reaches {' and '.join(f'{end:.2g}' for end in beyond)}"
        ax.text(0.02, 0.98, said, transform=ax.transAxes, va="top", fontsize=7.5, color=INK,
                bbox={"facecolor": "white", "linewidth": 0, "pad": 1.0})  # fmt: skip


def _ends(rows: pd.DataFrame, columns: list[str]) -> tuple[float, float]:
    numbers = rows[columns].to_numpy(float)
    known = numbers[np.isfinite(numbers)]
    return (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)


def curve_panels(roc: Axes, recall: Axes, words: Axes, data: pd.DataFrame) -> None:
    """Draw ROC and precision–recall curves of the three series, what chance comes to, and the areas."""
    points, areas = (data[data["series"] == name] for name in ("curve", "auc"))
    for role, look in LOOKS.items():
        curve = points[points["role"] == role]
        if curve.empty:
            continue
        line = {"color": look.color, "linestyle": look.line, "linewidth": look.width}
        area = areas[areas["role"] == role].iloc[0]
        name = f"{short_name(area['metric'], area['layer'])}\n{marks_of(area)}"
        roc.step([0, *curve["false_alarm_rate"]], [0, *curve["hit_rate"]], where="post", label=name, **line)
        known = curve.dropna(subset="precision")
        recall.plot(known["hit_rate"], known["precision"], **line)
    roc.plot([0, 1], [0, 1], color=FAINT, linewidth=0.9, linestyle=(0, (4, 2)), label="chance: 0.5")
    first = areas.iloc[0]
    share = first["spikes"] / (first["spikes"] + first["quiet_windows"])
    recall.axhline(share, color=FAINT, linewidth=0.9, linestyle=(0, (4, 2)))
    roc.set(title="Alarms over all thresholds (ROC)", xlabel="share of quiet windows with an alarm")
    roc.set_ylabel("share of spikes with an alarm")
    recall.set(title="Precision and recall", xlabel="share of spikes with an alarm (recall)")
    recall.set_ylabel("share of alarms that are right\n(precision)")
    for ax in (roc, recall):
        ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.05))
    words.set_axis_off()
    handles, names = roc.get_legend_handles_labels()
    words.legend(
        handles,
        names,
        loc="center left",
        title="area under the ROC curve, 95 % over runs",
        alignment="left",
        labelspacing=0.9,
    )


def marks_of(area: pd.Series) -> str:
    """Spell an area with its interval."""
    if pd.isna(area["ci_low"]):
        return f"{area['value']:.2f}, no interval"
    return f"{area['value']:.2f} [{area['ci_low']:.2f}, {area['ci_high']:.2f}]"


def _why_nothing(role: str, chosen: pd.DataFrame) -> str:
    if role == "geometry" and chosen.empty:
        return "No other geometric series tells spikes better than the dimension of the middle block."
    return f"{ROLES[role]}: nothing was measured before enough spikes."
