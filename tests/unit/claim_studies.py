"""Made-up studies with known truth: curves by layer and step, measured on draws with noise."""

from __future__ import annotations

from collections.abc import Mapping
from math import nan

import numpy as np
import pandas as pd

from lmshape.claims.evidence import Evidence

DRAWS = 5
ORDERS = {"wiki": "text", "wiki-shuffled": "shuffled", "wiki-random": "random"}


def rows_of(
    truth: np.ndarray,
    rng: np.random.Generator,
    *,
    metric: str = "anisotropy",
    noise: float = 0.01,
    steps: list[int] | None = None,
    interval: str = "jackknife",
    **cell: object,
) -> list[dict]:
    """Rows of a metric whose true values are `truth` (steps, layers), or (layers,) for one step.

    A draw adds noise of its own to each number, and as much to all layers of a step together.
    """
    truth = np.atleast_2d(truth)
    steps = steps or [2**i for i in range(len(truth))]
    shape = (DRAWS, *truth.shape)
    common = rng.standard_normal((DRAWS, len(truth), 1))
    drawn = truth + noise * np.sqrt(DRAWS) * (rng.standard_normal(shape) + common) / np.sqrt(2)
    rows = []
    for i, step in enumerate(steps):
        for j in range(truth.shape[1]):
            values = drawn[:, i, j]
            left_out = (values.sum() - values) / (DRAWS - 1)
            made_of = values if interval == "draws" else np.array([values.mean(), *left_out])
            place = {"step": step, "checkpoint": f"step{step}", "site": "block", "layer": j + 1}
            known = {"depth": (j + 1) / truth.shape[1], "metric": metric, "value": values.mean()}
            rows.append(
                {
                    "study": "made-up",
                    "model": "m",
                    "family": "gpt_neox",
                    "kind": "decoder",
                    "parameters": 10**8,
                    "dataset": "wiki",
                    "rows": "all",
                    "d": 128,
                    "flag": "",
                    "verdict": "",
                    **place,
                    **known,
                    "tokens_seen": nan,
                    "ci_low": values.mean() - noise,
                    "ci_high": values.mean() + noise,
                    "interval": interval,
                    "replicates": made_of,
                    **cell,
                }  # fmt: skip
            )
    return rows


def study_of(*parts: list[dict], tables: Mapping[str, pd.DataFrame] | None = None) -> Evidence:
    """Evidence of rows and of the tables that are given."""
    metrics = pd.DataFrame([row for part in parts for row in part])
    return Evidence.of(metrics, tables=dict(tables or {}), orders=ORDERS)
