"""Loss spikes: the losses of the runs that spike most, and three series before the onsets beside quiet stretches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lmshape.dynamics.early_warning import GEOMETRIC
from lmshape.figures import layout
from lmshape.figures.drawing import Drawing
from lmshape.figures.style import COLORS, FAINT, INK, Page
from lmshape.site import middle_layer
from lmshape.tables.rows import in_order

ONSET: dict[str, Any] = {"color": COLORS[1], "linewidth": 1.0, "linestyle": (0, (3, 1.5))}
BAND: dict[str, Any] = {"alpha": 0.2, "linewidth": 0}
QUIET: dict[str, Any] = {"color": FAINT, "linestyle": "--", "linewidth": 0.9}
QUIET_BAND: dict[str, Any] = {"color": "#D9D9D9", "linewidth": 0}


# The losses of the runs that spike most, with their spikes

MOST_RUNS = 9
LOSS_COLUMNS = ["series", "run", "step", "value", "recovery_step", "left_out"]


def loss_data(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Select the losses of the runs that spike most, trained by the study or in `loss_logs`, and their spikes.

    `series` "loss" holds the losses of `run`, "spike" the onsets, whose `value` is the height.
    """
    losses, spikes = tables["losses"], tables["spikes"]
    if losses.empty or spikes.empty:
        return pd.DataFrame(columns=LOSS_COLUMNS)
    most = in_order(spikes.sort_values("spike", ascending=False, kind="stable")["run"])
    chosen = [run for run in in_order(losses["run"]) if run in most[:MOST_RUNS]]
    curves, onsets = (
        losses[losses["run"].isin(chosen)],
        spikes[spikes["run"].isin(chosen) & (spikes["spike"] > 0)],
    )
    parts = [
        curves.rename(columns={"loss": "value"}).assign(series="loss"),
        onsets.rename(columns={"onset": "step", "height": "value"}).assign(series="spike"),
    ]
    left_out = ", ".join(run for run in most if run not in chosen)
    frame = pd.concat([part for part in parts if len(part)], ignore_index=True)
    return frame.assign(left_out=left_out).reindex(columns=LOSS_COLUMNS)


def draw_losses(data: pd.DataFrame, page: Page) -> layout.Picture:
    """Draw the loss of each run over its steps, a line at each onset, the spikes shaded."""
    curves, spikes = data[data["series"] == "loss"], data[data["series"] == "spike"]
    counts = spikes["run"].value_counts()
    names = {run: f"{run}: {_counted(counts.get(run, 0))}" for run in in_order(curves["run"])}
    finite = curves["value"].where(np.isfinite(curves["value"].astype(float)))
    curves = curves.assign(panel=curves["run"].map(names), value=finite)
    facets = layout.panels(curves, "panel", page, height=0.6, sharex=False, sharey=False)
    facets.map_dataframe(seaborn.lineplot, x="step", y="value", color=INK, estimator=None, linewidth=0.8)
    for ax, own in facets.parts():
        for spike in spikes[spikes["run"] == own["run"].iloc[0]].itertuples():
            end = own["step"].max() if pd.isna(spike.recovery_step) else spike.recovery_step
            ax.axvspan(spike.step, end, color=COLORS[1], **BAND)
            ax.axvline(spike.step, **ONSET)
    facets.set_xlabels("training step")
    legend = [
        Line2D([], [], label="onset of a spike", **ONSET),
        Patch(color=COLORS[1], label="until the loss is back", **BAND),
    ]
    return layout.Picture(facets, legend if len(spikes) else [], "training loss (nats per token)")


def _counted(spikes: int) -> str:
    return "no spike" if not spikes else f"{spikes} spike{'' if spikes == 1 else 's'}"


LOSSES = Drawing(
    title="Training losses and their spikes",
    reads=(),
    data=loss_data,
    panels=draw_losses,
    nothing="This study trains no run and names no logs of other runs: there is no training loss to draw.",
)


# What moves before a spike: the three series that are compared

ROLES = {"dimension": "the dimension", "geometry": "best other geometry", "baseline": "best without geometry"}
SERIES = ["source", "blocks", "metric", "layer"]  # what names a series in the tables
NUMBERS = ["auc", "auc_low", "auc_high", "move_before", "move_before_low", "move_before_high", "spikes", "runs",
           "quiet_windows"]  # fmt: skip
COLUMNS = ["role", "metric", "layer", "blocks", "step", "value", "ci_low", "ci_high", "quiet", "quiet_low",
           "quiet_high", *NUMBERS, "why"]  # fmt: skip
NAMES = {
    "id_twonn": "TwoNN dimension",
    "id_twonn_types": "TwoNN dimension, one row per token id",
    "loss_level": "training loss",
    "loss_slope": "slope of the training loss",
    "loss_variance": "variance of the training loss (log)",
    "gradient_norm": "gradient norm (log)",
    "learning_rate": "learning rate (log)",
    "loss_held_out": "held-out loss",
    "norm_median": "median norm",
    "activation_max": "largest activation",
}


def warning_data(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Select the mean change of three series before spikes, in the group of runs whose spikes were watched most.

    The three are those of the `role` "dimension": TwoNN of the middle block, "geometry": the other geometric series
    that tells spikes best, and "baseline": the baseline that does. `step` counts from the onset; `auc` is the area
    under the ROC curve of an alarm on the series, `move_before` its move just before the onset.
    """
    probed = tables["warnings"][tables["warnings"]["source"] == "probe"]
    if probed.empty:
        return pd.DataFrame(columns=COLUMNS)
    group = probed[probed["blocks"] == probed.loc[probed["spikes"].idxmax(), "blocks"]]
    if group["auc"].isna().all():
        return group.head(1).rename(columns={"flag": "why"}).reindex(columns=COLUMNS)
    # their `spikes` are those of each mean; `warnings` has all that count
    changes = tables["before_spikes"].drop(columns="spikes").sort_values("steps", kind="stable")
    drawn = _roles(group)[[*SERIES, "role", *NUMBERS]].merge(changes, on=SERIES)
    names = {"steps": "step", "change": "value", "change_low": "ci_low", "change_high": "ci_high"}
    return drawn.rename(columns=names).reindex(columns=COLUMNS)


def _roles(group: pd.DataFrame) -> pd.DataFrame:
    """Rows of the three series with their `role`; one that is two things has the first."""
    measured = group.dropna(subset="auc").sort_values("auc", ascending=False, kind="stable")
    middle = middle_layer(int(group["blocks"].iloc[0]))
    found = {
        "dimension": measured[(measured["metric"] == "id_twonn") & (measured["layer"] == middle)],
        "geometry": measured[measured["metric"].isin(GEOMETRIC)],
        "baseline": measured[measured["kind"] == "baseline"],
    }
    best = pd.concat([rows.head(1).assign(role=role) for role, rows in found.items()])
    return best.drop_duplicates(["metric", "layer"])


def draw_warnings(data: pd.DataFrame, page: Page) -> layout.Picture:
    """Draw the mean change of each series back from the onset, with its band, over what quiet windows do."""
    frame = data.assign(panel=[_title(row) for row in data.itertuples()])
    facets = layout.panels(frame, "panel", page, sharey=False)
    facets.map_dataframe(seaborn.lineplot, x="step", y="quiet", errorbar=None, **QUIET)
    facets.map_dataframe(seaborn.lineplot, x="step", y="value", color=COLORS[0], marker="o", errorbar=None)
    for ax, own in facets.parts():
        layout.band(ax, own, "step", COLORS[0])
        ax.fill_between(own["step"], own["quiet_low"], own["quiet_high"], zorder=0.5, **QUIET_BAND)
        ax.axvline(0, **ONSET)
        _scale(ax, own)
    facets.set_xlabels("steps from the onset")
    legend = [
        Line2D([], [], color=COLORS[0], marker="o", markeredgecolor="white", label="before spikes: mean"),
        Patch(color=COLORS[0], label="95 % over runs", **BAND),
        Line2D([], [], label="quiet windows: mean", **QUIET),
        Patch(label="95 % of quiet windows", **QUIET_BAND),
        Line2D([], [], label="onset", **ONSET),
    ]
    return layout.Picture(facets, legend, "change in the series' unit")


def _scale(ax: Axes, own: pd.DataFrame) -> None:
    """Let the line and its band have the panel; quiet windows take as much again on each side, and are cut beyond."""
    low, high = own[["value", "ci_low"]].min(axis=None), own[["value", "ci_high"]].max(axis=None)
    span = high - low or 1.0
    bottom = max(min(low, own["quiet_low"].min()), low - span)
    top = min(max(high, own["quiet_high"].max()), high + span)
    ax.set_ylim(bottom - 0.08 * (top - bottom), top + 0.08 * (top - bottom))


def _title(row: Any) -> str:
    name = NAMES.get(row.metric, str(row.metric).replace("_", " "))
    place = "" if pd.isna(row.layer) else f", block {row.layer:.0f}"
    ends = "" if pd.isna(row.auc_low) else f" [{row.auc_low:.2f}, {row.auc_high:.2f}]"
    return f"{ROLES[row.role]}: {name}{place}\nalarm: area under ROC {row.auc:.2f}{ends}"


def nothing(data: pd.DataFrame) -> str:
    """Say why there is no series before spikes."""
    if data.empty:
        return "No run was measured while it trained (probe_every): what moves before a spike is not known."
    if data["value"].isna().all():
        why = data["why"].iloc[0]
        return f"What moves before a spike is not known: {why if isinstance(why, str) and why else 'none was watched'}."
    return ""


WARNINGS = Drawing(
    title="What moves before a loss spike",
    reads=("id_twonn",),
    data=warning_data,
    panels=draw_warnings,
    nothing=nothing,
)
