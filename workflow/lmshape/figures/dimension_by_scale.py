"""Intrinsic dimension against the scale it is read at: further neighbors, and fewer rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from lmshape.figures import marks, selection
from lmshape.figures.steps import step_colors
from lmshape.figures.style import MARKERS, Look, styled
from lmshape.scales import DECIMATIONS, GRIDE_SCALES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

TITLE = "Intrinsic dimension by scale"
GRIDE = {f"id_gride_{n2}": n2 for n2 in GRIDE_SCALES}
DECIMATED = {"id_twonn": 1, **{f"id_twonn_decimated_{part}": part for part in DECIMATIONS}}
VIEWS = {"neighbors": GRIDE, "rows": DECIMATED}
VIEW_LABELS = {"neighbors": "GRIDE: neighbor n2 (log scale)", "rows": "TwoNN: rows of a draw (log scale)"}
MOST_BANDS = 8  # bands of more layers than this cover one another
ROWS_NOTE = (
    "TwoNN on n/2, n/4, n/8 rows of each draw: fewer rows lie further apart; n, all unique rows, is {n}."
)


def data(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Select the dimensions at every scale of each block, at each model's last checkpoint on its first dataset.

    `view` "neighbors" holds GRIDE at `scale` n2, "rows" TwoNN on one row in `scale`. Of all rows and, if it was
    measured, of one row of each token id. A model without a second scale in a view is not in it.
    """
    parts = [_view(tables["metrics"], view) for view in VIEWS]
    return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)


def _view(metrics: pd.DataFrame, view: str) -> pd.DataFrame:
    scales = VIEWS[view]
    rows = pd.concat([selection.metric_rows(metrics, name) for name in scales], ignore_index=True)
    rows = rows[rows["site"] == "block"]
    last = selection.final_checkpoints(selection.first_dataset(selection.with_one_per_type(rows)))
    last = last.assign(view=view, scale=last["metric"].map(scales))
    return last[last.groupby("model")["scale"].transform("nunique") > 1]


def draw(data: pd.DataFrame) -> Figure:
    """Draw a row of panels for each model, GRIDE and decimation for each choice of rows; a line a block."""
    with styled():
        if data.empty:
            return marks.empty_figure(
                title=TITLE, note="This study has the dimension of a block at no two scales."
            )
        models, variants = selection.in_order(data["model"]), selection.in_order(data["rows"])
        views = [(rows, view) for rows in variants for view in selection.in_order(data["view"])]
        figure, grid = marks.model_grid(models, columns=len(views))
        colors = _colors()
        for model, axes in zip(models, grid, strict=True):
            for (rows, view), ax in zip(views, axes, strict=True):
                of_panel = data[(data["model"] == model) & (data["rows"] == rows) & (data["view"] == view)]
                _panel(ax, of_panel, view, colors)
                ax.set_title(f"{model}\n{marks.VARIANT_NAMES.get(rows, rows)}")
            axes[0].set_ylabel("intrinsic dimension, log scale")
        bar = figure.colorbar(
            colors, ax=grid, label="relative depth (layer / number of blocks)", pad=0.015, aspect=50
        )
        bar.ax.tick_params(length=2)
        marks.finish(
            figure, title=f"{TITLE}, last checkpoint, {selection.dataset_names(data)}", notes=_notes(data)
        )
        return figure


def _panel(ax: Axes, frame: pd.DataFrame, view: str, colors: ScalarMappable) -> None:
    marks.dimension_axis(ax)
    if frame.empty:
        return marks.nothing_here(ax, "not measured")
    if frame["layer"].nunique() > MOST_BANDS:
        frame = frame.assign(ci_low=frame["value"], ci_high=frame["value"])
    for place, (layer, of_layer) in enumerate(frame.groupby("layer")):
        look = Look(colors.to_rgba(of_layer["depth"].iloc[0]), "-", MARKERS[place % len(MARKERS)], size=4.0)
        marks.line(ax, of_layer, x="scale", look=look, label=f"layer {layer:.0f}", opacity=0.08)
    ax.set_xscale("log", base=2)
    scales = sorted(frame["scale"].unique())
    ax.set_xticks(scales, [str(scale) if view == "neighbors" else _share(scale) for scale in scales])
    ends = (scales[0] / 1.15, scales[-1] * 1.15)
    ax.set_xlim(ends if view == "neighbors" else ends[::-1])  # n, the finest scale, at the right
    ax.set_xlabel(VIEW_LABELS[view])
    marks.note_without_numbers(ax, frame)


def _share(part: int) -> str:
    return "n" if part == 1 else f"n/{part}"


def _colors() -> ScalarMappable:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    return ScalarMappable(Normalize(0, 1), step_colors())


def _notes(data: pd.DataFrame) -> list[str]:
    banded = data.groupby("model")["layer"].nunique().max() <= MOST_BANDS
    return [
        "One line a block. A dimension is one number where its line is level.",
        _rows_note(data[data["view"] == "rows"]),
        marks.interval_note(data, marks.STUDENT) if banded else "Intervals: in the figure's CSV file.",
        marks.flag_note(data),
    ]


def _rows_note(decimated: pd.DataFrame) -> str:
    if decimated.empty:
        return ""
    unique = (decimated["n_unique"] / decimated["draws"]).round().astype(int)
    return ROWS_NOTE.format(n=f"at most {unique.max()} a draw")
