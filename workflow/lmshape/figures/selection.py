"""Which rows of the metrics table a figure draws: last checkpoints, trajectories, a few layers with names."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from lmshape.bands import middle_layer as middle_layer
from lmshape.bands import named_layers as named_layers
from lmshape.hub.integrity import DISTRUSTED

COLUMNS = [
    "model",
    "kind",
    "checkpoint",
    "step",
    "dataset",
    "site",
    "layer",
    "depth",
    "rows",
    "metric",
    "value",
    "ci_low",
    "ci_high",
    "draws",
    "n_rows",
    "n_unique",
    "d",
    "flag",
    "verdict",
]
# What one number of the table belongs to, beside its metric.
PLACE = ("model", "checkpoint", "step", "dataset", "site", "layer", "rows")


def in_order(column: pd.Series) -> list[str]:
    """Distinct names in the order of their first appearance."""
    return [str(name) for name in column.drop_duplicates()]


def metric_rows(metrics: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Rows of one metric, in the columns that figures keep."""
    return metrics.loc[metrics["metric"] == metric, COLUMNS].reset_index(drop=True)


def first_dataset(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of each model's first dataset in the study's order: its text, for a model with a text of its own too."""
    place = frame["dataset"].map({name: place for place, name in enumerate(in_order(frame["dataset"]))})
    return frame[place == place.groupby(frame["model"]).transform("min")]


def dataset_names(frame: pd.DataFrame) -> str:
    """Datasets of a table, for a title."""
    return ", ".join(in_order(frame["dataset"]))


def variant(frame: pd.DataFrame, rows: str) -> pd.DataFrame:
    """Rows of the table computed with `rows` ("all", "no_sink"), or with the first choice there is."""
    present = in_order(frame["rows"])
    return frame[frame["rows"] == (rows if rows in present or not present else present[0])]


def with_one_per_type(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of the table computed with `all`, or the first choice there is, then those with `one_per_type`."""
    chosen = variant(frame, "all")
    control = frame[(frame["rows"] == "one_per_type") & ~frame.index.isin(chosen.index)]
    return pd.concat([chosen, control])


def final_checkpoints(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of the last checkpoint of each model: the greatest step, the later name where two share it."""
    last = frame.sort_values("step", kind="stable").groupby("model", sort=False)["checkpoint"].last()
    return frame[frame["checkpoint"].astype(str) == frame["model"].map(last).astype(str)]


def trajectories(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows with a known step (not negative), one checkpoint a step; models keep their order, steps rise.

    Checkpoints whose weights are not those of their step, as far as the hub tells, are left out; the column
    `distrusted` names those of the row's model.
    """
    distrusted = frame["verdict"].isin(DISTRUSTED)
    known = frame[(frame["step"].fillna(-1) >= 0) & ~distrusted]
    keys = ["model", "step", "dataset", "site", "layer", "rows", "metric"]
    by_step = known.drop_duplicates(keys, keep="last").sort_values("step", kind="stable")
    rank = {model: place for place, model in enumerate(in_order(known["model"]))}
    ordered = by_step.iloc[np.argsort(by_step["model"].map(rank), kind="stable")]
    return ordered.assign(distrusted=_named_by_model(frame[distrusted], ordered["model"]))


def _named_by_model(frame: pd.DataFrame, models: pd.Series) -> list[str]:
    """Checkpoints of a table by step, as text, for each of `models`."""
    named = frame.sort_values("step", kind="stable").groupby("model")["checkpoint"].unique()
    return [", ".join(map(str, named.get(model, ()))) for model in models]


def with_named_layers(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of each model's named layers, with the name in the column `band`: blocks, no other site."""
    inside = frame[frame["site"] == "block"]
    parts = []
    for _, of_model in inside.groupby("model", sort=False):
        names = {layer: name for name, layer in named_layers(int(of_model["layer"].max())).items()}
        parts.append(of_model.assign(band=of_model["layer"].map(names)).dropna(subset="band"))
    return pd.concat(parts, ignore_index=True) if parts else inside.assign(band=pd.Series(dtype=str))


def with_null(frame: pd.DataFrame, metrics: pd.DataFrame, null: str) -> pd.DataFrame:
    """Add the column `null`: the value of the metric `null` at the same place, NaN where it was not measured."""
    values = metrics.loc[metrics["metric"] == null, [*PLACE, "value"]]
    return frame.merge(values.rename(columns={"value": "null"}), how="left", on=list(PLACE))


def has_flag(frame: pd.DataFrame) -> pd.Series:
    """Rows with a reason in `flag`, whether or not they carry a number."""
    return frame["flag"].notna() & (frame["flag"] != "")


def reason(flag: str) -> str:
    """Kind of a flag, without its numbers: the text before the colon."""
    return re.split(r":\s", str(flag), maxsplit=1)[0]
