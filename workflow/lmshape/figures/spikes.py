"""Loss spikes of the unstable runs, what the dimension does before them, and how well alarms tell them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec

from lmshape.dynamics.alarms import RULE
from lmshape.dynamics.early_warning import GEOMETRIC
from lmshape.dynamics.spikes import RULE as SPIKE_RULE
from lmshape.figures import layout
from lmshape.figures.drawing import Drawing
from lmshape.figures.style import COLORS, FAINT, INK, Look
from lmshape.site import middle_layer
from lmshape.tables.rows import in_order

DIMENSION = "id_twonn"
MOST_RUNS = 8  # whose losses are drawn
# The three series that are compared.
ROLES = {"dimension": "The dimension", "geometry": "Best geometric series", "baseline": "Best baseline"}
SERIES = ["source", "blocks", "metric", "layer"]  # what names a series in the tables
COLUMNS = [
    "series", "run", "step", "value", "ci_low", "ci_high", "kind", "metric", "layer", "blocks", "role", "spikes",
    "runs", "quiet", "quiet_low", "quiet_high", "quiet_windows", "false_alarm_rate", "hit_rate", "precision",
    "recovery_step", "flag",
]  # fmt: skip


# What is selected


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
        return pd.DataFrame(columns=COLUMNS)
    own = spikes[spikes["source"] == "pretraining"]
    most = own.groupby("run", sort=False)["spike"].max().sort_values(ascending=False, kind="stable")
    largest = list(most[most > 0].index[:MOST_RUNS]) or list(most.index[:MOST_RUNS])
    chosen = [run for run in in_order(own["run"]) if run in largest]
    counted = pd.DataFrame({"series": ["runs"], "value": [float(len(most))]})
    parts = [counted, _losses(tables["losses"], chosen), _onsets(own, chosen), *_before_spikes(tables)]
    filled = [part.reindex(columns=COLUMNS) for part in parts if len(part)]
    frame = pd.concat([part.dropna(axis=1, how="all") for part in filled], ignore_index=True)
    return frame.reindex(columns=COLUMNS)


def _losses(losses: pd.DataFrame, runs: list[str]) -> pd.DataFrame:
    parts = [losses.loc[losses["run"] == run, ["run", "step", "loss"]] for run in runs]
    joined = pd.concat(parts) if parts else losses.head(0)
    return joined.rename(columns={"loss": "value"}).assign(series="loss")


def _onsets(spikes: pd.DataFrame, runs: list[str]) -> pd.DataFrame:
    rows = spikes[spikes["run"].isin(runs)]
    named = rows.rename(columns={"onset": "step", "height": "value", "spike": "spikes"})
    return named[["run", "step", "value", "recovery_step", "flag", "spikes"]].assign(series="spike")


def _before_spikes(tables: Mapping[str, pd.DataFrame]) -> list[pd.DataFrame]:
    """Rows of the three series, in the group of runs whose spikes were watched most."""
    warnings = tables.get("warnings", pd.DataFrame(columns=["source"]))
    probed = warnings[warnings["source"] == "probe"]
    if probed.empty:
        return []
    group = probed[probed["blocks"] == probed.loc[probed["spikes"].idxmax(), "blocks"]]
    if group["auc"].isna().all():
        return [group.head(1).assign(series="nothing")]
    named = group.merge(_roles(group), on=["metric", "layer"])
    keys = named[[*SERIES, "role"]]
    changes = tables["before_spikes"].merge(keys, on=SERIES).drop(columns="step", errors="ignore")
    changes = changes.rename(
        columns={"steps": "step", "change": "value", "change_low": "ci_low", "change_high": "ci_high"}
    )
    return [
        changes.assign(series="course"),
        tables["alarms"].merge(keys, on=SERIES).assign(series="curve"),
        *(_number(named, name) for name in ("auc", "auc_gain", "move_before", "hit_rate", "lead_steps")),
    ]


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


def _number(named: pd.DataFrame, name: str) -> pd.DataFrame:
    columns = {name: "value", f"{name}_low": "ci_low", f"{name}_high": "ci_high"}
    kept = ["kind", "metric", "layer", "blocks", "role", "spikes", "runs", "quiet_windows", "flag", *columns]
    return named[kept].rename(columns=columns).assign(series=name)


def _rows(data: pd.DataFrame, series: str, role: str = "") -> pd.DataFrame:
    """Rows of the drawn data: of one of its series, and of one role."""
    rows = data[data["series"] == series]
    return rows[rows["role"] == role] if role else rows


# What is drawn

LOOKS = {
    "dimension": Look(COLORS[0], "-", "o", width=2.0),
    "geometry": Look(COLORS[2], (0, (5, 1.5)), "^"),
    "baseline": Look(COLORS[1], (0, (1.2, 1.2)), "s", width=2.0),
}
LOSSES_IN_A_ROW = 4
WIDTH = 12  # columns of the grid


def draw_panels(data: pd.DataFrame) -> Figure:
    """Draw the losses above, then what moves before an onset, then the curves of alarms."""
    runs = in_order(_rows(data, "loss")["run"])
    bands = -(-len(runs) // LOSSES_IN_A_ROW)
    watched = len(_rows(data, "curve")) > 0
    heights = [1.0] * bands + [1.45, 1.45] * watched
    figure = Figure(figsize=(11, 1.75 * bands + (6.0 if watched else 1.4)))
    grid = figure.add_gridspec(len(heights), WIDTH, height_ratios=heights)
    _loss_panels(figure, grid, data, runs)
    if watched:
        below, lowest = (_three_panels(figure, grid, band) for band in (bands, bands + 1))
        for ax, role in zip(below, ROLES, strict=True):
            _change_panel(ax, data, role)
        _alarm_panels(lowest, data)
    return figure


def _three_panels(figure: Figure, grid: GridSpec, band: int) -> list[Axes]:
    third = WIDTH // 3
    return [figure.add_subplot(grid[band, third * place : third * (place + 1)]) for place in range(3)]


def _loss_panels(figure: Figure, grid: GridSpec, data: pd.DataFrame, runs: list[str]) -> None:
    """Draw the loss of each run over its steps, a line at each onset, the spikes shaded."""
    losses, spikes = _rows(data, "loss"), _rows(data, "spike")
    width = WIDTH // LOSSES_IN_A_ROW
    for place, run in enumerate(runs):
        row, column = divmod(place, LOSSES_IN_A_ROW)
        ax = figure.add_subplot(grid[row, width * column : width * (column + 1)])
        own = spikes[(spikes["run"] == run) & spikes["step"].notna()]
        _loss_panel(ax, losses[losses["run"] == run], own)
        count = len(own)
        ax.set_title(f"{run}: {count} spike{'' if count == 1 else 's'}" if count else f"{run}: no spike")
        if column == 0:
            ax.set_ylabel("training loss\n(nats per token)")
        if place + LOSSES_IN_A_ROW >= len(runs):
            ax.set_xlabel("training step")


def _loss_panel(ax: Axes, curve: pd.DataFrame, spikes: pd.DataFrame) -> None:
    ax.plot(curve["step"], curve["value"].where(np.isfinite(curve["value"])), color=INK, linewidth=0.8)
    ends = spikes["recovery_step"].fillna(curve["step"].max())
    for onset, end in zip(spikes["step"], ends, strict=True):
        ax.axvspan(onset, end, color=COLORS[1], alpha=0.15, linewidth=0)
        _onset_line(ax, onset)
    ax.margins(x=0.02)


def _onset_line(ax: Axes, step: float) -> None:
    ax.axvline(step, color=COLORS[1], linewidth=1.0, linestyle=(0, (3, 1.5)))


def _change_panel(ax: Axes, data: pd.DataFrame, role: str) -> None:
    """Draw the mean change of one of the three series from the onset back, beside that of quiet windows."""
    rows = _rows(data, "course", role).sort_values("step")
    if rows.empty:
        return layout.nothing_here(ax, _why_nothing(role, _rows(data, "auc", role)))
    look, steps = LOOKS[role], rows["step"]
    ax.fill_between(steps, rows["quiet_low"], rows["quiet_high"], color="#D9D9D9", linewidth=0,
                    label="95 % of quiet windows")  # fmt: skip
    ax.plot(steps, rows["quiet"], color=FAINT, linewidth=1.0, linestyle=(0, (4, 2)), label="their mean")
    ax.fill_between(steps, rows["ci_low"], rows["ci_high"], color=look.color, alpha=0.25, linewidth=0)
    ax.plot(steps, rows["value"], label="before spikes: mean, 95 %", **look.settings)
    _onset_line(ax, 0)
    ax.axhline(0, color=FAINT, linewidth=0.6)
    metric, layer = rows[["metric", "layer"]].iloc[0]
    ax.set(title=f"{ROLES[role]}: {short_name(metric, layer)}", xlabel="steps from the onset")
    ax.set_ylabel(f"change of {axis_name(metric)}")
    _scale(ax, rows, above=0.4 if role == "dimension" else 0.2)
    if role == "dimension":
        ax.legend(loc="upper left", fontsize=7.5, handlelength=2.2)


def _why_nothing(role: str, chosen: pd.DataFrame) -> str:
    if role == "geometry" and chosen.empty:
        return "No other geometric series tells spikes better than the dimension of the middle block."
    return f"{ROLES[role]}: nothing was measured before enough spikes."


def _scale(ax: Axes, rows: pd.DataFrame, *, above: float) -> None:
    """Let the line and its band have the panel; quiet windows take as much again on each side, and are cut beyond.

    `above` is the space over them, for words, as a share of their height.
    """
    low, high = _ends(rows, ["value", "ci_low", "ci_high"])
    quiet_low, quiet_high = _ends(rows, ["quiet_low", "quiet_high"])
    span = high - low or 1.0
    bottom, top = max(min(low, quiet_low), low - span), min(max(high, quiet_high), high + span)
    ax.set_ylim(bottom - 0.08 * (top - bottom), top + above * (top - bottom))
    ax.margins(x=0.02)
    beyond = [end for end, cut in ((quiet_low, quiet_low < bottom), (quiet_high, quiet_high > top)) if cut]
    if beyond:
        said = f"cut off: grey reaches {' and '.join(f'{end:.2g}' for end in beyond)}"
        ax.text(0.02, 0.98, said, transform=ax.transAxes, va="top", fontsize=7.5, color=INK,
                bbox={"facecolor": "white", "linewidth": 0, "pad": 1.0})  # fmt: skip


def _ends(rows: pd.DataFrame, columns: list[str]) -> tuple[float, float]:
    numbers = rows[columns].to_numpy(float)
    known = numbers[np.isfinite(numbers)]
    return (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)


def _alarm_panels(panels: list[Axes], data: pd.DataFrame) -> None:
    """Draw ROC and precision–recall curves of the three series, what chance comes to, and the areas."""
    roc, recall, words = panels
    for role, look in LOOKS.items():
        curve = _rows(data, "curve", role)
        if curve.empty:
            continue
        line: dict[str, Any] = {"color": look.color, "linestyle": look.line, "linewidth": look.width}
        area = _rows(data, "auc", role).iloc[0]
        name = f"{short_name(area['metric'], area['layer'])}\n{_area(area)}"
        roc.step([0, *curve["false_alarm_rate"]], [0, *curve["hit_rate"]], where="post", label=name, **line)
        known = curve.dropna(subset="precision")
        recall.plot(known["hit_rate"], known["precision"], **line)
    chance: dict[str, Any] = {"color": FAINT, "linewidth": 0.9, "linestyle": (0, (4, 2))}
    roc.plot([0, 1], [0, 1], label="chance: 0.5", **chance)
    first = _rows(data, "auc").iloc[0]
    recall.axhline(first["spikes"] / (first["spikes"] + first["quiet_windows"]), **chance)
    roc.set(title="Alarms over all thresholds (ROC)", xlabel="share of quiet windows with an alarm")
    roc.set_ylabel("share of spikes with an alarm")
    recall.set(title="Precision and recall", xlabel="share of spikes with an alarm (recall)")
    recall.set_ylabel("share of alarms that are right\n(precision)")
    for ax in (roc, recall):
        ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.05))
    words.set_axis_off()
    title = "area under the ROC curve, 95 % over runs"
    words.legend(*roc.get_legend_handles_labels(), loc="center left", title=title, alignment="left",
                 labelspacing=0.9)  # fmt: skip


def _area(area: pd.Series) -> str:
    if pd.isna(area["ci_low"]):
        return f"{area['value']:.2f}, no interval"
    return f"{area['value']:.2f} [{area['ci_low']:.2f}, {area['ci_high']:.2f}]"


# What is said

NAMES = {
    "id_twonn": "TwoNN dimension",
    "id_twonn_types": "TwoNN dimension, one row a token id",
    "anisotropy": "anisotropy",
    "effective_rank": "effective rank",
    "participation_ratio": "participation ratio",
    "mean_cosine": "mean cosine",
    "loss_level": "training loss",
    "loss_slope": "slope of the training loss",
    "loss_variance": "variance of the training loss (log)",
    "gradient_norm": "gradient norm (log)",
    "learning_rate": "learning rate (log)",
    "loss_held_out": "held-out loss",
    "norm_median": "median norm",
    "activation_max": "largest activation",
}
UNITS = {
    "loss_level": "\n(nats per token)",
    "loss_held_out": "\n(nats per token)",
    "loss_slope": "\n(nats per step)",
    "anisotropy": "\n(share of variance)",
}


def short_name(metric: str, layer: float) -> str:
    """Name a series in a title."""
    name = NAMES.get(metric, metric)
    return name if pd.isna(layer) else f"{name}, block {layer:.0f}"


def axis_name(metric: str) -> str:
    """Name a series on an axis, with its unit."""
    name = "dimension" if metric.startswith(DIMENSION) else NAMES.get(metric, metric)
    return name + UNITS.get(metric, "")


def _notes(data: pd.DataFrame) -> list[str]:
    """Say what counts as a spike and as a warning, and what the numbers come to."""
    spikes = _rows(data, "spike")
    drawn, every = spikes["run"].nunique(), int(_rows(data, "runs")["value"].iloc[0])
    shaded = (
        "Dashed: onset of a spike; shaded until the loss is back. A spike: the loss stays above its baseline, the "
        f"median of the last {SPIKE_RULE.window} calm losses, for {SPIKE_RULE.least_steps} steps or more, and at its "
        f"highest exceeds it by at least {SPIKE_RULE.deviations:g} standard deviations of the noise and "
        f"{SPIKE_RULE.least_height:g} nats."
    )
    more = f"Not drawn: {every - drawn} more runs, with fewer spikes or none." if every > drawn else ""
    return [shaded if (spikes["spikes"] > 0).any() else "No run has a spike.", more, *_notes_on_alarms(data)]


def _notes_on_alarms(data: pd.DataFrame) -> list[str]:
    areas, nothing = _rows(data, "auc"), _rows(data, "nothing")
    if areas.empty:
        unprobed = "no run was measured while it trained (`probe_every`)"
        why = nothing["flag"].iloc[0] if len(nothing) else unprobed
        return [f"What moves before a spike cannot be told here: {why}."]
    first = areas.iloc[0]
    counted = (
        f"Below: {first['spikes']:.0f} spikes of {first['runs']:.0f} runs, {first['quiet_windows']:.0f} quiet windows, "
        f"of {RULE.horizon} values each. An alarm: a value far from those before it, either way."
    )
    flag = first["flag"] if isinstance(first["flag"], str) else ""
    return [counted, _move(data), _last_steps(data), _gain(data), _at_rate(data), flag]


def _move(data: pd.DataFrame) -> str:
    rows = _rows(data, "move_before", "dimension").dropna(subset="value")
    if rows.empty:
        return ""
    row = rows.iloc[0]
    number, block = f"{row['value']:+.2f}", f"the dimension of block {row['layer']:.0f}"
    if pd.isna(row["ci_low"]):
        return f"Just before an onset {block} moves by {number} quiet deviations."
    said = _by_sign(
        row, "rises", "falls, where the article says it rises", "neither rises nor falls significantly"
    )
    interval = f"[{row['ci_low']:+.2f}, {row['ci_high']:+.2f}]"
    return f"Just before an onset {block} {said}: {number} {interval} standard deviations of quiet moves."


def _by_sign(row: pd.Series, above: str, below: str, neither: str) -> str:
    """Choose words by where the interval lies: above 0, below it, or around it."""
    return above if row["ci_low"] > 0 else below if row["ci_high"] < 0 else neither


def _last_steps(data: pd.DataFrame) -> str:
    """Say where the mean change of the dimension leaves 0 just before the onset, which a median may not show."""
    changes = _rows(data, "course", "dimension").dropna(subset=["value", "ci_low", "ci_high"])
    changes = changes[changes["step"] < 0]
    if changes.empty:
        return ""
    last = changes.loc[changes["step"].idxmax()]
    if last["ci_low"] <= 0 <= last["ci_high"]:
        return ""
    where = "below" if last["ci_high"] < 0 else "above"
    quiet = last["quiet_low"] <= last["value"] <= last["quiet_high"]
    return (
        f"Its mean change is {where} 0 in the last steps ({last['value']:+.2f} [{last['ci_low']:+.2f}, "
        f"{last['ci_high']:+.2f}]), {'within' if quiet else 'beyond'} what quiet windows do."
    )


def _gain(data: pd.DataFrame) -> str:
    rows = _rows(data, "auc_gain", "dimension").dropna(subset=["value", "ci_low"])
    if rows.empty:
        return ""
    row = rows.iloc[0]
    better, worse = "better than the best baseline", "worse than the best baseline"
    said = _by_sign(row, better, worse, "not significantly better or worse than the best baseline")
    return (
        f"As an alarm it is {said}: area {row['value']:+.2f} [{row['ci_low']:+.2f}, {row['ci_high']:+.2f}]."
    )


def _at_rate(data: pd.DataFrame) -> str:
    """Say how many spikes each series tells at the rate of false alarms, and how early."""
    said = []
    for role in ROLES:
        hits, leads = _rows(data, "hit_rate", role), _rows(data, "lead_steps", role)
        if hits.empty or pd.isna(hits["value"].iloc[0]):
            continue
        first, lead = hits.iloc[0], leads["value"].iloc[0]
        early = f", {lead:.0f} steps ahead" if pd.notna(lead) else ""
        said.append(f"{short_name(first['metric'], first['layer'])} {first['value']:.0%}{early}")
    if not said:
        return ""
    rate = f"{RULE.rate:g} false alarms in 10 000 quiet steps of other runs"
    return f"Spikes told by an alarm set to {rate}: {'; '.join(said)}."


SPIKES = Drawing(
    title="Loss spikes, and what moves before them",
    reads=(DIMENSION,),
    data=data,
    panels=draw_panels,
    notes=_notes,
    nothing="This study has no pretraining run: no loss of every step.",
    lacks=lambda data: _rows(data, "loss").empty,
    heading="{title}",
    crowds=False,
)
