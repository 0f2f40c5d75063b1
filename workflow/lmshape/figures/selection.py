"""Which rows of the metrics table a figure draws: last checkpoints, trajectories, a few layers with names."""

from __future__ import annotations

import pandas as pd

from lmshape.bands import middle_layer as middle_layer
from lmshape.bands import named_layers as named_layers
from lmshape.tables.rows import final_checkpoints as final_checkpoints
from lmshape.tables.rows import first_dataset as first_dataset
from lmshape.tables.rows import has_flag as has_flag
from lmshape.tables.rows import in_order as in_order
from lmshape.tables.rows import reason as reason
from lmshape.tables.rows import trajectories as trajectories

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


def metric_rows(metrics: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Rows of one metric, in the columns that figures keep."""
    return metrics.loc[metrics["metric"] == metric, COLUMNS].reset_index(drop=True)


def dataset_names(frame: pd.DataFrame) -> str:
    """Datasets of a table, for a title."""
    return ", ".join(in_order(frame["dataset"]))


def variant(frame: pd.DataFrame, rows: str) -> pd.DataFrame:
    """Rows of the table computed with `rows` ("all", "no_sink"), or with the first choice there is."""
    present = in_order(frame["rows"])
    return frame[frame["rows"] == (rows if rows in present or not present else present[0])]


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
