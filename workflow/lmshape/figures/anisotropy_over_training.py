"""Anisotropy over layers as training proceeds: a line for each checkpoint, colored by its step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import pandas as pd

from lmshape.figures import marks, nulls, selection
from lmshape.figures.steps import step_colors, step_name, step_norm, step_ticks
from lmshape.figures.style import Look, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

TITLE = "Anisotropy by layer as training proceeds"
# Bands of more checkpoints than this cover one another.
MOST_BANDS = 30


def data(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Select anisotropy on the first dataset at every step of every model, and its null."""
    rows = selection.first_dataset(selection.metric_rows(tables["metrics"], "anisotropy"))
    steps = selection.trajectories(rows)
    return selection.with_null(steps, tables["metrics"], "anisotropy_null")


def draw(data: pd.DataFrame) -> Figure:
    """Draw a panel for each model, over a second one for each further choice of rows."""
    with styled():
        if data.empty:
            return marks.empty_figure(
                title=TITLE, note="No checkpoint of this study has a known training step."
            )
        models, variants = selection.in_order(data["model"]), selection.in_order(data["rows"])
        figure, panels = marks.panel_grid(models, variants, size=(3.4, 2.7))
        colors = _colors(data["step"])
        for (model, rows), ax in panels.items():
            of_model = data[data["model"] == model]
            _panel(ax, of_model[of_model["rows"] == rows], colors)
            ax.set_title(f"{model}\n{marks.VARIANT_NAMES.get(rows, rows)}")
            _axes(ax, of_model)
        _colorbar(figure, colors, data["step"])
        nulls.legend(figure, data["null"], nulls.ISOTROPIC)
        title = f"{TITLE}, {selection.dataset_names(data)}"
        marks.finish(figure, title=title, notes=_notes(data))
        return figure


def _panel(ax: Axes, frame: pd.DataFrame, colors: ScalarMappable) -> None:
    last = frame["step"].max()
    for step, of_step in frame.groupby("step"):
        look = Look(colors.to_rgba(step), "-", "o" if step == last else "")
        final = of_step["site"] == "final_norm"
        if frame["step"].nunique() > MOST_BANDS:
            of_step = of_step.assign(ci_low=of_step["value"], ci_high=of_step["value"])
        marks.line(ax, of_step[~final], x="layer", look=look, label=step_name(step))
        place = marks.final_norm_place(int(of_step["layer"].max()))
        marks.off_line(ax, of_step[final], x=place, look=Look(look.color, "-", "_" if step != last else "o"))
    nulls.line(ax, frame[(frame["step"] == last) & (frame["site"] != "final_norm")], x="layer")
    marks.note_without_numbers(ax, frame)


def _axes(ax: Axes, of_model: pd.DataFrame) -> None:
    final_norm = bool((of_model["site"] == "final_norm").any())
    marks.layer_axis(ax, int(of_model["layer"].max()), final_norm=final_norm)
    marks.anisotropy_axis(ax)
    if ax.get_subplotspec().is_first_col():
        ax.set_ylabel(marks.METRIC_LABELS["anisotropy"])


def _colors(steps: Iterable[int]) -> ScalarMappable:
    from matplotlib.cm import ScalarMappable

    return ScalarMappable(step_norm(steps), step_colors())


def _colorbar(figure: Figure, colors: ScalarMappable, steps: Iterable[int]) -> None:
    bar = figure.colorbar(
        colors, ax=figure.axes, label="training step (log scale from 1)", pad=0.015, aspect=35
    )
    ticks = [0, *step_ticks([1, *steps])] if 0 not in set(steps) else step_ticks(steps)
    bar.set_ticks(ticks, labels=[step_name(tick) for tick in ticks], minor=False)
    bar.minorticks_off()
    bar.ax.hlines(sorted(set(steps)), 0, 0.35, color="white", linewidth=0.8)


def _notes(data: pd.DataFrame) -> list[str]:
    banded = data.groupby("model")["step"].nunique().max() <= MOST_BANDS
    return [
        "One line a checkpoint (white ticks in the color bar); markers: the last one.",
        marks.interval_note(data, marks.JACKKNIFE) if banded else "Intervals: in the figure's CSV file.",
        nulls.isotropic_note(data["null"]),
        marks.flag_note(data),
        marks.distrusted_note(data),
    ]
