"""Phases of training: dimension and effective rank over the steps, with the rises and falls that the draws bear out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lmshape.dynamics.phases import PHASE_COLUMNS
from lmshape.dynamics.trajectories import moves
from lmshape.figures import marks, selection
from lmshape.figures.marks import crowded
from lmshape.figures.steps import step_axis
from lmshape.figures.style import FAINT, INK, looks, styled
from lmshape.tables.rows import first_dataset, in_order, trajectories

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


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


def draw_of_phase_strip(
    ax: Axes, frame: pd.DataFrame, bands: Sequence[str], colors: Mapping[str, str]
) -> None:
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


TITLE = "Phases of training"
BANDS = ("early", "middle", "last")
BAND_LOOKS = looks(list(BANDS))
MOST_MARKERS = 30  # checkpoints; markers of more hide the line
# A row of panels each: metric, rows and name.
SERIES = {
    ("id_twonn", "all"): "intrinsic dimension, all rows",
    ("id_twonn", "one_per_type"): "intrinsic dimension, one row of each token id",
    ("effective_rank", "all"): "effective rank, all rows",
}
READS = ("id_twonn", "effective_rank")
_KEYS = ["model", "dataset", "rows", "metric", "layer"]
_TURNS = [f"{turn}_step{end}" for turn in ("peak", "trough") for end in ("", "_low", "_high")]
_PHASES = ["shape", "moves", "least", "noise", *_TURNS, "flag"]


def data(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Select the courses at the named blocks on the first dataset, each with its row of the table `phases`.

    `series` names metric and rows; the flag of the phases is `phase_flag`.
    """
    metrics = pd.concat(
        [selection.metric_rows(tables["metrics"], metric) for metric in READS], ignore_index=True
    )
    chosen = selection.with_named_layers(trajectories(first_dataset(metrics)))
    series = [SERIES.get(pair, "") for pair in zip(chosen["metric"], chosen["rows"], strict=True)]
    chosen = chosen.assign(series=series)
    phases = tables.get("phases", pd.DataFrame(columns=PHASE_COLUMNS.names))[[*_KEYS, *_PHASES]]
    phases = phases.rename(columns={"flag": "phase_flag"})
    return chosen[chosen["series"] != ""].merge(phases, on=_KEYS, how="left").reset_index(drop=True)


def draw(data: pd.DataFrame) -> Figure:
    """Draw a panel for each model and series, on a scale of its own: a line for each named block, its phases below."""
    models = in_order(data["model"]) if len(data) else []
    many = crowded(models)
    with styled(crowded=many):
        if data.empty:
            return marks.empty_figure(
                title=TITLE, note="This study has no `id_twonn` or `effective_rank` at a known training step."
            )
        series = [name for name in SERIES.values() if (data["series"] == name).any()]
        figure, panels = marks.small_multiples(models, series, size=(4.4, 3.4), same_scale=False)
        for (model, name), ax in panels.items():
            _panel(ax, data[(data["model"] == model) & (data["series"] == name)])
            ax.set_title(f"{model}\n{name}")
        marks.label_outer_panels(panels.values(), y=not many)
        _legend(figure)
        marks.finish(figure, title=f"{TITLE}, {selection.dataset_names(data)}", notes=_notes(data))
        return figure


def _panel(ax: Axes, frame: pd.DataFrame) -> None:
    marks.dimension_axis(ax)
    if frame.empty:
        return marks.nothing_here(ax, "not measured on these rows")
    for band, of_band in frame.groupby("band", sort=False):
        look = BAND_LOOKS[band] if len(of_band) <= MOST_MARKERS else replace(BAND_LOOKS[band], marker="")
        marks.line(ax, of_band, x="step", look=look, label=band)
    step_axis(ax, frame["step"])
    ax.set_ylabel("dimensions (log scale)")
    marks.note_without_numbers(ax, frame)
    bands = [band for band in BANDS if (frame["band"] == band).any()]
    courses = frame.drop(columns="flag").rename(columns={"phase_flag": "flag"})
    draw_of_phase_strip(ax, courses, bands, {band: look.color for band, look in BAND_LOOKS.items()})


def _legend(figure: Figure) -> None:
    from matplotlib.lines import Line2D

    bands = {
        "early": "early: a quarter of the blocks",
        "middle": "middle: half of them",
        "last": "last block",
    }
    lines = [Line2D([], [], label=bands[band], **look.settings) for band, look in BAND_LOOKS.items()]
    blank = Line2D([], [], linestyle="none", label=" ")
    legend = figure.legend(handles=[*lines, blank, *handles()], loc="outside upper right", ncols=2)
    for text in legend.get_texts():
        text.set_color(INK)


def _notes(data: pd.DataFrame) -> list[str]:
    least = data["least"].min()
    rule = (
        "In words: the rises and falls that are sure. Each changes the value by a tenth at the least (or a tenth of the"
        " course's range in the logarithm), and no other by more than a fifth, at 95 % confidence for all pairs of"
        " checkpoints at once."
    )
    return [
        rule if pd.notna(least) else "The table `phases` has no row for these courses.",
        "Strips: the same moves, each from one extreme of the course to the next; the first may begin later than its"
        " strip, and the last end earlier. Bars: the turn lies between these checkpoints.",
        marks.interval_note(data, "Student's t for dimensions, the delete-one-draw jackknife for ranks"),
        marks.dimension_note(data),
        marks.flag_note(data),
        marks.distrusted_note(data),
    ]
