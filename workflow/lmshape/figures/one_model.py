"""The layers of one model: a panel for each metric, a line for each choice of rows. Of a table of `lmshape.profile`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pandas as pd
from matplotlib.figure import Figure

from lmshape.figures import layout, selection
from lmshape.figures.drawing import footer
from lmshape.figures.style import SCREEN, looks, styled
from lmshape.tables.rows import in_order

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
    choice = data["rows"].map(selection.VARIANT_NAMES).fillna(data["rows"])
    data = selection.grouped(layout.place_final_norm(data.assign(choice=choice)), "metric")
    with styled(SCREEN):
        look = looks(in_order(data["choice"]))
        facets = layout.lines(
            data, x="depth", hue="choice", panel="metric", page=SCREEN, look=look, sharey=False
        )
        layout.each(facets, partial(layout.depth_axis, data=data))
        picture = layout.Picture(facets, layout.entries(look))
        return layout.finish(picture, SCREEN, title=str(data["model"].iloc[0]), footer=footer(data))
