"""The fewest axes that keep a decoder's loss, by layer, beside the dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from lmshape.figures import layout, selection
from lmshape.figures.drawing import Drawing
from lmshape.figures.style import COLORS, DASHES, Looks, Page
from lmshape.tables.rows import final_checkpoints, first_dataset
from lmshape.truncation.ranks import TOLERANCES

BESIDE = {"participation_ratio": "participation ratio", "id_twonn": "dimension (TwoNN)"}
NAMES = {
    f"{tolerance:g}": f"axes that keep the loss\nwithin {tolerance:g} nat" for tolerance in TOLERANCES
} | BESIDE
_EACH = ((COLORS[6], "", "o"), (COLORS[0], "", "s"), (COLORS[4], "", "^"), (COLORS[1], DASHES[1], "D"),
         (COLORS[2], DASHES[2], "v"))  # fmt: skip
LOOK = Looks.of(NAMES.values(), _EACH)
PLACE = ["model", "kind", "checkpoint", "step", "dataset", "layer", "depth", "d", "rows"]
COLUMNS = [*PLACE, "series", "value", "ci_low", "ci_high", "draws", "whole_loss", "flag"]


def data(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Select the least ranks of each model's last truncated checkpoint on its first truncated dataset.

    `series` names the tolerance, or participation ratio and TwoNN dimension of the same rows.
    """
    table = tables["truncation_ranks"]
    if table.empty:
        return pd.DataFrame(columns=COLUMNS)
    ranks = final_checkpoints(first_dataset(table))
    series = ranks["tolerance"].map("{:g}".format).map(NAMES)
    least = ranks.assign(value=ranks["rank"], ci_low=ranks["rank_low"], series=series)
    least = least.assign(ci_high=ranks["rank_high"].fillna(ranks["d"]))
    parts = [least, _beside(tables["metrics"], ranks)]
    return pd.concat([part.reindex(columns=COLUMNS) for part in parts if len(part)], ignore_index=True)


def _beside(metrics: pd.DataFrame, ranks: pd.DataFrame) -> pd.DataFrame:
    """Rows of the metrics that stand beside least ranks: blocks, and of the spectrum the embedding too."""
    chosen = metrics[metrics["metric"].isin(BESIDE) & metrics["site"].isin(["embedding", "block"])]
    chosen = chosen[(chosen["metric"] != "id_twonn") | (chosen["site"] == "block")]
    places = ranks[[*PLACE, "whole_loss"]].drop_duplicates()
    keys = ["model", "checkpoint", "dataset", "layer", "rows"]
    found = places.merge(chosen[[*keys, "metric", "value", "ci_low", "ci_high", "draws"]], on=keys)
    return found.assign(series=found["metric"].map(BESIDE), flag="")


def draw_panels(data: pd.DataFrame, page: Page) -> layout.Picture:
    """Draw a panel for each model and choice of rows, with a line for each tolerance and dimension."""
    frame = selection.panel_per_choice(data)
    facets = layout.lines(frame, x="layer", hue="series", panel="panel", page=page, look=LOOK, sharex=False)
    layout.each(facets, _axis)
    for ax, own in facets.parts():
        last = int(own["layer"].max())
        ax.set_xticks(range(0, last + 1, max(1, ceil(last / 8))))
        ax.set_xlabel("layer (0: embedding)")
    legend = layout.entries(LOOK, only=frame.loc[frame["value"].notna(), "series"])
    return layout.Picture(facets, legend, "directions (log)")


def _axis(ax: Axes) -> None:
    """Make y logarithmic; where a loss needs no axis at all, from 1 on, with a place for 0 below."""
    together = [one.dataLim for one in ax.get_shared_y_axes().get_siblings(ax)]
    if min(one.y0 for one in together) > 0:
        layout.log_axis(ax)
        return
    high = max(one.y1 for one in together)
    ax.set_yscale("symlog", linthresh=1)
    ax.set_ylim(-0.15, 1.2 * high)
    ticks = [0, *(lead * 10**power for power in range(6) for lead in (1, 2, 5))]
    ax.set_yticks([tick for tick in ticks if tick <= high], minor=False)
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_locator(NullLocator())


TRUNCATION = Drawing(
    title="How many directions a decoder needs",
    reads=tuple(BESIDE),
    data=data,
    panels=draw_panels,
    nothing="No decoder of this study was truncated.",
)
