"""Select the rows that a figure draws: last checkpoints, trajectories, a few named layers."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from lmshape.site import middle_layer, named_layers
from lmshape.tables.columns import GONE
from lmshape.tables.rows import in_order

COLUMNS = (
    "model kind checkpoint step dataset site layer depth rows metric value ci_low ci_high draws n_rows n_unique d flag "
    "verdict"
).split()
# What one number of the table belongs to, beside its metric.
PLACE = ("model", "checkpoint", "step", "dataset", "site", "layer", "rows")
VARIANT_NAMES = {"all": "all rows", "no_sink": "without sinks", "one_per_type": "one row per token id"}


def metric_rows(metrics: pd.DataFrame, *names: str) -> pd.DataFrame:
    """Rows of some metrics, in the order of `names` and in the columns that figures keep."""
    parts = [metrics.loc[metrics["metric"] == name, COLUMNS] for name in names]
    return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)


def with_null(frame: pd.DataFrame, metrics: pd.DataFrame, null: str) -> pd.DataFrame:
    """Add the column `null`: the value of the metric `null` at the same place, NaN where it was not measured."""
    values = metrics.loc[metrics["metric"] == null, [*PLACE, "value"]]
    return frame.merge(values.rename(columns={"value": "null"}), how="left", on=list(PLACE))


def with_named_layers(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of each model's named blocks, model by model, with the name in the column `band`."""
    inside = frame[frame["site"] == "block"]
    last = inside.groupby("model")["layer"].transform("max")
    names = {
        (blocks, layer): name for blocks in last.unique() for name, layer in named_layers(int(blocks)).items()
    }
    named = inside.assign(band=[names.get(pair) for pair in zip(last, inside["layer"], strict=True)])
    return grouped(named.dropna(subset="band"), "model").reset_index(drop=True)


def middle_blocks(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of each model's middle block."""
    blocks = frame[frame["site"] == "block"]
    return blocks[blocks["layer"] == blocks.groupby("model")["layer"].transform("max").map(middle_layer)]


def with_gone(frame: pd.DataFrame, checkpoints: pd.DataFrame | None) -> pd.DataFrame:
    """Add the column `gone`: whether the table `checkpoints` says that only tables are left of the checkpoint."""
    if checkpoints is None:
        return frame.assign(gone=False)
    names = ["model", "checkpoint"]
    gone = checkpoints.loc[checkpoints["note"].fillna("").str.contains(GONE), names]
    own, lost = (pd.MultiIndex.from_frame(rows[names].astype(str)) for rows in (frame, gone))
    return frame.assign(gone=own.isin(lost))


# What a panel shows


def grouped(frame: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """Sort rows by some columns, whose values keep the order in which they first appear."""
    return frame.sort_values([*columns], key=lambda column: pd.factorize(column)[0], kind="stable")


def with_choice(frame: pd.DataFrame) -> pd.DataFrame:
    """Name each choice of rows in the column `choice`."""
    return frame.assign(choice=frame["rows"].replace(VARIANT_NAMES))


def merge_twins(frame: pd.DataFrame, by: Sequence[str] = ()) -> pd.DataFrame:
    """Name each choice of rows in the column `choice`, and drop "no_sink" where it says what "all" says.

    It does where, for all values of a group of `by`, the two intervals overlap; a value without an interval is a
    point. The name of "all" then says so.
    """
    frame = with_choice(frame)
    groups = [group for _, group in frame.groupby(list(by), sort=False)] if by else [frame]
    return pd.concat([_merged(group) for group in groups]) if len(frame) else frame


def panel_per_choice(frame: pd.DataFrame) -> pd.DataFrame:
    """Merge the twins of each model, and name in the column `panel` its model and choice of rows."""
    frame = merge_twins(frame, ["model"])
    return frame.assign(panel=frame["model"] + "\n" + frame["choice"])


def _merged(frame: pd.DataFrame) -> pd.DataFrame:
    keys = [
        name for name in ("model", "dataset", "metric", "series", "site", "layer", "step") if name in frame
    ]
    ends = frame.assign(**{end: frame[end].fillna(frame["value"]) for end in ("ci_low", "ci_high")})
    every, without = (ends[ends["rows"] == rows].dropna(subset="value") for rows in ("all", "no_sink"))
    both = every.merge(without, on=keys, suffixes=("", "_without"))
    overlap = (both["ci_low"] <= both["ci_high_without"]) & (both["ci_low_without"] <= both["ci_high"])
    if both.empty or not overlap.all():
        return frame
    same = {VARIANT_NAMES["all"]: f"{VARIANT_NAMES['all']} (without sinks: intervals overlap)"}
    return frame[frame["rows"] != "no_sink"].replace({"choice": same})


def in_segments(frame: pd.DataFrame, x: str, by: Sequence[str]) -> pd.DataFrame:
    """Sort by `x`, and number in the column `segment` the pieces of each line that no missing value parts.

    The final norm, another space than the residual stream, is a piece of its own.
    """
    frame = frame.sort_values(x, kind="stable")
    segment = frame["value"].isna().groupby([frame[name] for name in by], sort=False, dropna=False).cumsum()
    if "site" in frame:
        segment = segment.mask(frame["site"] == "final_norm", -1)
    return frame.assign(segment=segment)


def few_models(frame: pd.DataFrame, most: int) -> list[str]:
    """Name the first `most` models, the first of every kind among them."""
    names, first = in_order(frame["model"]), in_order(frame.drop_duplicates("kind")["model"])
    chosen = [*first, *(name for name in names if name not in first)][:most]
    return [name for name in names if name in chosen]
