"""Studies for the explorer: tables as the workflow writes them, of any number of cells, made up in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lmshape.dynamics.profiles import PROFILE_COLUMNS
from lmshape.metrics.registry import describe
from lmshape.tables.columns import COLUMNS
from lmshape.tables.study_tables import CHECKPOINT_COLUMNS

METRICS = [entry["name"] for entry in describe() if entry["family"] != "loss"]
MISSING, FLAGGED = "not finite: 3 of 640 rows", "fewer unique rows: 412 of 1024 per draw"


@dataclass(frozen=True)
class Run:
    """A model of a study: its checkpoints by step, the verdicts on some, its blocks, what it was measured on."""

    name: str
    steps: Sequence[int]
    blocks: int = 3
    kind: str = "decoder"
    datasets: Sequence[str] = ("wiki", "wiki-random")
    metrics: Sequence[str] = ("anisotropy", "anisotropy_null", "id_twonn", "id_twonn_surrogate", "norm_max")
    rows: Sequence[str] = ("all", "no_sink")
    verdicts: tuple[tuple[int, str], ...] = ()

    @property
    def places(self) -> list[tuple[str, int]]:
        blocks = [("block", layer) for layer in range(1, self.blocks + 1)]
        return [("embedding", 0), *blocks, ("final_norm", self.blocks)]


def metrics_table(runs: Sequence[Run], *, seed: int = 0) -> pd.DataFrame:
    """Numbers with intervals for every cell, place, choice of rows and metric; some without, some without a value."""
    frame = pd.concat([_rows(run) for run in runs], ignore_index=True)
    generator = np.random.default_rng(seed)
    value = generator.lognormal(size=len(frame)) * np.where(frame["metric"] == "norm_max", 1e4, 1.0)
    half = value * generator.uniform(0.001, 0.2, size=len(frame))
    bare = frame["metric"] == "norm_max"
    numbers = frame.assign(value=value, ci_low=value - half, ci_high=value + half)
    numbers.loc[bare, ["ci_low", "ci_high"]] = np.nan
    numbers.loc[bare, "flag"] = "no interval: a maximum of a sample has none"
    lost = (numbers["metric"] == "id_twonn") & (numbers["site"] == "embedding")
    numbers.loc[lost, ["value", "ci_low", "ci_high"]] = np.nan
    numbers.loc[lost, "flag"] = MISSING
    numbers.loc[(numbers["metric"] == "id_twonn") & (numbers["layer"] == 1), "flag"] = FLAGGED
    return numbers.reindex(columns=COLUMNS.names)


def _rows(run: Run) -> pd.DataFrame:
    axes = {
        "step": run.steps,
        "dataset": run.datasets,
        "place": range(len(run.places)),
        "rows": run.rows,
        "metric": run.metrics,
    }
    frame = pd.MultiIndex.from_product(axes.values(), names=list(axes)).to_frame(index=False)
    sites = (
        pd.DataFrame(run.places, columns=["site", "layer"]).iloc[frame.pop("place")].reset_index(drop=True)
    )
    verdicts = {step: "" for step in run.steps} | dict(run.verdicts)
    names = frame["step"].map(lambda step: "main" if step < 0 else f"step{step}")
    return pd.concat([frame, sites], axis=1).assign(
        study="made up", model=run.name, family="gpt_neox", kind=run.kind, parameters=1_000_000, checkpoint=names,
        tokens_seen=frame["step"].where(frame["step"] >= 0) * 1024.0, depth=sites["layer"] / run.blocks, draws=5,
        n_rows=5120, n_unique=4800, d=128, seed=0, flag="", verdict=frame["step"].map(verdicts),
    )  # fmt: skip


def write_tables(folder: Path, metrics: pd.DataFrame) -> Path:
    """Write the three tables that the explorer reads; a checkpoint with a verdict has a note, a hostile one its own."""
    folder.mkdir(parents=True)
    metrics.to_parquet(folder / "metrics.parquet")
    cells = metrics.drop_duplicates(["model", "checkpoint", "dataset"])
    known = cells["verdict"].map(str.isidentifier)
    notes = cells["verdict"].mask(known, "its shards say so")
    cells.assign(note=notes).reindex(columns=CHECKPOINT_COLUMNS.names).to_parquet(
        folder / "checkpoints.parquet"
    )
    pd.DataFrame(columns=PROFILE_COLUMNS.names).to_parquet(folder / "profiles.parquet")
    return folder
