"""Decoders and encoders as groups: the mean of a kind's models over relative depth, with an interval over models."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from lmshape.figures import selection

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
    return {kind: int(kinds[kind]) for kind in sorted(selection.in_order(data["kind"]))}
