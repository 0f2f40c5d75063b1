"""A metric as training proceeds: anisotropy over layers, a line a checkpoint; dimension over steps, a line a block."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from lmshape.figures import layout, marks, notes, selection
from lmshape.figures.drawing import Drawing
from lmshape.figures.steps import (
    color_of,
    colors_of_steps,
    label_ends,
    near_steps,
    step_axis,
    step_bar,
    step_name,
)
from lmshape.figures.style import Look
from lmshape.tables.rows import first_dataset, in_order, trajectories

MOST_BANDS = 30  # checkpoints; bands of more cover one another
MOST_LAYERS = 24  # with markers of full size; more are a chain
MOST_MARKERS = 16  # of a line over steps; more of them are a chain that hides how it is dashed


# Anisotropy


def _anisotropy(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Select anisotropy on the first dataset at every step of every model, and its null."""
    rows = first_dataset(selection.metric_rows(tables["metrics"], "anisotropy"))
    return selection.with_null(trajectories(rows), tables["metrics"], "anisotropy_null")


def _draw_anisotropy(data: pd.DataFrame) -> Figure:
    """Draw a panel for each model, over a second one for each further choice of rows; lines colored by step."""
    models, variants = in_order(data["model"]), in_order(data["rows"])
    many = layout.crowded(models)
    figure, panels = layout.small_multiples(models, variants, size=(3.4, 2.7))
    colors = colors_of_steps(data["step"])
    for ax, frame, of_model in layout.each_panel(panels, data):
        _checkpoint_lines(ax, frame, colors, small=many)
        final_norm = bool((of_model["site"] == "final_norm").any())
        marks.layer_axis(ax, int(of_model["layer"].max()), final_norm=final_norm)
        marks.metric_axis(ax, "anisotropy")
        if not many:
            _label_steps(ax, frame, colors)
    layout.label_outer_panels(panels.values(), y=not many)
    if many:
        layout.label_values(figure, marks.METRIC_LABELS["anisotropy"])
    step_bar(figure, colors, data["step"], **_place_of_bar(list(panels.values())))
    if data["null"].notna().any():
        figure.legend(handles=[marks.null_entry(notes.ISOTROPIC)], loc="outside upper right")
    return figure


def _checkpoint_lines(ax: Axes, frame: pd.DataFrame, colors: ScalarMappable, *, small: bool) -> None:
    last, banded = frame["step"].max(), frame["step"].nunique() <= MOST_BANDS
    size = 2.0 if small or frame["layer"].max() > MOST_LAYERS else 4.5
    for step, of_step in frame.groupby("step"):
        color = color_of(step, colors)
        look = Look(color, "-", "o" if step == last else "", 1.5 if banded else 0.8, size)
        final = of_step["site"] == "final_norm"
        opacity = 0.2 if banded else 0
        marks.line(ax, of_step[~final], x="layer", look=look, label=step_name(step), opacity=opacity)
        place = marks.final_norm_place(int(of_step["layer"].max()))
        marks.off_line(
            ax, of_step[final], x=place, look=Look(color, "-", "o" if step == last else "_", size=size)
        )
    marks.null_line(ax, frame[(frame["step"] == last) & (frame["site"] != "final_norm")], x="layer")
    layout.note_without_numbers(ax, frame)


def _label_steps(ax: Axes, frame: pd.DataFrame, colors: ScalarMappable) -> None:
    """Write steps whose colors are alike between the last block and the final norm."""
    blocks = int(frame["layer"].max()) if len(frame) else 0
    of_last = frame[(frame["layer"] == blocks) & (frame["site"] != "final_norm")]
    ends = of_last.set_index("step")["value"].dropna()
    near = {step: ends[step] for step in near_steps(frame["step"]) if step in ends.index}
    label_ends(ax, near, colors, x=blocks, width=0.12 * (marks.final_norm_place(blocks) - blocks))


def _place_of_bar(panels: list[Axes]) -> dict[str, Any]:
    if len(panels) > 2 * layout.MOST_TOGETHER:
        return {"ax": panels, "shrink": 0.3, "anchor": (0, 1), "aspect": 25}
    return {"ax": panels, "aspect": 35}


def _notes_on_anisotropy(data: pd.DataFrame) -> list[str]:
    steps: Iterable[pd.Series] = [of_model["step"] for _, of_model in data.groupby("model")]
    banded = max(of_model.nunique() for of_model in steps) <= MOST_BANDS
    labeled = not layout.crowded(in_order(data["model"])) and any(map(near_steps, steps))
    return [
        "One line a checkpoint (white ticks in the color bar); markers: the last one.",
        "Steps beside lines: those within a factor of 1.5 of another." if labeled else "",
        notes.intervals(data, notes.JACKKNIFE) if banded else notes.intervals_in_csv(data),
        notes.isotropic(data["null"]),
        *notes.common(data),
    ]


ANISOTROPY = Drawing(
    title="Anisotropy by layer as training proceeds",
    reads=("anisotropy", "anisotropy_null"),
    data=_anisotropy,
    panels=_draw_anisotropy,
    notes=_notes_on_anisotropy,
    nothing="No checkpoint of this study has a known training step.",
)


# Intrinsic dimension


def _dimension(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Select the TwoNN dimension and its surrogate's on the first dataset, at the named blocks and every step.

    Of every choice of rows: all, without sinks and one row of each token id, as far as they were measured.
    """
    rows = first_dataset(selection.metric_rows(tables["metrics"], "id_twonn"))
    rows = selection.with_null(rows, tables["metrics"], "id_twonn_surrogate")
    return selection.with_named_layers(trajectories(rows))


def _draw_dimension(data: pd.DataFrame) -> Figure:
    """Draw a panel for each model and choice of rows, on a scale for each model; a line for each named block."""
    models, variants = in_order(data["model"]), in_order(data["rows"])
    many = layout.crowded(models)
    figure, panels = layout.small_multiples(models, variants, size=(3.9, 2.8), same_scale=False)
    layout.share_values(panels)
    for (model, rows), (ax, frame, of_model) in zip(panels, layout.each_panel(panels, data), strict=True):
        _block_lines(ax, frame, legend=rows == variants[0] and not many)
        ax.set_title(layout.panel_title(f"{model} ({of_model['kind'].iloc[0]})", rows))
    layout.label_outer_panels(panels.values(), y=not many)
    entries = marks.band_entries() if many else []
    entries += marks.null_entries(data["null"], marks.SURROGATE)
    if entries:
        figure.legend(handles=entries, loc="outside upper right", ncols=2 if many else 1)
    if many:
        layout.label_values(figure, f"{marks.METRIC_LABELS['id_twonn']}, log scale")
    return figure


def _block_lines(ax: Axes, frame: pd.DataFrame, *, legend: bool) -> None:
    marks.dimension_axis(ax)
    if frame.empty:
        return layout.nothing_here(ax, "not measured on these rows")
    blocks = [
        (f"layer {layer:.0f}", of_layer["band"].iloc[0], of_layer)
        for layer, of_layer in frame.groupby("layer")
    ]
    for layer, band, of_layer in blocks:
        null = f"_surrogate of {layer}"
        marks.surrogate_line(ax, of_layer, x="step", look=marks.BAND_LOOKS[band], label=null)
    for layer, band, of_layer in blocks:
        look, label = marks.BAND_LOOKS[band], f"{band} ({layer})"
        marks.line(ax, of_layer, x="step", look=look, label=label, most_markers=MOST_MARKERS)
    if legend:
        ax.legend(loc="best")
    layout.note_without_numbers(ax, frame)
    step_axis(ax, frame["step"])
    ax.set_ylabel(marks.AXIS_LABELS["id_twonn"])


def _notes_on_dimension(data: pd.DataFrame) -> list[str]:
    steps = data.groupby("model", sort=False)["step"].nunique()
    single = ", ".join(steps[steps == 1].index)
    return [
        notes.OWN_SCALES if len(steps) > 1 else "",
        notes.intervals(data, notes.STUDENT),
        notes.surrogate(data["null"]),
        f"One checkpoint only: {single}." if single else "",
        notes.dimensions(data),
        notes.EMBEDDING,
        *notes.common(data),
    ]


DIMENSION = Drawing(
    title="Intrinsic dimension over training",
    reads=("id_twonn", "id_twonn_surrogate"),
    data=_dimension,
    panels=_draw_dimension,
    notes=_notes_on_dimension,
    nothing="This study has no `id_twonn` of a block at a known training step.",
)
