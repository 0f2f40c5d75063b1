"""The tables of the report: the study's tables cut down to what a reader looks for, numbers written shortly.

A frame's cell may be a plain value or a `Cell`, which has been written already.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, isnan, log10, nan
from typing import Any

import pandas as pd

from lmshape.metrics.registry import METRICS
from lmshape.site import middle_layer
from lmshape.tables.rows import final_checkpoints, first_dataset, has_flag, reason, trajectories

MOST_ROWS = 2000  # of a table in the page; the whole is in its CSV file
MOST_DECIMALS = 4  # of a number that may be 0; one that is surely not has up to two more
FINEST = 8  # decimals that tell a bound from a threshold; what is nearer is rounding


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table: what is read, what it is sorted by, and why it is to be read with care."""

    text: str
    key: float | str
    flag: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the page; `total` counts its rows before it was cut to `MOST_ROWS`."""

    columns: list[str]
    rows: list[list[Cell]]
    total: int


def models(metrics: pd.DataFrame) -> pd.DataFrame:
    """Say of each model what it is, how much of its training was followed, and its last loss."""
    rows = []
    for model, of_model in metrics.groupby("model", sort=False):
        first, steps = of_model.iloc[0], of_model["step"]
        loss = first_dataset(final_checkpoints(of_model)).query("metric == 'loss'")
        rows.append(
            {
                "model": model,
                "kind": first["kind"],
                "architecture": first["family"],
                "parameters": first["parameters"],
                "blocks": of_model["layer"].max(),
                "width": of_model["d"].max(),
                "checkpoints": of_model["checkpoint"].nunique(),
                "steps": f"{steps.min()} to {steps.max()}" if steps.min() < steps.max() else f"{steps.max()}",
                "tokens seen": of_model["tokens_seen"].max(),
                "last loss, nats per token": interval(loss.iloc[0])
                if len(loss)
                else Cell("not measured", ""),
            }
        )
    return pd.DataFrame(rows)


def findings(metrics: pd.DataFrame, profiles: pd.DataFrame) -> pd.DataFrame:
    """Give a few numbers of each model and choice of rows on the first dataset: the dome, the dimension."""
    last = final_checkpoints(first_dataset(profiles)).set_index(["model", "rows"])
    found = []
    layers = first_dataset(metrics).query("site in ('embedding', 'block')")
    for (model, rows), of_rows in layers.groupby(["model", "rows"], sort=False):
        row = {"model": model, "kind": of_rows["kind"].iloc[0], "rows": rows}
        if (model, rows) in last.index:
            row |= _dome(last.loc[(model, rows)], int(of_rows["layer"].max()))
        found.append(row | _dimension(of_rows[of_rows["metric"] == "id_twonn"]))
    return pd.DataFrame(found)


def _dome(profile: pd.Series, blocks: int) -> dict[str, Cell]:
    peak = profile["peak_layer"]
    return {
        "peak of anisotropy": interval(profile, "height", "height_low", "height_high"),
        "at layer": Cell("–", "") if pd.isna(peak) else Cell(f"{peak:.0f} of {blocks}", float(peak)),
        "dome index": interval(profile, "dome_index", "dome_index_low", "dome_index_high"),
    }


def _dimension(of_model: pd.DataFrame) -> dict[str, Cell]:
    """Give the middle layer's dimension at the first step, where it is greatest, and at the last step."""
    steps = trajectories(of_model)
    steps = steps[steps["value"].notna()]
    if steps.empty:
        return {}
    middle = steps[steps["layer"] == middle_layer(int(steps["layer"].max()))]
    greatest = middle.loc[middle["value"].idxmax()]
    return {
        "middle layer's dimension, first": interval(middle.iloc[0]),
        "greatest": interval(greatest),
        "at step": Cell(f"{greatest['step']}", float(greatest["step"])),
        "last": interval(middle.iloc[-1]),
    }


def last_layers(metrics: pd.DataFrame) -> pd.DataFrame:
    """Give every metric of every layer of the last checkpoints, one row a layer, one column a metric."""
    last = final_checkpoints(metrics[metrics["site"] != "output"])
    present = list(dict.fromkeys(last["metric"]))
    names = [name for name in METRICS if name in present] + [name for name in present if name not in METRICS]
    keys = ["model", "dataset", "rows", "layer", "site"]
    rows = []
    for key, of_layer in last.groupby(keys, sort=False):
        cells = of_layer.set_index("metric")
        values = {name: interval(cells.loc[name]) if name in cells.index else Cell("–", "") for name in names}
        rows.append(dict(zip(keys, key, strict=True)) | {"site": key[-1].replace("_", " ")} | values)
    return pd.DataFrame(rows)


def checkpoints(frame: pd.DataFrame) -> pd.DataFrame:
    """Give each checkpoint's loss on each dataset, the beginning of its weights' fingerprint, and the hub's audit."""
    shown = frame[["model", "kind", "checkpoint", "step", "tokens_seen", "dataset"]].copy()
    shown["loss, nats per token"] = [
        interval(row, "loss", "loss_low", "loss_high") for _, row in frame.iterrows()
    ]
    shown["weights (sha256)"] = frame["weights_sha256"].str.slice(0, 12)
    audited = ["verdict", "note"] if frame["verdict"].fillna("").any() else []
    return shown.join(frame[["duplicate_of", *audited, "flag"]])


def domes(profiles: pd.DataFrame) -> pd.DataFrame:
    """Give the profile of anisotropy over the blocks of each cell."""
    shown = profiles[["model", "checkpoint", "step", "dataset", "rows", "peak_layer", "peak_depth"]].copy()
    for name in ("height", "dome_index"):
        bounds = (name, f"{name}_low", f"{name}_high")
        shown[name] = [interval(row, *bounds) for _, row in profiles.iterrows()]
    return shown.assign(edges=profiles["edges"], flag=profiles["flag"])


def flags(metrics: pd.DataFrame) -> pd.DataFrame:
    """Count the flagged numbers by model, dataset, metric and reason, with one flag in full."""
    flagged = metrics[has_flag(metrics)]
    flagged = flagged.assign(reason=flagged["flag"].map(reason), missing=flagged["value"].isna())
    groups = flagged.groupby(["model", "dataset", "metric", "reason"], sort=False)
    counts = groups.agg(
        numbers=("flag", "size"),
        without_value=("missing", "sum"),
        checkpoints=("checkpoint", "nunique"),
        layers=("layer", _listed),
        example=("flag", "first"),
    )
    return counts.reset_index()


def _listed(layers: pd.Series) -> str:
    return ", ".join(str(layer) for layer in sorted(set(layers)))


def table(frame: pd.DataFrame) -> Table:
    """Turn a frame into what the page shows: numbers shortly, NaN as a dash, at most `MOST_ROWS` rows."""
    rows = [[_cell(value) for value in row] for row in frame.head(MOST_ROWS).itertuples(index=False)]
    return Table([str(name).replace("_", " ") for name in frame.columns], rows, len(frame))


def _cell(value: Any) -> Cell:
    if isinstance(value, Cell):
        return value
    if isinstance(value, str):
        return Cell(value, value)
    if pd.isna(value):
        return Cell("–", "")
    return Cell(_short(float(value)), float(value))


def _short(number: float) -> str:
    """Write a number without interval: whole from 1000 on, else with three digits."""
    whole = abs(number) >= 1000 or number == round(number)
    return f"{number:,.0f}" if whole else f"{number:.3g}"


def interval(
    row: pd.Series,
    name: str = "value",
    low: str = "ci_low",
    high: str = "ci_high",
    flag: str = "flag",
    *,
    apart_from: float = nan,
) -> Cell:
    """Write a number with its interval, 0.230 [0.211, 0.249], with no more decimals than the interval supports.

    A bound that is not `apart_from`, the threshold of a rule, is not written as if it were.
    """
    value, why = float(row[name]), str(row[flag] or "")
    if isnan(value):
        return Cell("–", "", why)
    if isnan(row[low]):
        return Cell(_short(value), value, why)
    return Cell(_with_bounds(value, float(row[low]), float(row[high]), apart_from), value, why)


def _with_bounds(value: float, low: float, high: float, threshold: float) -> str:
    if high == low or all(number == round(number) for number in (value, low, high)):
        return f"{_short(value)} [{_short(low)}, {_short(high)}]"
    most = MOST_DECIMALS + 2 * (low * high > 0)
    # The particle data group's rule: an error of 0.011 to 0.035 has two digits, one of 0.036 to 0.099 has one.
    decimals = min(max(2 - ceil(log10((high - low) / 2 / 0.355)), 0), most)
    while decimals < FINEST and any(bound != threshold == round(bound, decimals) for bound in (low, high)):
        decimals += 1
    # + 0.0: what rounds to 0 from below has no sign.
    written = [f"{round(number, decimals) + 0.0:,.{decimals}f}" for number in (value, low, high)]
    return f"{written[0]} [{written[1]}, {written[2]}]"
