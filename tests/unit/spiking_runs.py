"""Files of a made-up study with spikes: losses, geometry and the table of metrics, for the station and the figure."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

REPOSITORY = Path(__file__).parents[2]
sys.path.append(str(REPOSITORY))  # `benchmarks` is a folder beside the library, not part of it

from benchmarks.planted_spikes import EVERY, STEPS, Precursor, planted_loss, planted_onsets, planted_series  # noqa: E402

NONE = Precursor()
SERIES: Mapping[str, Precursor] = {
    "id_twonn": Precursor(size=4),
    "effective_rank": NONE,
    "norm_median": NONE,
    "loss": Precursor(size=2, lead=6),
}


def write_run(
    folder: Path,
    name: str,
    *,
    spikes: int,
    seed: int,
    blocks: int = 2,
    series: Mapping[str, Precursor] = SERIES,
) -> dict[str, Path]:
    """Write loss.csv and, of each block, geometry.csv of a run; return both files."""
    rng = np.random.default_rng(seed)
    onsets = planted_onsets(rng, spikes) if spikes else []
    (folder / name).mkdir(parents=True, exist_ok=True)
    loss = planted_loss(rng, onsets).assign(learning_rate=0.01, gradient_norm=1 + rng.random(600))
    loss.to_csv(folder / name / "loss.csv", index=False)
    parts = []
    for layer in range(1, blocks + 1):
        for metric, precursor in series.items():
            if metric == "loss" and layer < blocks:
                continue
            values = 10 + planted_series(rng, onsets, precursor)
            steps = np.arange(0, STEPS, EVERY)
            parts.append(pd.DataFrame({"step": steps, "layer": layer, "metric": metric, "value": values}))
    pd.concat(parts).to_csv(folder / name / "geometry.csv", index=False)
    return {"losses": folder / name / "loss.csv", "geometry": folder / name / "geometry.csv"}


def metrics_of(models: Mapping[str, tuple[int, ...]], metric: str = "id_twonn") -> pd.DataFrame:
    """Rows of the table of metrics: each model at its steps, two datasets, two choices of rows."""
    rows = [
        {"model": model, "dataset": dataset, "site": "block", "step": step, "layer": layer, "rows": choice,
         "metric": metric, "value": 5.0 + step / 100 + layer}
        for model, steps in models.items()
        for step in steps
        for dataset in ("other", "wiki")
        for layer in (1, 2)
        for choice in ("all", "one_per_type", "no_sink")
    ]  # fmt: skip
    return pd.DataFrame(rows)
