"""What is said of sinks in words: how much of the leading axis is position 0, and which tokens the others are."""

from __future__ import annotations

import json

import pandas as pd

SHARE, NULL = "leading_share_position_0", "leading_share_position_0_null"
MOST_TOKENS = 4  # that are named


def sentence(peak: pd.DataFrame) -> str:
    """Say how much of λ1 is position 0 where anisotropy is highest: share, interval, and its share of the rows.

    Parameters
    ----------
    peak : the rows of one model at that layer, one for each metric
    """
    peak = peak.set_index("metric")
    if SHARE not in peak.index or pd.isna(peak.loc[SHARE, "value"]):
        return "what position 0 carries is not known"
    value, low, high, layer = peak.loc[SHARE, ["value", "ci_low", "ci_high", "layer"]]
    interval = "" if pd.isna(low) else f" [{percent(low)}, {percent(high)}]"
    found = f"{percent(value)} %{interval} of $\\lambda_1$ at layer {layer:.0f} is position 0"
    return (
        f"{found},\nwhich is {percent(peak.loc[NULL, 'value'])} % of the rows"
        if NULL in peak.index
        else found
    )


def percent(share: float) -> str:
    """Write a share in percent with two digits, and those near 1 as such: 0.79, 12, 99.3."""
    value = 100 * share
    if value >= 99.95 or value == 0:
        return f"{value:.0f}"
    return f"{value:.2g}" if value < 10 else f"{value:.0f}" if value < 99 else f"{value:.1f}"


def tokens_note(peaks: pd.DataFrame) -> str:
    """Name the tokens of the sinks at the layer of the peak, for models with others than position 0."""
    places = peaks[peaks["sink_tokens"].notna()]
    others = places[(places["metric"] == "leading_share_other_sinks_null") & (places["value"] > 0)]
    named = [f"{row.model}: {_named(row.sink_tokens)}" for row in others.itertuples()]
    return f"Tokens of the sinks there: {'; '.join(named)}." if named else ""


def _named(tokens: str) -> str:
    counts = list(json.loads(tokens).items())[:MOST_TOKENS]
    return ", ".join(f"{token} ({count})" for token, count in counts)
