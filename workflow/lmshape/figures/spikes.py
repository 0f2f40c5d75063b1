"""Loss spikes of the unstable runs, what the dimension does before them, and how well alarms tell them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lmshape.dynamics.alarms import RULE
from lmshape.dynamics.spikes import RULE as SPIKE_RULE
from lmshape.dynamics.warning_series import GEOMETRIC
from lmshape.figures import marks
from lmshape.figures.style import COLORS, FAINT, INK, Look, styled
from lmshape.site import middle_layer
from lmshape.tables.rows import in_order

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.gridspec import GridSpec


ROLES = {"dimension": "The dimension", "geometry": "Best geometric series", "baseline": "Best baseline"}
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
    name = {"id_twonn": "dimension", "id_twonn_types": "dimension"}.get(metric, NAMES.get(metric, metric))
    return name + UNITS.get(metric, "")


def notes(data: pd.DataFrame) -> list[str]:
    """Say what counts as a spike and as a warning, and what the numbers come to."""
    spikes = data[data["series"] == "spike"]
    found = int((spikes["spikes"] > 0).sum())
    drawn, every = spikes["run"].nunique(), int(data.loc[data["series"] == "runs", "value"].iloc[0])
    shaded = (
        "Dashed: onset of a spike; shaded until the loss is back. A spike: the loss stays above its baseline, the "
        f"median of the last {SPIKE_RULE.window} calm losses, for {SPIKE_RULE.least_steps} steps or more, and at its "
        f"highest exceeds it by at least {SPIKE_RULE.deviations:g} standard deviations of the noise and "
        f"{SPIKE_RULE.least_height:g} nats."
        if found
        else "No run has a spike."
    )
    more = f"Not drawn: {every - drawn} more runs, with fewer spikes or none." if every > drawn else ""
    return [shaded, more, *_spike_words_warned(data)]


def _spike_words_warned(data: pd.DataFrame) -> list[str]:
    areas = data[data["series"] == "auc"]
    if areas.empty:
        nothing = data[data["series"] == "nothing"]
        reason = (
            nothing["flag"].iloc[0]
            if len(nothing)
            else "no run was measured while it trained (`probe_every`)"
        )
        return [f"What moves before a spike cannot be told here: {reason}."]
    first = areas.iloc[0]
    counted = (
        f"Below: {first['spikes']:.0f} spikes of {first['runs']:.0f} runs, {first['quiet_windows']:.0f} quiet windows, "
        f"of {RULE.horizon} values each. An alarm: a value far from those before it, either way."
    )
    return [
        counted,
        _move(data),
        _last_steps(data),
        _gain(data),
        _at_rate(data),
        first["flag"] if isinstance(first["flag"], str) else "",
    ]


def _move(data: pd.DataFrame) -> str:
    rows = data[(data["series"] == "move_before") & (data["role"] == "dimension")]
    if rows.empty or pd.isna(rows["value"].iloc[0]):
        return ""
    row = rows.iloc[0]
    number = f"{row['value']:+.2f}"
    if pd.isna(row["ci_low"]):
        return f"Just before an onset the dimension of block {row['layer']:.0f} moves by {number} quiet deviations."
    interval = f"[{row['ci_low']:+.2f}, {row['ci_high']:+.2f}]"
    said = "neither rises nor falls for sure"
    if row["ci_low"] > 0:
        said = "rises"
    elif row["ci_high"] < 0:
        said = "falls, where the article says it rises"
    return (
        f"Just before an onset the dimension of block {row['layer']:.0f} {said}: {number} {interval} standard "
        "deviations of quiet moves."
    )


def _last_steps(data: pd.DataFrame) -> str:
    """Say where the mean course of the dimension leaves 0 just before the onset, which a move in the median may not."""
    course = data[(data["series"] == "course") & (data["role"] == "dimension") & (data["step"] < 0)]
    course = course.dropna(subset=["value", "ci_low", "ci_high"])
    if course.empty:
        return ""
    last = course.loc[course["step"].idxmax()]
    if last["ci_low"] <= 0 <= last["ci_high"]:
        return ""
    where = "below" if last["ci_high"] < 0 else "above"
    quiet = last["quiet_low"] <= last["value"] <= last["quiet_high"]
    said = "within" if quiet else "beyond"
    return (
        f"Its mean course is {where} 0 in the last steps ({last['value']:+.2f} [{last['ci_low']:+.2f}, "
        f"{last['ci_high']:+.2f}]), {said} what quiet windows do."
    )


def _at_rate(data: pd.DataFrame) -> str:
    """Say how many spikes each series tells at the rate of false alarms, and how early."""
    said = []
    for role in ROLES:
        rows = data[data["role"] == role]
        hits, leads = (rows[rows["series"] == name] for name in ("hit_rate", "lead_steps"))
        if hits.empty or pd.isna(hits["value"].iloc[0]):
            continue
        first = hits.iloc[0]
        early = f", {leads['value'].iloc[0]:.0f} steps ahead" if pd.notna(leads["value"].iloc[0]) else ""
        said.append(f"{short_name(first['metric'], first['layer'])} {first['value']:.0%}{early}")
    if not said:
        return ""
    rate = f"{RULE.rate:g} false alarms in 10 000 quiet steps of other runs"
    return f"Spikes told by an alarm set to {rate}: {'; '.join(said)}."


def _gain(data: pd.DataFrame) -> str:
    rows = data[(data["series"] == "auc_gain") & (data["role"] == "dimension")].dropna(
        subset=["value", "ci_low"]
    )
    if rows.empty:
        return ""
    row = rows.iloc[0]
    said = "no better, and no worse for sure, than the best baseline"
    if row["ci_low"] > 0:
        said = "better than the best baseline"
    elif row["ci_high"] < 0:
        said = "worse than the best baseline"
    return (
        f"As an alarm it is {said}: area {row['value']:+.2f} [{row['ci_low']:+.2f}, {row['ci_high']:+.2f}]."
    )


LOOKS = {
    "dimension": Look(COLORS[0], "-", "o", width=2.0),
    "geometry": Look(COLORS[2], (0, (5, 1.5)), "^"),
    "baseline": Look(COLORS[1], (0, (1.2, 1.2)), "s", width=2.0),
}
COLUMNS = 4  # of losses in a row


def loss_panels(figure: Figure, grid: GridSpec, data: pd.DataFrame, runs: list[str]) -> None:
    """Draw the loss of each run over its steps, a line at each onset, the spikes shaded."""
    losses, spikes = (data[data["series"] == name] for name in ("loss", "spike"))
    width = 12 // COLUMNS
    for place, run in enumerate(runs):
        row, column = divmod(place, COLUMNS)
        ax = figure.add_subplot(grid[row, width * column : width * (column + 1)])
        curve = losses[losses["run"] == run]
        ax.plot(curve["step"], curve["value"].where(np.isfinite(curve["value"])), color=INK, linewidth=0.8)
        own = spikes[(spikes["run"] == run) & spikes["step"].notna()]
        for spike in own.itertuples():
            end = spike.recovery_step if spike.recovery_step == spike.recovery_step else curve["step"].max()
            ax.axvspan(spike.step, end, color=COLORS[1], alpha=0.15, linewidth=0)
            ax.axvline(spike.step, color=COLORS[1], linewidth=1.0, linestyle=(0, (3, 1.5)))
        count = len(own)
        ax.set_title(f"{run}: {count} spike{'' if count == 1 else 's'}" if count else f"{run}: no spike")
        ax.margins(x=0.02)
        if column == 0:
            ax.set_ylabel("training loss\n(nats per token)")
        if place + COLUMNS >= len(runs):
            ax.set_xlabel("training step")


def course_panel(ax: Axes, data: pd.DataFrame, role: str) -> None:
    """Draw the mean change of one of the three series from the onset back, beside that of quiet windows."""
    rows = data[(data["series"] == "course") & (data["role"] == role)].sort_values("step")
    chosen = data[(data["series"] == "auc") & (data["role"] == role)]
    if rows.empty:
        marks.nothing_here(ax, _why_nothing(role, chosen))
        return
    look = LOOKS[role]
    ax.fill_between(
        rows["step"],
        rows["quiet_low"],
        rows["quiet_high"],
        color="#D9D9D9",
        linewidth=0,
        label="95 % of quiet windows",
    )
    ax.plot(
        rows["step"], rows["quiet"], color=FAINT, linewidth=1.0, linestyle=(0, (4, 2)), label="their mean"
    )
    ax.fill_between(rows["step"], rows["ci_low"], rows["ci_high"], color=look.color, alpha=0.25, linewidth=0)
    ax.plot(rows["step"], rows["value"], label="before spikes: mean, 95 %", **look.settings)
    ax.axvline(0, color=COLORS[1], linewidth=1.0, linestyle=(0, (3, 1.5)))
    ax.axhline(0, color=FAINT, linewidth=0.6)
    first = rows.iloc[0]
    ax.set(
        title=f"{ROLES[role]}: {short_name(first['metric'], first['layer'])}", xlabel="steps from the onset"
    )
    ax.set_ylabel(f"change of {axis_name(first['metric'])}")
    _scale(ax, rows, above=0.4 if role == "dimension" else 0.2)
    if role == "dimension":
        ax.legend(loc="upper left", fontsize=7.5, handlelength=2.2)


def _scale(ax: Axes, rows: pd.DataFrame, *, above: float) -> None:
    """Let the line and its band have the panel; quiet windows take as much again on each side, and are cut beyond.

    `above` is the room over them, for words, as a share of their height.
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


def curve_panels(roc: Axes, recall: Axes, words: Axes, data: pd.DataFrame) -> None:
    """Draw ROC and precision–recall curves of the three series, what chance comes to, and the areas."""
    points, areas = (data[data["series"] == name] for name in ("curve", "auc"))
    for role, look in LOOKS.items():
        curve = points[points["role"] == role]
        if curve.empty:
            continue
        line = {"color": look.color, "linestyle": look.line, "linewidth": look.width}
        area = areas[areas["role"] == role].iloc[0]
        name = f"{short_name(area['metric'], area['layer'])}\n{marks_of(area)}"
        roc.step([0, *curve["false_alarm_rate"]], [0, *curve["hit_rate"]], where="post", label=name, **line)
        known = curve.dropna(subset="precision")
        recall.plot(known["hit_rate"], known["precision"], **line)
    roc.plot([0, 1], [0, 1], color=FAINT, linewidth=0.9, linestyle=(0, (4, 2)), label="chance: 0.5")
    first = areas.iloc[0]
    share = first["spikes"] / (first["spikes"] + first["quiet_windows"])
    recall.axhline(share, color=FAINT, linewidth=0.9, linestyle=(0, (4, 2)))
    roc.set(title="Alarms over all thresholds (ROC)", xlabel="share of quiet windows with an alarm")
    roc.set_ylabel("share of spikes with an alarm")
    recall.set(title="Precision and recall", xlabel="share of spikes with an alarm (recall)")
    recall.set_ylabel("share of alarms that are right\n(precision)")
    for ax in (roc, recall):
        ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.05))
    words.set_axis_off()
    handles, names = roc.get_legend_handles_labels()
    words.legend(
        handles,
        names,
        loc="center left",
        title="area under the ROC curve, 95 % over runs",
        alignment="left",
        labelspacing=0.9,
    )


def marks_of(area: pd.Series) -> str:
    """Spell an area with its interval."""
    if pd.isna(area["ci_low"]):
        return f"{area['value']:.2f}, no interval"
    return f"{area['value']:.2f} [{area['ci_low']:.2f}, {area['ci_high']:.2f}]"


def _why_nothing(role: str, chosen: pd.DataFrame) -> str:
    if role == "geometry" and chosen.empty:
        return "No other geometric series tells spikes better than the dimension of the middle block."
    return f"{ROLES[role]}: nothing was measured before enough spikes."


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
    chosen = [run for run in in_order(own["run"]) if run in largest]
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
        runs = in_order(losses["run"])
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
        marks.finish(figure, title=TITLE, notes=notes(data))
        return figure
