"""Sinks by layer: their share of λ1, and the anisotropy without them."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from lmshape.figures import layout, selection
from lmshape.figures.by_layer import last
from lmshape.figures.drawing import Drawing
from lmshape.figures.style import COLORS, DASHES, Looks, Page
from lmshape.tables.rows import in_order

POSITION_0, OTHERS = "leading_share_position_0", "leading_share_other_sinks"
NULL = f"{POSITION_0}_null"
SHARES = {POSITION_0: "position 0", OTHERS: "other sinks (norm over 10 × median)"}
# Curves of anisotropy: (metric, rows) → name.
CURVES = {
    ("anisotropy", "all"): "all rows",
    ("anisotropy_without_position_0", "all"): "without position 0",
    ("anisotropy", "no_sink"): "without all sinks",
}
_EACH = ((COLORS[1], "", "o"), (COLORS[2], DASHES[1], "s"), (COLORS[0], "", "o"), (COLORS[5], DASHES[1], "^"),
         (COLORS[6], DASHES[2], "D"))  # fmt: skip
LOOK = Looks.of([*SHARES.values(), *CURVES.values()], _EACH)
MOST_MODELS = 6
LEAST_SHARE = 0.1  # of λ1 at some block, that makes a sink worth a panel


def data(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Select shares of λ1 and anisotropies by layer at each model's last checkpoint; `series` names them.

    `null` is the share of position 0 if it is like all rows. `sinks` says whether position 0 or other sinks carry a
    tenth of λ1 at some block.
    """
    rows = last(tables, metrics=[*SHARES, *dict.fromkeys(metric for metric, _ in CURVES)], null=NULL)
    names = CURVES | {(metric, "all"): name for metric, name in SHARES.items()}
    series = [names.get(pair) for pair in zip(rows["metric"], rows["rows"], strict=True)]
    rows = rows.assign(series=series).dropna(subset="series")
    rows = rows[rows["model"].isin(rows.loc[rows["metric"] == POSITION_0, "model"])]
    blocks = rows[(rows["site"] == "block") & rows["metric"].isin(SHARES)]
    most = blocks.groupby("model")["value"].max()
    null = rows["null"].where(rows["metric"] == POSITION_0)
    return rows.assign(null=null, sinks=rows["model"].map(most >= LEAST_SHARE).fillna(False).astype(bool))


def draw_panels(data: pd.DataFrame, page: Page) -> layout.Picture:
    """Draw two panels for each model with sinks: what carries the leading axis, and anisotropy without it."""
    frame = data[data["sinks"]]
    frame = frame[frame["model"].isin(selection.few_models(frame, MOST_MODELS))]
    shares = frame["metric"].isin(SHARES)
    what = shares.map({True: "share of the leading axis λ1", False: "anisotropy λ1/Σλ"})
    frame = selection.grouped(frame.assign(panel=frame["model"] + "\n" + what), "model", "panel")
    two = Page(page.width, page.font, 2, page.titled)
    facets = layout.lines(frame, x="depth", hue="series", panel="panel", page=two, look=LOOK, height=0.5)
    layout.each(facets, layout.share_axis)
    layout.null_lines(facets, x="depth", hue="series")
    legend = [
        *layout.entries(LOOK),
        *layout.null_entries(frame["null"], "position 0,\nif it is like all rows"),
    ]
    return layout.Picture(facets, legend, "share")


def nothing(data: pd.DataFrame) -> str:
    """Say that nothing was measured, or that no model has sinks."""
    shares = data[data["metric"].isin(SHARES) & (data["site"] == "block")]
    if shares["value"].isna().all():
        return (
            "This study has not measured what its leading axes are made of: the metric family “leading” does."
        )
    if data["sinks"].any():
        return ""
    return (
        f"No sinks: at the last checkpoints of {', '.join(in_order(data['model']))}, position 0 and other sinks"
        f" carry at most {100 * shares['value'].max():.1f} % of the leading axis of a block."
    )


SINKS = Drawing(
    title="Sinks: what they carry of the leading axis, and what is left without them",
    reads=(*SHARES, NULL, *(metric for metric, _ in CURVES)),
    data=data,
    panels=draw_panels,
    nothing=nothing,
)
