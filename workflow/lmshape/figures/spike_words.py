"""Words of the figure of loss spikes: names of series, and the notes that say what it comes to."""

from __future__ import annotations

import pandas as pd

from lmshape.dynamics.spikes import RULE as SPIKE_RULE
from lmshape.dynamics.warning_rule import RULE

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
    return [shaded, more, *_warned(data)]


def _warned(data: pd.DataFrame) -> list[str]:
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
