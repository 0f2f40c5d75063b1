"""Phases of training: dimension and effective rank over the steps, with the rises and falls that the draws bear out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd

from lmshape.dynamics.phase_columns import PHASE_COLUMNS
from lmshape.figures import marks, phase_strip, selection
from lmshape.figures.layout import crowded
from lmshape.figures.steps import step_axis
from lmshape.figures.style import INK, looks, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
    chosen = selection.with_named_layers(selection.trajectories(selection.first_dataset(metrics)))
    series = [SERIES.get(pair, "") for pair in zip(chosen["metric"], chosen["rows"], strict=True)]
    chosen = chosen.assign(series=series)
    phases = tables.get("phases", pd.DataFrame(columns=PHASE_COLUMNS.names))[[*_KEYS, *_PHASES]]
    phases = phases.rename(columns={"flag": "phase_flag"})
    return chosen[chosen["series"] != ""].merge(phases, on=_KEYS, how="left").reset_index(drop=True)


def draw(data: pd.DataFrame) -> Figure:
    """Draw a panel for each model and series, on a scale of its own: a line for each named block, its phases below."""
    models = selection.in_order(data["model"]) if len(data) else []
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
    phase_strip.draw(ax, courses, bands, {band: look.color for band, look in BAND_LOOKS.items()})


def _legend(figure: Figure) -> None:
    from matplotlib.lines import Line2D

    bands = {
        "early": "early: a quarter of the blocks",
        "middle": "middle: half of them",
        "last": "last block",
    }
    lines = [Line2D([], [], label=bands[band], **look.settings) for band, look in BAND_LOOKS.items()]
    blank = Line2D([], [], linestyle="none", label=" ")
    legend = figure.legend(
        handles=[*lines, blank, *phase_strip.handles()], loc="outside upper right", ncols=2
    )
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
