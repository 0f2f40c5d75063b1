"""A strip under a course: a lane for each block with its sure rises and falls, its turns, and the words for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lmshape.dynamics.turns import moves
from lmshape.figures.style import FAINT, INK

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

# Rises are pale, falls dark and hatched: they differ in grey, too.
KINDS = {"rise": ("#CFE3F2", ""), "fall": ("#E8B48C", "////"), "": ("#F4F4F4", "")}
NAMES = {"rise": "sure rise", "fall": "sure fall", "": "no sure move"}
LANE = 0.05  # of the panel's height
SLOT = 0.13  # a lane with the words above it
SHARE = 3 * SLOT + 0.03  # of the panel's height that the strip takes


def sure_moves(phase: Mapping[str, float], course: pd.DataFrame) -> Iterator[tuple[float, float, str]]:
    """Yield the sure moves of a course from turn to turn: where they begin and end, and whether they rise or fall.

    They are found as those of the table `phases` were. None is yielded where they differ from the table's words,
    whose course may be that of several models.
    """
    known = course[course["value"] > 0].sort_values("step")
    bound = phase["least"] + (phase["noise"] if pd.notna(phase["noise"]) else 0.0)
    if not bound > 0:
        return
    found, steps = moves(np.log(known["value"].to_numpy(float)), bound), known["step"].to_numpy()
    if ", ".join(found.words) == phase["moves"]:
        for start, end, word in zip(found.turns, found.turns[1:], found.words, strict=False):
            yield float(steps[start]), float(steps[end]), word


def verdict(phase: Mapping[str, str]) -> str:
    """Say the shape of a row of the table `phases` in words."""
    named, shape = str(phase["moves"] or ""), str(phase["shape"] or "")
    if not shape:
        return str(phase["flag"])
    if shape == "undecided":
        return f"undecided; sure: {named}" if named else "undecided"
    return named or "flat"


def draw(ax: Axes, frame: pd.DataFrame, bands: Sequence[str], colors: Mapping[str, str]) -> None:
    """Draw a lane for each band under the courses, which are moved up to make room: the axis of y is logarithmic.

    Parameters
    ----------
    frame : courses of several bands, each row with the columns of its row of the table `phases`
    """
    _make_room(ax)
    for lane, band in enumerate(bands):
        course = frame[(frame["band"] == band) & frame["shape"].notna()]
        if len(course):
            _lane(ax, course, 0.02 + SLOT * (len(bands) - 1 - lane), colors[band])


def _lane(ax: Axes, course: pd.DataFrame, bottom: float, color: str) -> None:
    phase = course.iloc[0].to_dict()
    steps = course.loc[course["value"].notna(), "step"]
    if phase["shape"]:
        _stretch(ax, (steps.min(), steps.max()), bottom, kind="")
        for start, end, kind in sure_moves(phase, course):
            _stretch(ax, (start, end), bottom, kind=kind)
    for name in _turns(phase):
        _turn(ax, [phase[f"{name}_step{end}"] for end in ("_low", "", "_high")], bottom + LANE / 2)
    ax.text(0.012, bottom + LANE + 0.008, f"{phase['band']}: {verdict(phase)}", transform=ax.transAxes,
            va="bottom", color=color, fontweight="bold", fontsize="small", zorder=5)  # fmt: skip


def _stretch(ax: Axes, ends: Sequence[float], bottom: float, *, kind: str) -> None:
    face, hatch = KINDS[kind]
    ax.fill_between(ends, bottom, bottom + LANE, transform=ax.get_xaxis_transform(), facecolor=face, hatch=hatch,
                    edgecolor="white", linewidth=0.8, zorder=2 if kind else 1)  # fmt: skip


def _turn(ax: Axes, steps: Sequence[float], height: float) -> None:
    """Draw the interval of a turn as a bar with a tick, rimmed in white to be seen on hatching."""
    across, (low, step, high) = ax.get_xaxis_transform(), steps
    for color, wider in (("white", 1.6), (INK, 0.0)):
        ax.plot([low, high], [height] * 2, transform=across, color=color, linewidth=1.6 + wider, zorder=4)
        ax.plot([step], [height], transform=across, color=color, marker="|", markersize=7,
                markeredgewidth=1.2 + wider, zorder=4)  # fmt: skip


def _turns(phase: Mapping[str, float]) -> list[str]:
    """Turns of the course that have an interval."""
    named = str(phase["moves"] or "")
    wanted = {"peak": "rise, fall", "trough": "fall, rise"}
    return [name for name, turn in wanted.items() if turn in named and pd.notna(phase[f"{name}_step_low"])]


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
    turn = Line2D([], [], color=INK, linewidth=1.6, marker="|", markersize=7, label="turn, 95 % interval")
    return [*kinds, turn]
