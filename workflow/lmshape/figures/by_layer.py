"""Metrics over the layers of every model's last checkpoint: the cone, anisotropy, dimension, linearity.

Up to seven models share a panel for each choice of rows; of more, each has a panel with a line for each choice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lmshape.figures import layout, selection
from lmshape.figures.drawing import Drawing, footer
from lmshape.figures.style import SCREEN, Looks, Page, looks, styled
from lmshape.tables.rows import final_checkpoints, first_dataset, in_order


def last(
    tables: Mapping[str, pd.DataFrame],
    *,
    metrics: Sequence[str] | Mapping[str, str],
    null: str = "",
    sites: Sequence[str] = (),
) -> pd.DataFrame:
    """Select metrics on the first dataset at each model's last checkpoint, with their `null`; at some sites, or all.

    Where `metrics` has words for each, they are in the column `measure`.
    """
    rows = selection.metric_rows(tables["metrics"], *metrics)
    chosen = final_checkpoints(first_dataset(rows[rows["site"].isin(sites)] if sites else rows))
    if null:
        chosen = selection.with_null(chosen, tables["metrics"], null)
    return chosen.assign(measure=chosen["metric"].map(metrics)) if isinstance(metrics, Mapping) else chosen


def draw_panels(
    data: pd.DataFrame,
    page: Page,
    *,
    y: str,
    axis: Callable[[Axes], None],
    null: str,
    own_nulls: bool = False,
) -> layout.Picture:
    """Draw a panel for each choice of rows with a line for each model, or a panel for each of many models.

    `y` and `null` name the axis and the null; `own_nulls` have the color of their line.
    """
    frame, panel, hue, look = arranged(data)
    facets = layout.lines(frame, x="depth", hue=hue, panel=panel, page=page, look=look)
    layout.room_for_nulls(facets)
    layout.each(facets, axis)
    layout.null_lines(facets, x="depth", hue=hue, palette=look.palette if own_nulls else None)
    legend = [*layout.entries(look), *layout.null_entries(frame["null"], null)]
    return layout.Picture(facets, legend, y)


def arranged(data: pd.DataFrame) -> tuple[pd.DataFrame, str, str, Looks]:
    """Say which column has a panel each and which a look: choices of rows and models, or the other way around."""
    measures, many = "measure" in data, data["model"].nunique() > layout.MOST_TOGETHER
    chosen = selection.with_choice(data) if many else selection.merge_twins(data, ["measure"] * measures)
    frame, look = layout.model_looks(chosen)
    if measures:
        frame = frame.assign(choice=frame["measure"] + (", " if many else "\n") + frame["choice"])
    if not many:
        return frame, "choice", "name", look
    return frame.sort_values("kind", kind="stable"), "name", "choice", looks(in_order(frame["choice"]))


ANISOTROPY = Drawing(
    title="Anisotropy by layer, last checkpoint",
    reads=("anisotropy", "anisotropy_null"),
    data=partial(last, metrics=["anisotropy"], null="anisotropy_null"),
    panels=partial(draw_panels, y="anisotropy λ1/Σλ", axis=layout.share_axis, null="isotropic rows"),
    nothing="This study has no anisotropy.",
)

# TwoNN; the null is that of Gaussian rows with the same covariance.
DIMENSION = Drawing(
    title="Intrinsic dimension by layer, last checkpoint",
    reads=("id_twonn", "id_twonn_surrogate"),
    data=partial(last, metrics=["id_twonn"], null="id_twonn_surrogate", sites=["block", "final_norm"]),
    panels=partial(
        draw_panels,
        y="dimension (TwoNN, log)",
        axis=layout.log_axis,
        null="Gaussian rows,\nsame covariance",
        own_nulls=True,
    ),
    nothing="This study has no intrinsic dimension of a block.",
)

# How far each block is a linear map, of its whole output and of its update alone; the null: what noise reads in sample.
MEASURES = {"linearity_held_out": "whole output", "linearity_residual_held_out": "update alone"}
LINEARITY = Drawing(
    title="Linearity by layer, last checkpoint",
    reads=(*MEASURES, "linearity_null"),
    data=partial(last, metrics=MEASURES, null="linearity_null", sites=["block"]),
    panels=partial(
        draw_panels,
        y="explained share of variance, held out",
        axis=layout.share_axis,
        null="noise, in sample",
    ),
    nothing="This study has no held-out linearity of a block.",
)


# The cone: how far rows point the same way, and what is left of it once their mean is taken away

CONE = {
    "mean_cosine": "mean cosine",
    "mean_cosine_centered": "mean cosine, centered",
    "anisotropy_uncentered": "share of the leading axis, uncentered",
    "anisotropy": "share of the leading axis, centered: anisotropy",
}


def cone_data(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Select the mean cosine and the leading share of all rows, raw and centered."""
    rows = last(tables, metrics=CONE)
    return rows[rows["rows"] == "all"]


def cone_panels(data: pd.DataFrame, page: Page) -> layout.Picture:
    """Draw a panel for each measure: a line for each model, or for many of their kind."""
    frame, look = layout.model_looks(data)
    many = data["model"].nunique() > layout.MOST_TOGETHER
    look = looks(sorted(set(frame["kind"]))) if many else look
    facets = layout.lines(frame, x="depth", hue="kind" if many else "name", panel="measure", page=page, look=look,
                          units=["model"], bands=not many, height=0.6)  # fmt: skip
    layout.each(facets, layout.share_axis)
    return layout.Picture(facets, layout.entries(look), "cosine, or share")


CONE_FIGURE = Drawing(
    title="The cone: rows point the same way because of their mean",
    reads=tuple(CONE),
    data=cone_data,
    panels=cone_panels,
    nothing="This study has no mean cosine and no anisotropy.",
)


# The layers of one model: a panel for each metric, of a table of `lmshape.profile`

SHOWN = ("anisotropy", "effective_rank", "mean_cosine", "id_twonn")
MOST_PANELS = 12


def shown_metrics(table: pd.DataFrame) -> list[str]:
    """Name the metrics worth a panel: `SHOWN` as far as they were measured, else the first of those that were."""
    layers = table.loc[table["site"] != "output", "metric"].unique().tolist()
    return [name for name in SHOWN if name in layers] or layers[:MOST_PANELS]


def draw_one_model(table: pd.DataFrame, metrics: Sequence[str]) -> Figure:
    """Draw metrics over the layers of one model, with bands of their 95 % intervals.

    Parameters
    ----------
    table : of `lmshape.profile`
    metrics : names of metrics of layers, a panel each
    """
    data = table[table["metric"].isin(metrics) & (table["site"] != "output")]
    data = selection.grouped(selection.with_choice(data), "metric")
    with styled(SCREEN):
        look = looks(in_order(data["choice"]))
        facets = layout.lines(
            data, x="depth", hue="choice", panel="metric", page=SCREEN, look=look, sharey=False
        )
        picture = layout.Picture(facets, layout.entries(look))
        return layout.finish(picture, SCREEN, title=str(data["model"].iloc[0]), footer=footer(data))
