"""The dimension of the blocks against the scale it is read at: a panel for each model and choice of rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_hex

from lmshape.figures import layout, selection
from lmshape.figures.drawing import Drawing
from lmshape.figures.style import Looks, Page, sequence
from lmshape.metrics.neighbor import DECIMATIONS, GRIDE_SCALES
from lmshape.tables.rows import final_checkpoints, first_dataset


@dataclass(frozen=True, slots=True)
class View:
    """What one figure by scale has of its own; `scales` maps metrics to scales, `tick` names a scale."""

    label: str
    scales: Mapping[str, int]
    tick: Callable[[int], str]
    finest_at_right: bool


def select(tables: Mapping[str, pd.DataFrame], view: View) -> pd.DataFrame:
    """Select the metrics of the blocks at each model's last checkpoint on its first dataset, with their `scale`.

    Rows of a model without a second scale are left out; of more than seven models, all but the named blocks.
    """
    rows = selection.metric_rows(tables["metrics"], *view.scales)
    chosen = final_checkpoints(first_dataset(rows[rows["site"] == "block"]))
    chosen = chosen.assign(scale=chosen["metric"].map(view.scales))
    chosen = chosen[chosen.groupby(["model", "rows"])["scale"].transform("nunique") > 1].reset_index(
        drop=True
    )
    many = chosen["model"].nunique() > layout.MOST_TOGETHER
    return selection.with_named_layers(chosen) if many else chosen


def draw_panels(data: pd.DataFrame, page: Page, view: View) -> layout.Picture:
    """Draw a line for each block, from light for the first to dark for the last."""
    frame = selection.merge_twins(data, ["model"])
    frame = frame.assign(panel=frame["model"] + "\n" + frame["choice"])
    depths = sorted(set(frame["depth"]))
    shades = {depth: to_hex(sequence()(depth)) for depth in depths}
    look = Looks(shades, dict.fromkeys(depths, ""), dict.fromkeys(depths, "o"))
    facets = layout.lines(
        frame, x="scale", hue="depth", panel="panel", page=page, look=look, bands=False, sharey=False
    )
    scales = sorted(frame["scale"].unique())
    for ax in facets.axes_dict.values():
        layout.log_axis(ax)
        ax.set_xscale("log", base=2)
        ax.set_xticks(scales, [view.tick(scale) for scale in scales])
        ax.set_xticks([], minor=True)
        ends = (scales[0] / 1.25, scales[-1] * 1.25)
        ax.set_xlim(ends[::-1] if view.finest_at_right else ends)
    facets.set_xlabels(view.label)
    mappable = ScalarMappable(Normalize(0, 1), sequence())
    bar = facets.figure.colorbar(mappable, ax=list(facets.axes.flat), pad=0.015, aspect=35)
    bar.set_label("depth (1: last block)")
    return layout.Picture(facets, [], "dimension (log)")


def _nothing(data: pd.DataFrame, why: str) -> str:
    return "" if data["value"].notna().any() else why


def _drawing(title: str, nothing: str, view: View) -> Drawing:
    return Drawing(
        title=title,
        reads=tuple(view.scales),
        data=partial(select, view=view),
        panels=partial(draw_panels, view=view),
        nothing=partial(_nothing, why=nothing),
    )


# GRIDE's dimensions over n2, the further of its two neighbors
NEIGHBORS = _drawing(
    "Intrinsic dimension by scale, last checkpoint",
    "This study has GRIDE's dimension of a block at no two scales.",
    View("neighbor n2 (log)", {f"id_gride_{n2}": n2 for n2 in GRIDE_SCALES}, str, finest_at_right=False),
)


def _share(part: int) -> str:
    return "n" if part == 1 else f"n/{part}"


# TwoNN on one in `scale` of a draw's rows, all of them at the right
ROWS = _drawing(
    "Intrinsic dimension by number of rows, last checkpoint",
    "This study has TwoNN's dimension of a block at no two numbers of rows.",
    View(
        "rows of a draw (log)",
        {"id_twonn": 1, **{f"id_twonn_decimated_{part}": part for part in DECIMATIONS}},
        _share,
        finest_at_right=True,
    ),
)
