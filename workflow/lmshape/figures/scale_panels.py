"""The dimension of every block against the scale it is read at: a panel for each model and choice of rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from lmshape.figures import marks, selection
from lmshape.figures.marks import crowded
from lmshape.figures.steps import step_colors
from lmshape.figures.style import MARKERS, Look, styled
from lmshape.tables.rows import final_checkpoints, first_dataset, in_order

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

MOST_BANDS = 8  # bands of more layers than this cover one another


@dataclass(frozen=True, slots=True)
class ScaleView:
    """What one figure by scale has of its own; `tick` names a scale."""

    title: str
    nothing: str
    label: str
    tick: Callable[[int], str]
    finest_at_right: bool
    notes: Callable[[pd.DataFrame], Sequence[str]]


def at_scales(metrics: pd.DataFrame, scales: Mapping[str, int]) -> pd.DataFrame:
    """Select metrics of the blocks at each model's last checkpoint on its first dataset, with their `scale`.

    `null`, the TwoNN dimension of Gaussian rows with the same covariance, stands beside the finest scale alone, since
    it is measured there. A model without a second scale is left out.
    """
    rows = pd.concat([selection.metric_rows(metrics, name) for name in scales], ignore_index=True)
    last = final_checkpoints(first_dataset(rows[rows["site"] == "block"]))
    last = last.assign(scale=last["metric"].map(scales))
    last = last[last.groupby("model")["scale"].transform("nunique") > 1].reset_index(drop=True)
    with_null = selection.with_null(last, metrics, "id_twonn_surrogate")
    return with_null.assign(null=with_null["null"].where(with_null["scale"] == min(scales.values())))


def draw(data: pd.DataFrame, view: ScaleView) -> Figure:
    """Draw a panel for each model and choice of rows, on a scale for each model; a line for each block."""
    models, variants = in_order(data["model"]), in_order(data["rows"])
    many = crowded(models)
    with styled(crowded=many):
        if data.empty:
            return marks.empty_figure(title=view.title, note=view.nothing)
        figure, panels = marks.small_multiples(models, variants, size=(3.5, 2.7), same_scale=False)
        colors = _colors()
        # of many models as of few, a panel has no more lines than a reader follows
        shown = selection.with_named_layers(data) if many else data
        for (model, rows), ax in panels.items():
            if rows != variants[0]:
                ax.sharey(panels[model, variants[0]])
            _panel(ax, shown[(shown["model"] == model) & (shown["rows"] == rows)], view, colors)
            ax.set_title(marks.panel_title(model, rows, crowded=True))
        marks.label_outer_panels(panels.values())
        _colorbar(figure, colors, list(panels.values()), many=many)
        if data["null"].notna().any():
            figure.legend(handles=[marks.point_handle(marks.SURROGATE)], loc="outside upper right")
        title = f"{view.title}, last checkpoint, {selection.dataset_names(data)}"
        marks.finish(figure, title=title, notes=_notes(data, view))
        return figure


def _panel(ax: Axes, frame: pd.DataFrame, view: ScaleView, colors: ScalarMappable) -> None:
    marks.dimension_axis(ax)
    if frame.empty:
        return marks.nothing_here(ax, "not measured on these rows")
    layers = frame["layer"].nunique()
    for place, (layer, of_layer) in enumerate(frame.groupby("layer")):
        marker = MARKERS[place % len(MARKERS)] if layers <= MOST_BANDS else ""
        look = Look(colors.to_rgba(of_layer["depth"].iloc[0]), "-", marker, size=4.0)
        opacity = 0.08 if layers <= MOST_BANDS else 0
        marks.line(ax, of_layer, x="scale", look=look, label=f"layer {layer:.0f}", opacity=opacity)
        marks.points(ax, of_layer, x="scale", color=look.color)
    _scale_axis(ax, sorted(frame["scale"].unique()), view)
    marks.note_without_numbers(ax, frame)


def _scale_axis(ax: Axes, scales: Sequence[int], view: ScaleView) -> None:
    ax.set_xscale("log", base=2)
    ax.set_xticks(scales, [view.tick(scale) for scale in scales])
    ends = (scales[0] / 1.25, scales[-1] * 1.25)
    ax.set_xlim(ends[::-1] if view.finest_at_right else ends)
    ax.set_xlabel(view.label)
    ax.set_ylabel("intrinsic dimension,\nlog scale")


def _colors() -> ScalarMappable:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    return ScalarMappable(Normalize(0, 1), step_colors())


def _colorbar(figure: Figure, colors: ScalarMappable, panels: Sequence[Axes], *, many: bool) -> None:
    size = {"shrink": 0.3, "anchor": (0, 1), "aspect": 25} if many else {"aspect": 50}
    label = "relative depth (layer / number of blocks)"
    bar = figure.colorbar(colors, ax=panels, label=label, pad=0.015, **size)
    bar.ax.tick_params(length=2)


def _notes(data: pd.DataFrame, view: ScaleView) -> list[str]:
    many = crowded(in_order(data["model"]))
    banded = many or data.groupby("model")["layer"].nunique().max() <= MOST_BANDS
    named = "Lines: the blocks at a quarter and half of the depth, and the last."
    return [
        named if many else "One line a block.",
        "A dimension is one number where its line is level.",
        *view.notes(data),
        "Each model has its own scale, which does not begin at 0." if data["model"].nunique() > 1 else "",
        marks.interval_note(data, marks.STUDENT) if banded else marks.csv_interval_note(data),
        marks.dimension_note(data),
        marks.sink_note(data),
        marks.flag_note(data),
    ]
