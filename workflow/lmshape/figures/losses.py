"""The losses of the runs that spike most, with their spikes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import seaborn
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lmshape.figures import layout
from lmshape.figures.drawing import Drawing
from lmshape.figures.style import COLORS, INK, Page
from lmshape.tables.rows import in_order

MOST_RUNS = 9
COLUMNS = ["series", "run", "step", "value", "recovery_step", "left_out"]


def data(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Select the losses of the runs that spike most, trained by the study or in `loss_logs`, and their spikes.

    `series` "loss" holds the losses of `run`, "spike" the onsets, whose `value` is the height.
    """
    losses, spikes = tables["losses"], tables.get("spikes", pd.DataFrame())
    if losses.empty or spikes.empty:
        return pd.DataFrame(columns=COLUMNS)
    most = spikes.groupby("run", sort=False)["spike"].max().sort_values(ascending=False, kind="stable")
    chosen = [run for run in in_order(losses["run"]) if run in most.index[:MOST_RUNS]]
    curves = [losses.loc[losses["run"] == run, ["run", "step", "loss"]] for run in chosen]
    onsets = spikes[spikes["run"].isin(chosen) & (spikes["spike"] > 0)]
    parts = [
        pd.concat(curves).rename(columns={"loss": "value"}).assign(series="loss"),
        onsets.rename(columns={"onset": "step", "height": "value"}).assign(series="spike"),
    ]
    absent = ", ".join(run for run in most.index if run not in chosen)
    frame = pd.concat(
        [part.reindex(columns=COLUMNS).dropna(axis=1, how="all") for part in parts if len(part)]
    )
    return frame.reindex(columns=COLUMNS).assign(left_out=absent).reset_index(drop=True)


def draw_panels(data: pd.DataFrame, page: Page) -> layout.Picture:
    """Draw the loss of each run over its steps, a line at each onset, the spikes shaded."""
    curves, spikes = data[data["series"] == "loss"], data[data["series"] == "spike"]
    counts = spikes["run"].value_counts()
    names = {run: f"{run}: {_counted(counts.get(run, 0))}" for run in in_order(curves["run"])}
    curves = curves.assign(
        panel=curves["run"].map(names),
        value=curves["value"].where(np.isfinite(curves["value"].astype(float))),
    )
    facets = layout.panels(curves, "panel", page, height=0.6, sharex=False, sharey=False)
    facets.map_dataframe(seaborn.lineplot, x="step", y="value", color=INK, estimator=None, linewidth=0.8)
    for run, name in names.items():
        ax, own = facets.axes_dict[name], spikes[spikes["run"] == run]
        ends = own["recovery_step"].fillna(curves.loc[curves["run"] == run, "step"].max())
        for onset, end in zip(own["step"], ends, strict=True):
            ax.axvspan(onset, end, color=COLORS[1], alpha=0.2, linewidth=0)
            ax.axvline(onset, color=COLORS[1], linewidth=1.0, linestyle=(0, (3, 1.5)))
    facets.set_xlabels("training step")
    legend = [
        Line2D([], [], color=COLORS[1], linewidth=1.0, linestyle=(0, (3, 1.5)), label="onset of a spike"),
        Patch(color=COLORS[1], alpha=0.2, linewidth=0, label="until the loss is back"),
    ]
    return layout.Picture(facets, legend if len(spikes) else [], "training loss (nats per token)")


def _counted(spikes: int) -> str:
    return "no spike" if not spikes else f"{spikes} spike{'' if spikes == 1 else 's'}"


LOSSES = Drawing(
    title="Training losses and their spikes",
    reads=(),
    data=data,
    panels=draw_panels,
    nothing="This study trains no run and names no logs of other runs: there is no training loss to draw.",
)
