"""Loss spikes of the unstable runs, what the dimension does before them, and how well alarms tell them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from lmshape.bands import middle_layer
from lmshape.dynamics.warning_series import GEOMETRIC
from lmshape.figures import layout, marks, selection, spike_words
from lmshape.figures.spike_panels import course_panel, curve_panels, loss_panels
from lmshape.figures.style import styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Loss spikes, and what moves before them"
READS = ("id_twonn",)
DIMENSION = "id_twonn"
MOST_RUNS = 8  # whose losses are drawn
_NUMBERS = ["auc", "move_before", "hit_rate", "lead_steps"]
_DRAWN = [
    "series", "run", "step", "value", "ci_low", "ci_high", "kind", "metric", "layer", "blocks", "role", "spikes",
    "runs", "quiet", "quiet_low", "quiet_high", "quiet_windows", "false_alarm_rate", "hit_rate", "precision",
    "recovery_step", "flag",
]  # fmt: skip


def data(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Select the losses of the runs that spike most, and of what was measured most often before spikes three series.

    They are those of the `role` "dimension": TwoNN of the middle block, "geometry": the geometric series that tells
    spikes best, and "baseline": the baseline that does.

    `series` "loss" holds the losses of `run`, "spike" the `step` of each onset, "course" the mean change at `step`
    from the onset beside that of quiet windows, "curve" the points of the ROC and precision–recall curves, and
    "auc", "auc_gain", "move_before", "hit_rate" and "lead_steps" the numbers of the table `warnings`; "runs" the
    number of runs.
    """
    spikes = tables.get("spikes")
    if spikes is None or spikes.empty:
        return pd.DataFrame(columns=_DRAWN)
    own = spikes[spikes["source"] == "pretraining"]
    most = own.groupby("run", sort=False)["spike"].max().sort_values(ascending=False, kind="stable")
    largest = list(most[most > 0].index[:MOST_RUNS]) or list(most.index[:MOST_RUNS])
    chosen = [run for run in selection.in_order(own["run"]) if run in largest]
    counted = pd.DataFrame({"series": ["runs"], "value": [float(len(most))]})
    parts = [counted, _losses(tables["losses"], chosen), _onsets(own, chosen), *_warned(tables)]
    filled = [part.reindex(columns=_DRAWN) for part in parts if len(part)]
    frame = pd.concat([part.dropna(axis=1, how="all") for part in filled], ignore_index=True)
    return frame.reindex(columns=_DRAWN)


def _losses(losses: pd.DataFrame, runs: list[str]) -> pd.DataFrame:
    parts = [losses.loc[losses["run"] == run, ["run", "step", "loss"]] for run in runs]
    joined = pd.concat(parts) if parts else losses.head(0)
    return joined.rename(columns={"loss": "value"}).assign(series="loss")


def _onsets(spikes: pd.DataFrame, runs: list[str]) -> pd.DataFrame:
    rows = spikes[spikes["run"].isin(runs)]
    named = rows.rename(columns={"onset": "step", "height": "value"})
    return named[["run", "step", "value", "recovery_step", "flag"]].assign(
        series="spike", spikes=rows["spike"]
    )


def _warned(tables: Mapping[str, pd.DataFrame]) -> list[pd.DataFrame]:
    """Rows of the group of runs whose spikes were watched most, of the three series."""
    warnings = tables.get("warnings")
    if warnings is None or warnings.empty:
        return []
    probed = warnings[warnings["source"] == "probe"]
    if probed.empty:
        return []
    group = probed[probed["blocks"] == probed.loc[probed["spikes"].idxmax(), "blocks"]]
    roles = _roles(group)
    if group["auc"].isna().all():
        return [group.head(1).assign(series="nothing")]
    named = group.merge(roles, on=["metric", "layer"])
    keys = named[["source", "blocks", "metric", "layer", "role"]]
    courses = tables["before_spikes"].merge(keys, on=["source", "blocks", "metric", "layer"])
    curves = tables["alarms"].merge(keys, on=["source", "blocks", "metric", "layer"])
    courses = courses.drop(columns=["step"], errors="ignore").rename(
        columns={"steps": "step", "change": "value", "change_low": "ci_low", "change_high": "ci_high"}
    )
    return [
        courses.assign(series="course"),
        curves.assign(series="curve"),
        *(_number(named, name) for name in ("auc", "auc_gain", *_NUMBERS[1:])),
    ]


def _roles(group: pd.DataFrame) -> pd.DataFrame:
    """Metric, layer and role of the three series; one that is two things is named by the first."""
    measured = group.dropna(subset="auc").sort_values("auc", ascending=False, kind="stable")
    middle = middle_layer(int(group["blocks"].iloc[0]))
    found = [
        ("dimension", measured[(measured["metric"] == DIMENSION) & (measured["layer"] == middle)]),
        ("geometry", measured[measured["metric"].isin(GEOMETRIC)]),
        ("baseline", measured[measured["kind"] == "baseline"]),
    ]
    rows = [rows.head(1)[["metric", "layer"]].assign(role=role) for role, rows in found if len(rows)]
    empty = pd.DataFrame(columns=["metric", "layer", "role"])
    return pd.concat(rows, ignore_index=True).drop_duplicates(["metric", "layer"]) if rows else empty


def _number(named: pd.DataFrame, name: str) -> pd.DataFrame:
    columns = {name: "value", f"{name}_low": "ci_low", f"{name}_high": "ci_high"}
    kept = ["kind", "metric", "layer", "blocks", "role", "spikes", "runs", "quiet_windows", "flag", *columns]
    return named[kept].rename(columns=columns).assign(series=name)


def draw(data: pd.DataFrame) -> Figure:
    """Draw the losses above, then what moves before an onset, then the curves of alarms."""
    from matplotlib.figure import Figure

    losses = data[data["series"] == "loss"]
    if losses.empty:
        note = "This study has no pretraining run: no loss of every step."
        return marks.empty_figure(title=TITLE, note=note)
    with styled():
        runs = selection.in_order(losses["run"])
        bands = -(-len(runs) // 4)
        warned = bool((data["series"] == "curve").any())
        heights = [1.0] * bands + [1.45, 1.45] * warned
        figure = Figure(figsize=(11, 1.75 * bands + (6.0 if warned else 1.4)))
        grid = figure.add_gridspec(len(heights), 12, height_ratios=heights)
        loss_panels(figure, grid, data, runs)
        if warned:
            for place, role in enumerate(("dimension", "geometry", "baseline")):
                course_panel(figure.add_subplot(grid[bands, 4 * place : 4 * place + 4]), data, role)
            row = bands + 1
            axes = [figure.add_subplot(grid[row, first : first + 4]) for first in (0, 4, 8)]
            curve_panels(*axes, data)
        layout.finish(figure, title=TITLE, notes=spike_words.notes(data))
        return figure
