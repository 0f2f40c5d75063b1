"""Anisotropy over layers as training proceeds: a line for each checkpoint, colored by its step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import pandas as pd

from lmshape.figures import marks, selection
from lmshape.figures import steps as step_labels
from lmshape.figures.marks import crowded
from lmshape.figures.steps import step_colors, step_name, step_norm, step_ticks
from lmshape.figures.style import INK, Look, styled
from lmshape.tables.rows import first_dataset, in_order, trajectories

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

TITLE = "Anisotropy by layer as training proceeds"
READS = ("anisotropy", "anisotropy_null")
# Bands of more checkpoints than this cover one another.
MOST_BANDS = 30
MOST_MARKERS = 24  # layers; more markers of full size are a chain


def data(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Select anisotropy on the first dataset at every step of every model, and its null."""
    rows = first_dataset(selection.metric_rows(tables["metrics"], "anisotropy"))
    steps = trajectories(rows)
    return selection.with_null(steps, tables["metrics"], "anisotropy_null")


def draw(data: pd.DataFrame) -> Figure:
    """Draw a panel for each model, over a second one for each further choice of rows."""
    models, variants = in_order(data["model"]), in_order(data["rows"])
    many = crowded(models)
    with styled(crowded=many):
        if data.empty:
            return marks.empty_figure(
                title=TITLE, note="No checkpoint of this study has a known training step."
            )
        figure, panels = marks.small_multiples(models, variants, size=(3.4, 2.7))
        colors = _colors(data["step"])
        for (model, rows), ax in panels.items():
            of_model = data[data["model"] == model]
            _panel(ax, of_model[of_model["rows"] == rows], colors, crowded=many)
            ax.set_title(marks.panel_title(model, rows, crowded=True))
            _axes(ax, of_model)
            if not many:
                _label_steps(ax, of_model[of_model["rows"] == rows], colors)
        marks.label_outer_panels(panels.values(), y=not many)
        if many:
            figure.supylabel(marks.METRIC_LABELS["anisotropy"], fontsize=8.5, color=INK)
        _colorbar(figure, colors, data["step"], panels=list(panels.values()))
        marks.legend(figure, data["null"], marks.ISOTROPIC)
        title = f"{TITLE}, {selection.dataset_names(data)}"
        marks.finish(figure, title=title, notes=_notes(data))
        return figure


def _panel(ax: Axes, frame: pd.DataFrame, colors: ScalarMappable, *, crowded: bool) -> None:
    last, banded = frame["step"].max(), frame["step"].nunique() <= MOST_BANDS
    size = 2.0 if crowded or frame["layer"].max() > MOST_MARKERS else 4.5
    for step, of_step in frame.groupby("step"):
        look = Look(colors.to_rgba(step), "-", "o" if step == last else "", 1.5 if banded else 0.8, size)
        final = of_step["site"] == "final_norm"
        opacity = 0.2 if banded else 0
        marks.line(ax, of_step[~final], x="layer", look=look, label=step_name(step), opacity=opacity)
        place = marks.final_norm_place(int(of_step["layer"].max()))
        point = Look(look.color, "-", "_" if step != last else "o", size=size)
        marks.off_line(ax, of_step[final], x=place, look=point)
    marks.null_line(ax, frame[(frame["step"] == last) & (frame["site"] != "final_norm")], x="layer")
    marks.note_without_numbers(ax, frame)


def _label_steps(ax: Axes, frame: pd.DataFrame, colors: ScalarMappable) -> None:
    """Write steps whose colors are alike between the last block and the final norm."""
    blocks = int(frame["layer"].max()) if len(frame) else 0
    last = (
        frame[(frame["layer"] == blocks) & (frame["site"] != "final_norm")]
        .set_index("step")["value"]
        .dropna()
    )
    near = [step for step in step_labels.near_steps(frame["step"]) if step in last.index]
    shades = {step: colors.to_rgba(step) for step in near}
    width = 0.12 * (marks.final_norm_place(blocks) - blocks)
    step_labels.draw(ax, {step: last[step] for step in near}, shades, x=blocks, width=width)


def _axes(ax: Axes, of_model: pd.DataFrame) -> None:
    final_norm = bool((of_model["site"] == "final_norm").any())
    marks.layer_axis(ax, int(of_model["layer"].max()), final_norm=final_norm)
    marks.anisotropy_axis(ax)
    ax.set_ylabel(marks.AXIS_LABELS["anisotropy"])


def _colors(steps: Iterable[int]) -> ScalarMappable:
    from matplotlib.cm import ScalarMappable

    return ScalarMappable(step_norm(steps), step_colors())


def _colorbar(
    figure: Figure, colors: ScalarMappable, steps: Iterable[int], *, panels: Iterable[Axes]
) -> None:
    panels = list(panels)
    size = {"shrink": 0.3, "anchor": (0, 1), "aspect": 25} if crowded(panels[::2]) else {"aspect": 35}
    label = "training step (log scale from 1)"
    bar = figure.colorbar(colors, ax=panels, label=label, pad=0.015, **size)
    ticks = [0, *step_ticks([1, *steps])] if 0 not in set(steps) else step_ticks(steps)
    bar.set_ticks(ticks, labels=[step_name(tick) for tick in ticks], minor=False)
    bar.minorticks_off()
    width = 0.8 if len(set(steps)) <= MOST_BANDS else 0.4
    bar.ax.hlines(sorted(set(steps)), 0, 0.35, color="white", linewidth=width)


def _notes(data: pd.DataFrame) -> list[str]:
    banded = data.groupby("model")["step"].nunique().max() <= MOST_BANDS
    models = [] if crowded(in_order(data["model"])) else data.groupby("model")["step"]
    labeled = any(step_labels.near_steps(steps) for _, steps in models)
    return [
        "One line a checkpoint (white ticks in the color bar); markers: the last one.",
        "Steps beside lines: those within a factor of 1.5 of another." if labeled else "",
        marks.interval_note(data, marks.JACKKNIFE) if banded else marks.csv_interval_note(data),
        marks.isotropic_note(data["null"]),
        marks.sink_note(data),
        marks.flag_note(data),
        marks.distrusted_note(data),
    ]
