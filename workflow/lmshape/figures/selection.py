"""Which rows of the metrics table a figure draws: last checkpoints, trajectories, a few layers with names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from lmshape.hub.integrity import DISTRUSTED
from lmshape.site import named_layers
from lmshape.tables.rows import in_order

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


def trusted(frame: pd.DataFrame, checkpoints: pd.DataFrame | None) -> pd.DataFrame:
    """Leave out checkpoints that the table `checkpoints` distrusts; the column `distrusted` names those of the model.

    Without that table, all rows.
    """
    bad: dict[str, list[str]] = {}
    if checkpoints is not None and "verdict" in checkpoints:
        doubtful = checkpoints[checkpoints["verdict"].isin(DISTRUSTED)].sort_values("step", kind="stable")
        bad = {str(model): list(names.unique()) for model, names in doubtful.groupby("model")["checkpoint"]}
    pairs = zip(frame["model"], frame["checkpoint"], strict=True)
    kept = frame[np.array([checkpoint not in bad.get(model, ()) for model, checkpoint in pairs], dtype=bool)]
    return kept.assign(distrusted=[", ".join(bad.get(model, ())) for model in kept["model"]])


LEFT_OUT = "left_out"  # the column that names the models that are not shown


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
    names = str(frame[LEFT_OUT].iloc[0]) if len(frame) else ""
    if not names:
        return ""
    return (
        f"Not shown, for want of room: {shortened(names.split(', '), most)}; they are in the table `{table}`."
    )


def shortened(names: Sequence[str], most: int) -> str:
    """Name the first few, and count the others."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


LEAST_MODELS = 3  # with fewer an interval over models says nothing
LEVEL = 0.95


class _Mean(NamedTuple):
    depth: np.ndarray
    value: np.ndarray
    ci_low: np.ndarray
    ci_high: np.ndarray
    null: np.ndarray


def kind_means(blocks: pd.DataFrame, *, logarithmic: bool) -> pd.DataFrame:
    """Average the models of each kind at the depths of the model with the fewest blocks, the others interpolated.

    Parameters
    ----------
    blocks : values of one metric, and its `null`, over the blocks of several models, of one or more choices of rows
    logarithmic : average logarithms, as for what is drawn on a logarithmic axis: the geometric mean

    Returns
    -------
    A row for each kind, choice of rows and depth: kind, rows, metric, depth, value, ci_low, ci_high (Student's t
    over models; NaN under three of them), null (the mean of theirs) and models, their number.
    """
    blocks = blocks[blocks["value"].notna() & ((blocks["value"] > 0) | (not logarithmic))]
    parts = []
    for (kind, rows), group in blocks.groupby(["kind", "rows"], sort=False):
        models = [of_model.sort_values("depth") for _, of_model in group.groupby("model", sort=False)]
        mean = _mean(models, logarithmic=logarithmic)
        head = {"kind": kind, "rows": rows, "metric": group["metric"].iloc[0], "models": len(models)}
        parts.append(pd.DataFrame(mean._asdict()).assign(**head))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _mean(models: list[pd.DataFrame], *, logarithmic: bool) -> _Mean:
    from scipy.special import stdtrit  # scipy.stats, with the same, takes a second to import

    coarsest = min(models, key=len)["depth"].to_numpy()
    depth = coarsest[coarsest >= max(model["depth"].iloc[0] for model in models) - 1e-9]
    scale, back = (np.log, np.exp) if logarithmic else (np.asarray, np.asarray)
    values, nulls = (
        scale([np.interp(depth, model["depth"], model[name].astype(float)) for model in models])
        for name in ("value", "null")
    )
    mean, count = values.mean(axis=0), len(models)
    half = np.full(len(depth), np.nan)
    if count >= LEAST_MODELS:
        half = stdtrit(count - 1, (1 + LEVEL) / 2) * values.std(axis=0, ddof=1) / np.sqrt(count)
    return _Mean(depth, *(back(end) for end in (mean, mean - half, mean + half, nulls.mean(axis=0))))


def model_counts(data: pd.DataFrame) -> dict[str, int]:
    """Count the models of each kind, decoders first."""
    kinds = data.drop_duplicates("model").groupby("kind")["model"].count()
    return {kind: int(kinds[kind]) for kind in sorted(in_order(data["kind"]))}
