"""Curves on shuffled and random tokens, which separate the network from the language."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import seaborn

from lmshape.figures import layout, selection
from lmshape.figures.drawing import Drawing
from lmshape.figures.style import Looks, Page, looks
from lmshape.tables.rows import final_checkpoints, in_order

MEASURES = {"anisotropy": "anisotropy λ1/Σλ", "id_twonn": "dimension (TwoNN)"}
BETWEEN = 0.5  # the first and the last dot of a row, in rows
MOST_MODELS = 4  # with curves of their own; more are compared by their middle blocks


def data(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Select anisotropy and TwoNN dimension by layer on every dataset, at each model's last checkpoint.

    Decoders, whose claims the controls test, come first. Models on one dataset, which have no control, are left out;
    `left_out` names them. Of more than four models the middle blocks alone.
    """
    rows = final_checkpoints(selection.metric_rows(tables["metrics"], *MEASURES))
    rows = rows[(rows["metric"] != "id_twonn") | (rows["site"] != "embedding")]
    rows = rows[rows["rows"] != "no_sink"].sort_values("kind", kind="stable")
    datasets = rows.groupby("model", sort=False)["dataset"].nunique()
    alone = datasets.index[datasets < 2]
    rows = rows[~rows["model"].isin(alone)].assign(
        left_out=", ".join(f"{name} (one dataset)" for name in alone)
    )
    return selection.middle_blocks(rows) if rows["model"].nunique() > MOST_MODELS else rows


def draw_panels(data: pd.DataFrame, page: Page) -> layout.Picture:
    """Draw a line for each dataset by layer; of many models a dot for each dataset."""
    frame = selection.with_choice(data)
    frame = frame.assign(measure=frame["metric"].map(MEASURES) + ", " + frame["choice"])
    look = looks(in_order(frame["dataset"]))
    if frame["model"].nunique() > MOST_MODELS:
        return _dots(frame, page, look)
    frame = frame.assign(panel=frame["model"] + "\n" + frame["measure"])
    frame = selection.grouped(frame, "model", "panel")
    facets = layout.lines(frame, x="depth", hue="dataset", panel="panel", page=page, look=look, sharey=False)
    for ax, own in facets.parts():
        (layout.log_axis if own["metric"].iloc[0] == "id_twonn" else layout.share_axis)(ax)
    return layout.Picture(facets, layout.entries(look))


def _dots(frame: pd.DataFrame, page: Page, look: Looks) -> layout.Picture:
    """Draw a row for each model, with a dot and its interval for each dataset under one another."""
    models, datasets = in_order(frame["model"]), list(look.palette)
    facets = layout.panels(frame, "measure", page, height=0.25 + 0.075 * len(models), sharex=False)
    facets.map_dataframe(seaborn.pointplot, x="value", y="model", order=models, hue="dataset", hue_order=datasets,
                         palette=look.palette, markers=list(look.markers.values()), dodge=BETWEEN, errorbar=None,
                         linestyle="none", markersize=4, legend=False)  # fmt: skip
    shift = dict(zip(datasets, np.linspace(-BETWEEN / 2, BETWEEN / 2, len(datasets)), strict=True))
    for ax, own in facets.parts():
        places = own["model"].map(models.index) + own["dataset"].map(shift)
        ax.hlines(
            places, own["ci_low"], own["ci_high"], color=own["dataset"].map(look.palette), linewidth=1.0
        )
        ax.set(xlabel="middle block", ylabel="")
    return layout.Picture(facets, layout.entries(look, dots=True))


CONTROLS = Drawing(
    title="The same curves on other tokens, last checkpoint",
    reads=tuple(MEASURES),
    data=data,
    panels=draw_panels,
    nothing="No model was measured on two datasets: there is no control.",
)
