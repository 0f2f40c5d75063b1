"""A strip under a course: a lane for each block, its straight pieces rising, level or falling, and its turns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lmshape.figures.style import FAINT, INK

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

# Rises are pale, falls dark and hatched: they differ in grey, too.
KINDS = {"rise": ("#CFE3F2", ""), "level": ("#F4F4F4", ""), "fall": ("#E8B48C", "////")}
NAMES = {"rise": "rises", "level": "level, as far as can be told", "fall": "falls"}
LANE = 0.085  # of the panel's height
SHARE = 0.34  # of the panel's height that the strip takes


def pieces(phase: Mapping[str, float], first: float, last: float) -> Iterator[tuple[float, float, str]]:
    """Yield the straight pieces of a row of the table `phases`: where they begin and end, and what they are.

    A piece rises or falls where its slope's interval says so and it changes the logarithm by `least`; else it is level.
    """
    breaks = [phase.get(f"boundary_{place}_step") for place in (1, 2, 3)]
    ends = [first, *(place for place in breaks if pd.notna(place)), last]
    for place, (start, end) in enumerate(zip(ends, ends[1:], strict=False), start=1):
        low, high = phase[f"slope_{place}_low"], phase[f"slope_{place}_high"]
        change = phase[f"slope_{place}"] * np.log10((1 + end) / (1 + start))
        seen = abs(change) >= phase["least"]
        yield start, end, "rise" if low > 0 and seen else "fall" if high < 0 and seen else "level"


def verdict(phase: Mapping[str, str]) -> str:
    """Say the shape of a row of the table `phases` in words."""
    moves, shape = str(phase["moves"] or ""), str(phase["shape"] or "")
    if not shape:
        return str(phase["flag"])
    if shape == "undecided":
        return f"undecided; sure: {moves}" if moves else "undecided"
    return moves or "flat"


def draw(ax: Axes, phases: pd.DataFrame, bands: Sequence[str], colors: Mapping[str, str]) -> None:
    """Draw a lane for each band under the course, which is moved up to make room: the axis of y is logarithmic."""
    _make_room(ax)
    for lane, band in enumerate(bands):
        for phase in phases[phases["band"] == band].to_dict("records"):
            _lane(ax, phase, 0.02 + LANE * 1.2 * (len(bands) - 1 - lane), colors[band])


def _lane(ax: Axes, phase: Mapping[str, float], bottom: float, color: str) -> None:
    across = ax.get_xaxis_transform()
    middle = bottom + LANE / 2
    if phase["shape"]:
        for start, end, kind in pieces(phase, phase["first_step"], phase["last_step"]):
            face, hatch = KINDS[kind]
            ax.fill_between([start, end], bottom, bottom + LANE, transform=across, facecolor=face, hatch=hatch,
                            edgecolor="white", linewidth=0.8, zorder=1)  # fmt: skip
    for name in _turns(phase):
        step, low, high = (phase[f"{name}_step{end}"] for end in ("", "_low", "_high"))
        ax.plot([low, high], [bottom + 0.012] * 2, transform=across, color=INK, linewidth=1.6, zorder=4)
        ax.plot([step], [bottom + 0.012], transform=across, color=INK, marker="|", markersize=6, zorder=4)
    ax.text(0.012, middle, f"{phase['band']}: {verdict(phase)}", transform=ax.transAxes, va="center",
            color=color, fontweight="bold", fontsize="small", zorder=5,
            bbox={"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.6})  # fmt: skip


def _turns(phase: Mapping[str, float]) -> list[str]:
    """Turns of the course that have an interval."""
    moves = str(phase["moves"] or "")
    wanted = {"peak": "rise, fall", "trough": "fall, rise"}
    return [name for name, turn in wanted.items() if turn in moves and pd.notna(phase[f"{name}_step_low"])]


def _make_room(ax: Axes) -> None:
    low, high = ax.dataLim.intervaly
    if high > low > 0:
        margin = (high / low) ** 0.06
        ax.set_ylim(low / margin, high * margin)
        # no tick and no line of the grid beside the strip
        ax.set_yticks([tick for tick in ax.get_yticks() if low / margin <= tick <= high * margin])
        ax.set_ylim(low / margin / (high / low) ** (SHARE / (1 - SHARE)), high * margin)


def handles() -> list[Artist]:
    """Give the entries of a legend."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    kinds = [
        Patch(
            facecolor=face,
            hatch=hatch,
            edgecolor="white" if hatch else FAINT,
            linewidth=0.4,
            label=NAMES[kind],
        )
        for kind, (face, hatch) in KINDS.items()
    ]
    turn = Line2D([], [], color=INK, linewidth=1.6, marker="|", markersize=6, label="turn, 95 % interval")
    return [*kinds, turn]
