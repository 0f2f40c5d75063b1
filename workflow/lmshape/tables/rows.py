"""Select rows of a study's tables: names in order, the first dataset, the last checkpoints, trajectories."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from lmshape.hub.integrity import DISTRUSTED


def in_order(column: pd.Series) -> list[str]:
    """Distinct names in the order of their first appearance."""
    return [str(name) for name in column.drop_duplicates()]


def first_dataset(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of each model's first dataset in the study's order: its text, for a model with a text of its own too."""
    place = frame["dataset"].map({name: place for place, name in enumerate(in_order(frame["dataset"]))})
    return frame[place == place.groupby(frame["model"]).transform("min")]


def final_checkpoints(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of the last checkpoint of each model: the greatest step, the later name where two share it."""
    last = frame.sort_values("step", kind="stable").groupby("model", sort=False)["checkpoint"].last()
    return frame[frame["checkpoint"].astype(str) == frame["model"].map(last).astype(str)]


def trajectories(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows with a known step (not negative), one checkpoint a step; models keep their order, steps rise.

    Checkpoints known to have the weights of another step are left out; the column
    `distrusted` names those of the row's model.
    """
    distrusted = frame["verdict"].isin(DISTRUSTED)
    known = frame[(frame["step"].fillna(-1) >= 0) & ~distrusted]
    keys = ["model", "step", "dataset", "site", "layer", "rows", "metric"]
    by_step = known.drop_duplicates(keys, keep="last").sort_values("step", kind="stable")
    rank = {model: place for place, model in enumerate(in_order(known["model"]))}
    ordered = by_step.iloc[np.argsort(by_step["model"].map(rank), kind="stable")]
    return ordered.assign(distrusted=named_by_model(frame[distrusted], ordered["model"]))


def named_by_model(frame: pd.DataFrame, models: pd.Series) -> list[str]:
    """Checkpoints of a table by step, as text, for each of `models`."""
    named = frame.sort_values("step", kind="stable").groupby("model")["checkpoint"].unique()
    return [", ".join(map(str, named.get(model, ()))) for model in models]


def has_flag(frame: pd.DataFrame) -> pd.Series:
    """Rows with a reason in `flag`, whether or not they carry a number."""
    return frame["flag"].notna() & (frame["flag"] != "")


def reason(flag: str) -> str:
    """Kind of a flag, without its numbers: the text before the colon."""
    return re.split(r":\s", str(flag), maxsplit=1)[0]
