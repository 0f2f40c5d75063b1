"""Phases of training: dimension and effective rank over the steps, with the rises and falls that are significant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lmshape.dynamics.phases import PHASE_COLUMNS
from lmshape.dynamics.trajectories import segments
from lmshape.figures import layout, marks, notes, selection
from lmshape.figures.drawing import Drawing
from lmshape.figures.steps import step_axis
from lmshape.figures.style import FAINT, INK
from lmshape.tables.rows import first_dataset, in_order, trajectories

MOST_MARKERS = 30  # checkpoints; markers of more hide the line
# A row of panels each: metric, rows and name.
SERIES = {
    ("id_twonn", "all"): "intrinsic dimension, all rows",
    ("id_twonn", "one_per_type"): "intrinsic dimension, one row of each token id",
    ("effective_rank", "all"): "effective rank, all rows",
}
METRICS = ("id_twonn", "effective_rank")
KEYS = ["model", "dataset", "rows", "metric", "layer"]
CHANGE_POINTS = [f"{turn}_step{end}" for turn in ("peak", "trough") for end in ("", "_low", "_high")]
PHASES_READ = ["shape", "moves", "least", "noise", *CHANGE_POINTS, "flag"]


def data(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Select the trajectories at the named blocks on the first dataset, each with its row of the table `phases`.

    `series` names metric and rows; the flag of the phases is `phase_flag`.
    """
    metrics = pd.concat(
        [selection.metric_rows(tables["metrics"], name) for name in METRICS], ignore_index=True
    )
    chosen = selection.with_named_layers(trajectories(first_dataset(metrics)))
    series = [SERIES.get(pair, "") for pair in zip(chosen["metric"], chosen["rows"], strict=True)]
    chosen = chosen.assign(series=series)
    phases = tables.get("phases", pd.DataFrame(columns=PHASE_COLUMNS.names))[[*KEYS, *PHASES_READ]]
    phases = phases.rename(columns={"flag": "phase_flag"})
    return chosen[chosen["series"] != ""].merge(phases, on=KEYS, how="left").reset_index(drop=True)


def draw_panels(data: pd.DataFrame) -> Figure:
    """Draw a panel for each model and series, on a scale of its own: a line for each named block, its phases below."""
    models = in_order(data["model"])
    many = layout.crowded(models)
    series = [name for name in SERIES.values() if (data["series"] == name).any()]
    figure, panels = layout.small_multiples(models, series, size=(4.4, 3.4), same_scale=False)
    for (model, name), ax in panels.items():
        _panel(ax, data[(data["model"] == model) & (data["series"] == name)])
        ax.set_title(f"{model}\n{name}")
    layout.label_outer_panels(panels.values(), y=not many)
    blank = Line2D([], [], linestyle="none", label=" ")
    entries = [*marks.band_entries(), blank, *_strip_entries()]
    legend = figure.legend(handles=entries, loc="outside upper right", ncols=2)
    for text in legend.get_texts():
        text.set_color(INK)
    return figure


def _panel(ax: Axes, frame: pd.DataFrame) -> None:
    marks.dimension_axis(ax)
    if frame.empty:
        return layout.nothing_here(ax, "not measured on these rows")
    for band, of_band in frame.groupby("band", sort=False):
        look = marks.BAND_LOOKS[band]
        drawn = look if len(of_band) <= MOST_MARKERS else replace(look, marker="")
        marks.line(ax, of_band, x="step", look=drawn, label=band)
    step_axis(ax, frame["step"])
    ax.set_ylabel("dimensions (log scale)")
    layout.note_without_numbers(ax, frame)
    _strip(ax, frame)


# The strip of phases under the lines: a lane for each block

# Face and hatch; rises are pale, falls dark and hatched: they differ in grey, too.
SEGMENTS = {"rise": ("#CFE3F2", ""), "fall": ("#E8B48C", "////"), "": ("#F4F4F4", "")}
SEGMENT_NAMES = {"rise": "significant rise", "fall": "significant fall", "": "not significant"}
LANE = 0.05  # of the panel's height
SLOT = 0.13  # a lane with the words above it
SHARE = 3 * SLOT + 0.03  # of the panel's height that the strip takes


def _strip(ax: Axes, frame: pd.DataFrame) -> None:
    """Draw a lane for each named block under the lines, which are moved up: the axis of y is logarithmic."""
    _move_up(ax)
    bands = [band for band in marks.BAND_LOOKS if (frame["band"] == band).any()]
    for lane, band in enumerate(bands):
        trajectory = frame[(frame["band"] == band) & frame["shape"].notna()]
        if len(trajectory):
            _lane(ax, trajectory, 0.02 + SLOT * (len(bands) - 1 - lane), marks.BAND_LOOKS[band].color)


def _move_up(ax: Axes) -> None:
    low, high = ax.dataLim.intervaly
    if high > low > 0:
        margin = (high / low) ** 0.06
        ax.set_ylim(low / margin, high * margin)
        # no tick and no line of the grid beside the strip
        ax.set_yticks([tick for tick in ax.get_yticks() if low / margin <= tick <= high * margin])
        ax.set_ylim(low / margin / (high / low) ** (SHARE / (1 - SHARE)), high * margin)


def _lane(ax: Axes, trajectory: pd.DataFrame, bottom: float, color: Any) -> None:
    phase = trajectory.iloc[0].to_dict()
    steps = trajectory.loc[trajectory["value"].notna(), "step"]
    if phase["shape"]:
        _segment(ax, (steps.min(), steps.max()), bottom, kind="")
        for start, end, kind in significant_segments(phase, trajectory):
            _segment(ax, (start, end), bottom, kind=kind)
    for name in _change_points(phase):
        _bar(ax, [phase[f"{name}_step{end}"] for end in ("_low", "", "_high")], bottom + LANE / 2)
    ax.text(0.012, bottom + LANE + 0.008, f"{phase['band']}: {verdict(phase)}", transform=ax.transAxes,
            va="bottom", color=color, fontweight="bold", fontsize="small", zorder=5)  # fmt: skip


def significant_segments(
    phase: Mapping[str, Any], trajectory: pd.DataFrame
) -> Iterator[tuple[float, float, str]]:
    """Yield the significant segments of a trajectory: where each begins and ends, and whether it rises or falls.

    They are found as those of the table `phases` were. None is yielded where they differ from the table's words,
    which may be about the trajectories of several models.
    """
    known = trajectory[trajectory["value"] > 0].sort_values("step")
    bound = phase["least"] + (phase["noise"] if pd.notna(phase["noise"]) else 0.0)
    if not bound > 0:
        return
    found, steps = segments(np.log(known["value"].to_numpy(float)), bound), known["step"].to_numpy()
    if ", ".join(found.words) == phase["moves"]:
        for start, end, word in zip(found.ends, found.ends[1:], found.words, strict=False):
            yield float(steps[start]), float(steps[end]), word


def verdict(phase: Mapping[str, Any]) -> str:
    """Say the shape of a row of the table `phases` in words."""
    named, shape = str(phase["moves"] or ""), str(phase["shape"] or "")
    if not shape:
        return str(phase["phase_flag"])
    if shape == "undecided":
        return f"undecided; significant: {named}" if named else "undecided"
    return named or "flat"


def _segment(ax: Axes, ends: Sequence[float], bottom: float, *, kind: str) -> None:
    face, hatch = SEGMENTS[kind]
    ax.fill_between(ends, bottom, bottom + LANE, transform=ax.get_xaxis_transform(), facecolor=face, hatch=hatch,
                    edgecolor="white", linewidth=0.8, zorder=2 if kind else 1)  # fmt: skip


def _change_points(phase: Mapping[str, Any]) -> list[str]:
    """Name the change points of the trajectory that have an interval."""
    named = str(phase["moves"] or "")
    wanted = {"peak": "rise, fall", "trough": "fall, rise"}
    return [name for name, turn in wanted.items() if turn in named and pd.notna(phase[f"{name}_step_low"])]


def _bar(ax: Axes, steps: Sequence[float], height: float) -> None:
    """Draw the interval of a change point as a bar with a tick, rimmed in white to be seen on hatching."""
    across, (low, step, high) = ax.get_xaxis_transform(), steps
    for color, wider in (("white", 1.6), (INK, 0.0)):
        ax.plot([low, high], [height] * 2, transform=across, color=color, linewidth=1.6 + wider, zorder=4)
        ax.plot([step], [height], transform=across, color=color, marker="|", markersize=7,
                markeredgewidth=1.2 + wider, zorder=4)  # fmt: skip


def _strip_entries() -> list[Artist]:
    segments: list[Artist] = [
        Patch(facecolor=face, hatch=hatch, edgecolor="white" if hatch else FAINT, linewidth=0.4,
              label=SEGMENT_NAMES[kind])
        for kind, (face, hatch) in SEGMENTS.items()
    ]  # fmt: skip
    bar = Line2D(
        [], [], color=INK, linewidth=1.6, marker="|", markersize=7, label="change point, 95 % interval"
    )
    return [*segments, bar]


def _notes(data: pd.DataFrame) -> list[str]:
    rule = (
        "In words: the significant rises and falls. Each changes the value by a tenth at the least (or a tenth of the"
        " trajectory's range in the logarithm), and no other by more than a fifth, at 95 % confidence for all pairs of"
        " checkpoints at once."
    )
    return [
        rule if data["least"].notna().any() else "The table `phases` has no row for these trajectories.",
        "Strips: the same segments, each from one extreme of the trajectory to the next; the first may begin later than"
        " its strip, and the last end earlier. Bars: the change point lies between these checkpoints.",
        notes.intervals(data, "Student's t for dimensions, the delete-one-draw jackknife for ranks"),
        notes.dimensions(data),
        notes.flags(data),
        notes.distrusted(data),
    ]


PHASES = Drawing(
    title="Phases of training",
    reads=METRICS,
    data=data,
    panels=draw_panels,
    notes=_notes,
    nothing="This study has no `id_twonn` or `effective_rank` at a known training step.",
)
