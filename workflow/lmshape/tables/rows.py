"""Select rows of a study's tables: names in order, the first dataset, the last checkpoints, trajectories."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd

from lmshape.hub.integrity import DISTRUSTED


def in_order(column: pd.Series) -> list[str]:
    """Distinct names in the order of their first appearance."""
    return [str(name) for name in column.drop_duplicates()]


def by_dataset(frame: pd.DataFrame, datasets: Sequence[str]) -> pd.DataFrame:
    """Sort rows by dataset, in the order of `datasets` and others last; rows of a dataset keep their order."""
    return frame.sort_values("dataset", key=lambda column: _places(column, datasets), kind="stable")


def _places(column: pd.Series, order: Sequence[str]) -> pd.Series:
    """Place of each name in an order; the last for those that it lacks."""
    return column.map({name: place for place, name in enumerate(order)}).fillna(len(order))


def first_dataset(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of each model's first dataset in the study's order: its text, for a model with a text of its own too."""
    place = pd.Series(pd.factorize(frame["dataset"])[0], frame.index)
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
    models = in_order(known["model"])
    ordered = known.drop_duplicates(keys, keep="last").sort_values(
        ["model", "step"], key=lambda column: _places(column, models) if column.name == "model" else column
    )
    left_out = frame[distrusted].sort_values("step", kind="stable").groupby("model")["checkpoint"].unique()
    names = left_out.map(lambda checkpoints: ", ".join(map(str, checkpoints)))
    return ordered.assign(distrusted=[names.get(model, "") for model in ordered["model"]])


def has_flag(frame: pd.DataFrame) -> pd.Series:
    """Rows with a reason in `flag`, whether or not they carry a number."""
    return frame["flag"].notna() & (frame["flag"] != "")


def reason(flag: str) -> str:
    """Kind of a flag, without its numbers: the text before the colon."""
    return re.split(r":\s", str(flag), maxsplit=1)[0]
