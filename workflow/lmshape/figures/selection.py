"""Select the rows that a figure draws: last checkpoints, trajectories, a few named layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
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
    """Rows of each model's named blocks, with the name in the column `band`."""
    inside = frame[frame["site"] == "block"]
    parts = []
    for _, of_model in inside.groupby("model", sort=False):
        names = {layer: name for name, layer in named_layers(int(of_model["layer"].max())).items()}
        parts.append(of_model.assign(band=of_model["layer"].map(names)).dropna(subset="band"))
    return pd.concat(parts, ignore_index=True) if parts else inside.assign(band=pd.Series(dtype=str))


def middle_blocks(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of each model's middle block."""
    blocks = frame[frame["site"] == "block"]
    return blocks[blocks["layer"] == blocks.groupby("model")["layer"].transform("max").map(middle_layer)]


def with_gone(frame: pd.DataFrame, checkpoints: pd.DataFrame | None) -> pd.DataFrame:
    """Add the column `gone`: whether the table `checkpoints` says that only tables are left of the checkpoint."""
    if checkpoints is None or "note" not in checkpoints:
        return frame.assign(gone=False)
    gone = checkpoints[checkpoints["note"].fillna("").str.contains(GONE)]
    pairs = set(zip(gone["model"], gone["checkpoint"].astype(str), strict=True))
    own = zip(frame["model"], frame["checkpoint"].astype(str), strict=True)
    return frame.assign(gone=[pair in pairs for pair in own])


# What a panel shows


def grouped(frame: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """Sort rows by some columns, whose values keep the order in which they first appear."""
    ranks = [pd.factorize(frame[name])[0] for name in reversed(columns)]
    return frame.iloc[np.lexsort(ranks)]


def merge_twins(frame: pd.DataFrame, by: Sequence[str] = ()) -> pd.DataFrame:
    """Name each choice of rows in the column `choice`, and drop "no_sink" where it shows the same as "all".

    It is the same where, for all values of a group of `by`, the two intervals overlap; a value without an interval is a
    point. The name of "all" then says so.
    """
    frame = frame.assign(choice=frame["rows"].map(VARIANT_NAMES).fillna(frame["rows"]))
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
    every, without = (frame[frame["rows"] == rows] for rows in ("all", "no_sink"))
    if every.empty or without.empty:
        return frame
    both = every.merge(without, on=keys, suffixes=("", "_without")).dropna(subset=["value", "value_without"])
    low, high = (both[end].fillna(both["value"]) for end in ("ci_low", "ci_high"))
    low_without = both["ci_low_without"].fillna(both["value_without"])
    high_without = both["ci_high_without"].fillna(both["value_without"])
    if not len(both) or not ((low <= high_without) & (low_without <= high)).all():
        return frame
    same = f"{VARIANT_NAMES['all']} (without sinks: the same)"
    return frame[frame["rows"] != "no_sink"].assign(
        choice=lambda rows: rows["choice"].where(rows["rows"] != "all", same)
    )


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
    kinds = frame.drop_duplicates("model").set_index("model")["kind"]
    first = [str(name) for name in kinds[~kinds.duplicated()].index][:most]
    others = [name for name in in_order(frame["model"]) if name not in first]
    chosen = {*first, *others[: max(most - len(first), 0)]}
    return [name for name in in_order(frame["model"]) if name in chosen]
