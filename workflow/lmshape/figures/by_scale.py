"""The dimension of every block against the scale it is read at: a panel for each model and choice of rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from lmshape.figures import layout, marks, notes, selection
from lmshape.figures.drawing import Drawing
from lmshape.figures.steps import color_of, colors_of_depths
from lmshape.figures.style import MARKERS, Look
from lmshape.metrics.neighbor import DECIMATIONS, GRIDE_SCALES
from lmshape.tables.rows import final_checkpoints, first_dataset, in_order

MOST_BANDS = 8  # layers; bands of more cover one another
SURROGATE = "id_twonn_surrogate"


@dataclass(frozen=True, slots=True)
class View:
    """What one figure by scale has of its own; `scales` maps metrics to scales, `tick` names a scale."""

    label: str
    scales: Mapping[str, int]
    tick: Callable[[int], str]
    finest_at_right: bool
    note: Callable[[pd.DataFrame], str]


def select(tables: Mapping[str, pd.DataFrame], view: View) -> pd.DataFrame:
    """Select the metrics of the blocks at each model's last checkpoint on its first dataset, with their `scale`.

    `null`, the TwoNN dimension of Gaussian rows with the same covariance, stands beside the finest scale alone, since
    it is measured there. A model without a second scale is left out.
    """
    metrics, scales = tables["metrics"], view.scales
    rows = pd.concat([selection.metric_rows(metrics, name) for name in scales], ignore_index=True)
    last = final_checkpoints(first_dataset(rows[rows["site"] == "block"]))
    last = last.assign(scale=last["metric"].map(scales))
    last = last[last.groupby("model")["scale"].transform("nunique") > 1].reset_index(drop=True)
    with_null = selection.with_null(last, metrics, SURROGATE)
    return with_null.assign(null=with_null["null"].where(with_null["scale"] == min(scales.values())))


def draw_panels(data: pd.DataFrame, view: View) -> Figure:
    """Draw a panel for each model and choice of rows, on a scale for each model; a line for each block."""
    models, variants = in_order(data["model"]), in_order(data["rows"])
    many = layout.crowded(models)
    figure, panels = layout.small_multiples(models, variants, size=(3.5, 2.7), same_scale=False)
    layout.share_values(panels)
    colors = colors_of_depths()
    # of many models as of few, a panel has no more lines than a reader follows
    shown = selection.with_named_layers(data) if many else data
    for ax, frame, _ in layout.each_panel(panels, shown):
        _panel(ax, frame, view, colors)
    layout.label_outer_panels(panels.values())
    _colorbar(figure, colors, list(panels.values()), many=many)
    if data["null"].notna().any():
        figure.legend(handles=[marks.null_point_entry(marks.SURROGATE)], loc="outside upper right")
    return figure


def _panel(ax: Axes, frame: pd.DataFrame, view: View, colors: ScalarMappable) -> None:
    marks.dimension_axis(ax)
    if frame.empty:
        return layout.nothing_here(ax, "not measured on these rows")
    few = frame["layer"].nunique() <= MOST_BANDS
    for place, (layer, of_layer) in enumerate(frame.groupby("layer")):
        marker = MARKERS[place % len(MARKERS)] if few else ""
        look = Look(color_of(of_layer["depth"].iloc[0], colors), "-", marker, size=4.0)
        opacity = 0.08 if few else 0
        marks.line(ax, of_layer, x="scale", look=look, label=f"layer {layer:.0f}", opacity=opacity)
        marks.null_points(ax, of_layer, x="scale", color=look.color)
    _scale_axis(ax, sorted(frame["scale"].unique()), view)
    layout.note_without_numbers(ax, frame)


def _scale_axis(ax: Axes, scales: Sequence[int], view: View) -> None:
    ax.set_xscale("log", base=2)
    ax.set_xticks(scales, [view.tick(scale) for scale in scales])
    ends = (scales[0] / 1.25, scales[-1] * 1.25)
    ax.set_xlim(ends[::-1] if view.finest_at_right else ends)
    ax.set_xlabel(view.label)
    ax.set_ylabel("intrinsic dimension,\nlog scale")


def _colorbar(figure: Figure, colors: ScalarMappable, panels: Sequence[Axes], *, many: bool) -> None:
    size: dict[str, Any] = {"shrink": 0.3, "anchor": (0, 1), "aspect": 25} if many else {"aspect": 50}
    label = "relative depth (layer / number of blocks)"
    bar = figure.colorbar(colors, ax=panels, label=label, pad=0.015, **size)
    bar.ax.tick_params(length=2)


def _notes(data: pd.DataFrame, view: View) -> list[str]:
    many = layout.crowded(in_order(data["model"]))
    banded = many or data.groupby("model")["layer"].nunique().max() <= MOST_BANDS
    named = "Lines: the blocks at a quarter and half of the depth, and the last."
    return [
        named if many else "One line a block.",
        "A dimension is one number where its line is level.",
        view.note(data),
        notes.OWN_SCALES if data["model"].nunique() > 1 else "",
        notes.intervals(data, notes.STUDENT) if banded else notes.intervals_in_csv(data),
        notes.dimensions(data),
        *notes.common(data),
    ]


def _drawing(title: str, nothing: str, view: View) -> Drawing:
    return Drawing(
        title=title,
        reads=(*view.scales, SURROGATE),
        data=partial(select, view=view),
        panels=partial(draw_panels, view=view),
        notes=partial(_notes, view=view),
        nothing=nothing,
        heading="{title}, last checkpoint, {datasets}",
    )


def _note_on_neighbors(data: pd.DataFrame) -> str:
    said = (
        "GRIDE reads the distances to the neighbors n2/2 and n2: the further these are, the larger the scale."
    )
    null = " The Gaussian's, measured with TwoNN, which is n2\u00a0=\u00a02, stands there alone."
    return said + (null if data["null"].notna().any() else "")


# GRIDE's dimensions over n2, the further of its two neighbors
NEIGHBORS = _drawing(
    "Intrinsic dimension by scale",
    "This study has GRIDE's dimension of a block at no two scales.",
    View(
        label="neighbor n2 (log scale)",
        scales={f"id_gride_{n2}": n2 for n2 in GRIDE_SCALES},
        tick=str,
        finest_at_right=False,
        note=_note_on_neighbors,
    ),
)


def _note_on_rows(data: pd.DataFrame) -> str:
    unique = (data["n_unique"] / data["draws"]).round()
    most = f" (at most {unique.max():.0f})" if unique.notna().any() else ""
    null = " The Gaussian's is measured at n alone." if data["null"].notna().any() else ""
    return (
        f"TwoNN on random parts of the n unique rows of each draw{most}: fewer rows lie further apart. A line that"
        f" still rises at n has not arrived.{null}"
    )


def _share(part: int) -> str:
    return "n" if part == 1 else f"n/{part}"


# TwoNN on one in `scale` of a draw's rows, all of them at the right
ROWS = _drawing(
    "Intrinsic dimension by number of rows",
    "This study has TwoNN's dimension of a block at no two numbers of rows.",
    View(
        label="rows of a draw (log scale)",
        scales={"id_twonn": 1, **{f"id_twonn_decimated_{part}": part for part in DECIMATIONS}},
        tick=_share,
        finest_at_right=True,
        note=_note_on_rows,
    ),
)
