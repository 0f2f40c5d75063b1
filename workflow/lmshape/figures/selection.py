"""Which rows of the metrics table a figure draws: last checkpoints, trajectories, a few layers with names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lmshape.hub.integrity import DISTRUSTED
from lmshape.site import named_layers
from lmshape.tables.rows import in_order, named_by_model

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
LEFT_OUT = "left_out"  # the column that names the models that are not shown


def metric_rows(metrics: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Rows of one metric, in the columns that figures keep."""
    return metrics.loc[metrics["metric"] == metric, COLUMNS].reset_index(drop=True)


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


def trusted(frame: pd.DataFrame, checkpoints: pd.DataFrame | None) -> pd.DataFrame:
    """Leave out checkpoints that the table `checkpoints` distrusts; the column `distrusted` names those of the model.

    Without that table, all rows.
    """
    bad = pd.DataFrame(columns=["model", "checkpoint", "step"])
    if checkpoints is not None and "verdict" in checkpoints:
        bad = checkpoints[checkpoints["verdict"].isin(DISTRUSTED)]
    pairs = set(zip(bad["model"], bad["checkpoint"], strict=True))
    chosen = [pair not in pairs for pair in zip(frame["model"], frame["checkpoint"], strict=True)]
    kept = frame[np.array(chosen, dtype=bool)]
    return kept.assign(distrusted=named_by_model(bad, kept["model"]))


def shown(frame: pd.DataFrame, *, most: int) -> pd.DataFrame:
    """Rows of the first `most` models, the first of every kind among them; the column `left_out` names the others."""
    kinds = frame.drop_duplicates("model").set_index("model")["kind"]
    first = [str(name) for name in kinds[~kinds.duplicated()].index][:most]
    others = [name for name in in_order(frame["model"]) if name not in first]
    chosen = {*first, *others[: max(most - len(first), 0)]}
    absent = [name for name in in_order(frame["model"]) if name not in chosen]
    return frame[frame["model"].isin(chosen)].assign(**{LEFT_OUT: ", ".join(absent)})


def left_out_note(frame: pd.DataFrame, table: str, *, most: int = 6) -> str:
    """Name the models that are not shown, and the table that has them; nothing where all are."""
    names = str(frame[LEFT_OUT].astype(object).fillna("").iloc[0]) if len(frame) else ""
    if not names:
        return ""
    return (
        f"Not shown, for want of room: {shortened(names.split(', '), most)}; they are in the table `{table}`."
    )


def shortened(names: Sequence[str], most: int) -> str:
    """Name the first few, and count the others."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
