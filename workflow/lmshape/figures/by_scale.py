"""The dimension of the blocks by scale: a panel per model and choice of rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from lmshape.figures import layout, selection
from lmshape.figures.drawing import Drawing
from lmshape.figures.style import Page, sequence, shades
from lmshape.metrics.neighbor import DECIMATIONS, GRIDE_SCALES
from lmshape.tables.rows import final_checkpoints, first_dataset


def select(tables: Mapping[str, pd.DataFrame], scales: Mapping[str, int]) -> pd.DataFrame:
    """Select the metrics of the blocks at each model's last checkpoint on its first dataset, with their `scale`.

    Rows of a model without a second scale are left out; of more than seven models, all but the named blocks.
    """
    rows = selection.metric_rows(tables["metrics"], *scales)
    chosen = final_checkpoints(first_dataset(rows[rows["site"] == "block"]))
    chosen = chosen.assign(scale=chosen["metric"].map(scales))
    chosen = chosen[chosen.groupby(["model", "rows"])["scale"].transform("nunique") > 1]
    many = chosen["model"].nunique() > layout.MOST_TOGETHER
    return selection.with_named_layers(chosen) if many else chosen


def draw_panels(
    data: pd.DataFrame, page: Page, *, label: str, tick: Callable[[int], str], finest_at_right: bool
) -> layout.Picture:
    """Draw a line for each block, from light for the first to dark for the last; `tick` names a scale."""
    frame = selection.panel_per_choice(data)
    look = shades(sorted(set(frame["depth"])), marker="o")
    facets = layout.lines(
        frame, x="scale", hue="depth", panel="panel", page=page, look=look, bands=False, sharey=False
    )
    scales = sorted(frame["scale"].unique())
    for ax in facets.axes.flat:
        layout.log_axis(ax)
        ax.set_xscale("log", base=2)
        ax.set_xticks(scales, [tick(scale) for scale in scales])
        ax.set_xticks([], minor=True)
        ends = (scales[0] / 1.25, scales[-1] * 1.25)
        ax.set_xlim(ends[::-1] if finest_at_right else ends)
    facets.set_xlabels(label)
    mappable = ScalarMappable(Normalize(0, 1), sequence())
    bar = facets.figure.colorbar(mappable, ax=list(facets.axes.flat), pad=0.015, aspect=35)
    bar.set_label("depth (1: last block)")
    return layout.Picture(facets, [], "dimension (log)")


# GRIDE's dimensions over n2, the further of its two neighbors
NEIGHBORS_OF = {f"id_gride_{n2}": n2 for n2 in GRIDE_SCALES}
NEIGHBORS = Drawing(
    title="Intrinsic dimension by scale, last checkpoint",
    reads=tuple(NEIGHBORS_OF),
    data=partial(select, scales=NEIGHBORS_OF),
    panels=partial(draw_panels, label="neighbor n2 (log)", tick=str, finest_at_right=False),
    nothing="This study has GRIDE's dimension of a block at no two scales.",
)


def _share(part: int) -> str:
    return "n" if part == 1 else f"n/{part}"


# TwoNN on one in `scale` of a draw's rows, all of them at the right
PARTS_OF = {"id_twonn": 1, **{f"id_twonn_decimated_{part}": part for part in DECIMATIONS}}
ROWS = Drawing(
    title="Intrinsic dimension by number of rows, last checkpoint",
    reads=tuple(PARTS_OF),
    data=partial(select, scales=PARTS_OF),
    panels=partial(draw_panels, label="rows of a draw (log)", tick=_share, finest_at_right=True),
    nothing="This study has TwoNN's dimension of a block at no two numbers of rows.",
)
