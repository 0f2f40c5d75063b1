"""Made-up tables for the figures of shapes: spectra that steepen, clouds whose position 0 moves off, its shares."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from figure_tables import COLUMNS, Model

from lmshape.site import named_layers

SHARES = {  # metric → value once training is over, in a decoder's middle blocks
    "leading_share_position_0": 0.7,
    "leading_share_other_sinks": 0.2,
    "leading_share_first_newline": 0.15,
    "leading_share_rest": 0.1,
}
NULLS = {"leading_share_position_0_null": 1 / 128, "leading_share_other_sinks_null": 0.002}
ANISOTROPIES = {"anisotropy": 0.9, "anisotropy_without_position_0": 0.6, "anisotropy_null": 0.0105}
RANKS = np.unique(np.round(np.geomspace(1, 128, 60)).astype(int))


def grown(model: Model, step: int) -> float:
    return np.log1p(max(step, 0)) / np.log1p(max(model.steps[-1], 1)) if model.kind == "decoder" else 0.0


def leading_rows(models: Sequence[Model]) -> pd.DataFrame:
    """Rows of the table `metrics`; position 0 takes the leading axis of a decoder's blocks as it learns."""
    cells = [
        (model, step, site, layer, rows, metric)
        for model in models
        for step in model.steps
        for site, layer in model.sites
        for rows in ("all", "no_sink")
        for metric in (*SHARES, *NULLS, *ANISOTROPIES)
    ]
    return pd.DataFrame([_leading_row(*cell) for cell in cells], columns=COLUMNS)


def _leading_row(model: Model, step: int, site: str, layer: int, rows: str, metric: str) -> dict[str, object]:
    late = grown(model, step) if site == "block" and rows == "all" else 0.0
    depth = layer / max(model.blocks, 1)
    ordinary = {"leading_share_rest": 1 - 1 / 128, "leading_share_position_0": 1 / 128}.get(metric, 0.0)
    if metric in NULLS:
        value = NULLS[metric]
    elif metric in SHARES:
        value = ordinary + late * (SHARES[metric] - ordinary)
    else:
        value = 0.1 + late * (ANISOTROPIES[metric] - 0.1) * (1 - 0.3 * abs(depth - 0.6))
        value = ANISOTROPIES[metric] if metric == "anisotropy_null" else value
    width = 0.0 if metric.endswith("_null") else 0.02
    place = {"site": site, "layer": layer, "depth": depth, "rows": rows, "metric": metric}
    cell = {
        "study": "s",
        "model": model.name,
        "family": "gpt_neox",
        "kind": model.kind,
        "parameters": 10**6,
        "checkpoint": f"checkpoint-{step}",
        "step": step,
        "tokens_seen": float(step),
        "dataset": "wiki",
    }
    counts = {
        "draws": 5,
        "n_rows": 6400,
        "n_unique": 6400,
        "d": 128,
        "seed": 0,
        "flag": "",
        "verdict": "",
    }
    return {**cell, **place, "value": value, "ci_low": value - width, "ci_high": value + width, **counts}


def spectra_table(models: Sequence[Model]) -> pd.DataFrame:
    """The table `spectra`: a power law whose exponent grows, with one outlying axis in all rows of a decoder."""
    parts = []
    for model in models:
        for band, layer in named_layers(model.blocks).items():
            for step in model.steps:
                for rows in ("all", "no_sink"):
                    share = RANKS ** -(0.2 + 1.5 * grown(model, step))
                    share[0] *= 1 + 40 * grown(model, step) * (rows == "all")
                    parts.append(_spectrum(model, (band, layer, step, rows), share / share.sum()))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _spectrum(model: Model, place: tuple[str, int, int, str], share: np.ndarray) -> pd.DataFrame:
    band, layer, step, rows = place
    return pd.DataFrame(
        {
            "study": "s", "model": model.name, "kind": model.kind, "checkpoint": f"checkpoint-{step}",
            "step": step, "dataset": "wiki", "site": "block", "layer": layer, "depth": layer / model.blocks,
            "band": band, "rows": rows, "rank": RANKS, "share": share, "ci_low": 0.9 * share,
            "ci_high": 1.1 * share, "null": np.geomspace(0.0101, 0.006, len(RANKS)), "draws": 5,
            "n_rows": 6400, "d": 128, "flag": "",
        }
    )  # fmt: skip


def clouds_table(models: Sequence[Model]) -> pd.DataFrame:
    """The table `clouds`: 40 ordinary rows and 5 at position 0, which move off along axis 1 in a decoder."""
    parts = []
    for model in models:
        places = [(*named, step) for named in named_layers(model.blocks).items() for step in model.steps[::4]]
        parts += [_cloud(model, *place) for place in places]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _cloud(model: Model, band: str, layer: int, step: int) -> pd.DataFrame:
    rows = np.random.default_rng(layer).standard_normal((45, 3)) * [1.0, 0.7, 0.4]
    rows[:5, 0] += 60 * grown(model, step)
    return pd.DataFrame(
        {
            "study": "s", "model": model.name, "kind": model.kind, "checkpoint": f"checkpoint-{step}",
            "step": step, "dataset": "wiki", "site": "block", "layer": layer, "depth": layer / model.blocks,
            "band": band, "rows": "all", "draw": 0, "position": np.arange(45), "token": np.arange(45),
            "text": "'a'", "group": np.repeat(["position_0", "rest"], [5, 40]),
            "weight": np.repeat([1.0, 100.0], [5, 40]), "axis_1": rows[:, 0], "axis_2": rows[:, 1],
            "axis_3": rows[:, 2], "share_1": 0.5, "share_2": 0.2, "share_3": 0.1, "n_rows": 4005, "d": 128,
            "flag": "",
        }
    )  # fmt: skip


def shape_tables(models: Sequence[Model]) -> dict[str, pd.DataFrame]:
    """All that the figures of shapes read."""
    return {
        "metrics": leading_rows(models),
        "spectra": spectra_table(models),
        "clouds": clouds_table(models),
    }
