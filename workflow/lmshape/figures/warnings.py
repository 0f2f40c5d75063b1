"""Three series before the onsets of loss spikes, beside quiet stretches of the same runs."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import seaborn
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lmshape.dynamics.early_warning import GEOMETRIC
from lmshape.figures import layout
from lmshape.figures.drawing import Drawing
from lmshape.figures.style import COLORS, FAINT, Page
from lmshape.site import middle_layer

DIMENSION = "id_twonn"
# The three series that are compared.
ROLES = {"dimension": "the dimension", "geometry": "best other geometry", "baseline": "best without geometry"}
SERIES = ["source", "blocks", "metric", "layer"]  # what names a series in the tables
NUMBERS = ["auc", "auc_low", "auc_high", "move_before", "move_before_low", "move_before_high", "spikes", "runs",
           "quiet_windows"]  # fmt: skip
COLUMNS = ["role", "metric", "layer", "blocks", "step", "value", "ci_low", "ci_high", "quiet", "quiet_low",
           "quiet_high", *NUMBERS, "why"]  # fmt: skip


def data(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Select the mean change of three series before spikes, in the group of runs whose spikes were watched most.

    The three are those of the `role` "dimension": TwoNN of the middle block, "geometry": the other geometric series
    that tells spikes best, and "baseline": the baseline that does. `step` counts from the onset; `auc` is the area
    under the ROC curve of an alarm on the series, `move_before` its move just before the onset.
    """
    warnings = tables.get("warnings", pd.DataFrame(columns=["source"]))
    probed = warnings[warnings["source"] == "probe"]
    if probed.empty:
        return pd.DataFrame(columns=COLUMNS)
    group = probed[probed["blocks"] == probed.loc[probed["spikes"].idxmax(), "blocks"]]
    if group["auc"].isna().all():
        return group.head(1).rename(columns={"flag": "why"}).reindex(columns=COLUMNS)
    named = group.merge(_roles(group), on=["metric", "layer"])
    changes = tables["before_spikes"].drop(columns=["spikes"])  # of each mean; `warnings` has all that count
    changes = changes.merge(named[[*SERIES, "role", *NUMBERS]], on=SERIES).rename(
        columns={"steps": "step", "change": "value", "change_low": "ci_low", "change_high": "ci_high"}
    )
    order = {role: place for place, role in enumerate(ROLES)}
    changes = changes.sort_values(
        ["role", "step"], key=lambda column: column.map(order) if column.name == "role" else column
    )
    return changes.reindex(columns=COLUMNS).reset_index(drop=True)


def _roles(group: pd.DataFrame) -> pd.DataFrame:
    """Metric, layer and role of the three series; one that is two things is named by the first."""
    measured = group.dropna(subset="auc").sort_values("auc", ascending=False, kind="stable")
    middle = middle_layer(int(group["blocks"].iloc[0]))
    found = {
        "dimension": measured[(measured["metric"] == DIMENSION) & (measured["layer"] == middle)],
        "geometry": measured[measured["metric"].isin(GEOMETRIC)],
        "baseline": measured[measured["kind"] == "baseline"],
    }
    best = [rows.head(1)[["metric", "layer"]].assign(role=role) for role, rows in found.items() if len(rows)]
    return pd.concat(best, ignore_index=True).drop_duplicates(["metric", "layer"])


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


def draw_panels(data: pd.DataFrame, page: Page) -> layout.Picture:
    """Draw the mean change of each series back from the onset, with its band, over what quiet windows do."""
    frame = data.assign(panel=[_title(row) for row in data.itertuples()])
    facets = layout.panels(frame, "panel", page, sharey=False)
    facets.map_dataframe(
        seaborn.lineplot, x="step", y="quiet", color=FAINT, linestyle="--", errorbar=None, linewidth=0.9
    )
    facets.map_dataframe(seaborn.lineplot, x="step", y="value", color=COLORS[0], marker="o", errorbar=None)
    for name, ax in facets.axes_dict.items():
        own = frame[frame["panel"] == name]
        low, high = own[["value", "ci_low"]].min(axis=None), own[["value", "ci_high"]].max(axis=None)
        layout.band(ax, own, "step", COLORS[0])
        ax.fill_between(
            own["step"], own["quiet_low"], own["quiet_high"], color="#D9D9D9", linewidth=0, zorder=0.5
        )
        ax.axvline(0, color=COLORS[1], linewidth=1.0, linestyle=(0, (3, 1.5)))
        _scale(ax, own, low, high)
    facets.set_xlabels("steps from the onset")
    legend = [
        Line2D([], [], color=COLORS[0], marker="o", markeredgecolor="white", label="before spikes: mean"),
        Patch(color=COLORS[0], alpha=0.2, linewidth=0, label="95 % over runs"),
        Line2D([], [], color=FAINT, linestyle="--", linewidth=0.9, label="quiet windows: mean"),
        Patch(color="#D9D9D9", linewidth=0, label="95 % of quiet windows"),
        Line2D([], [], color=COLORS[1], linewidth=1.0, linestyle=(0, (3, 1.5)), label="onset"),
    ]
    return layout.Picture(facets, legend, "change in the series' unit")


def _scale(ax: layout.Axes, own: pd.DataFrame, low: float, high: float) -> None:
    """Let the line and its band have the panel; quiet windows take as much again on each side, and are cut beyond."""
    span = high - low or 1.0
    bottom = max(min(low, own["quiet_low"].min()), low - span)
    top = min(max(high, own["quiet_high"].max()), high + span)
    ax.set_ylim(bottom - 0.08 * (top - bottom), top + 0.08 * (top - bottom))


def _title(row: pd.core.frame.Any) -> str:
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
    reads=(DIMENSION,),
    data=data,
    panels=draw_panels,
    nothing=nothing,
)
