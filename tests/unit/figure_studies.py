"""Made-up tables of studies of several sizes: a dome that grows, a dimension that rises and falls, sinks, spikes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from spiking_runs import write_run

from lmshape.dynamics.phases import phases
from lmshape.figures.drawing import read_losses
from lmshape.tables.loss_spikes import write_spikes

DATASETS = ("wiki", "wiki-shuffled", "wiki-random")
STEPS = (0, 2, 8, 16, 64, 128, 384, 1024)
LONG = (0, *np.unique(np.round(np.geomspace(1, 143_000, 19)).astype(int)).tolist())
MEASURED = {
    "all": (
        "mean_cosine",
        "mean_cosine_centered",
        "anisotropy",
        "anisotropy_uncentered",
        "anisotropy_null",
        "anisotropy_without_position_0",
        "effective_rank",
        "participation_ratio",
        "id_twonn",
        "id_twonn_surrogate",
        "leading_share_position_0",
        "leading_share_position_0_null",
        "leading_share_other_sinks",
        "linearity_held_out",
        "linearity_residual_held_out",
        "linearity_null",
        *(f"id_gride_{n2}" for n2 in (2, 8, 64)),
        *(f"id_twonn_decimated_{part}" for part in (2, 4, 8)),
    ),
    "no_sink": ("anisotropy", "anisotropy_null", "id_twonn", "id_twonn_surrogate"),
    "one_per_type": ("id_twonn", "id_twonn_surrogate"),
}


@dataclass(frozen=True, slots=True)
class Model:
    """A made-up model; `sinks` says whether position 0 makes a dome of its anisotropy."""

    name: str
    kind: str = "decoder"
    blocks: int = 6
    steps: tuple[int, ...] = STEPS
    datasets: tuple[str, ...] = DATASETS
    sinks: bool = True

    @property
    def sites(self) -> list[tuple[str, int]]:
        inside = [("embedding" if layer == 0 else "block", layer) for layer in range(self.blocks + 1)]
        return [*inside, *[("final_norm", self.blocks)] * (self.kind == "decoder")]


def metrics_table(models: Sequence[Model]) -> pd.DataFrame:
    """Rows of the table `metrics`."""
    return pd.concat([_of_model(model) for model in models], ignore_index=True)


def _of_model(model: Model) -> pd.DataFrame:
    cells = [
        (step, dataset, site, layer, rows, metric)
        for step, dataset, (site, layer), rows in product(model.steps, model.datasets, model.sites, MEASURED)
        for metric in MEASURED[rows]
    ]
    frame = pd.DataFrame(cells, columns=["step", "dataset", "site", "layer", "rows", "metric"])
    frame = frame.assign(
        study="made-up", model=model.name, family="gpt_neox", kind=model.kind, parameters=1_200_000,
        checkpoint="checkpoint-" + frame["step"].astype(str), tokens_seen=2048.0 * frame["step"],
        depth=frame["layer"] / max(model.blocks, 1), draws=5, n_rows=5120, n_unique=4800, d=128, seed=0, flag="",
        verdict="",
    )  # fmt: skip
    value = _values(model, frame)
    width = np.where(frame["metric"].str.endswith(("_null", "_surrogate")), 0.0, 0.03 * np.abs(value))
    return frame.assign(value=value, ci_low=value - width, ci_high=value + width)


def _values(model: Model, frame: pd.DataFrame) -> np.ndarray:
    late = np.where(frame["step"] < 0, 1.0, np.log1p(frame["step"].clip(lower=0)) / np.log1p(143_000))
    depth, block = frame["depth"].to_numpy(), (frame["site"] == "block").to_numpy()
    dome = (0.85 if model.sinks else 0.1) * late**2 * np.exp(-(((depth - 0.5) / 0.3) ** 4)) * block
    without = np.where(model.sinks and frame["rows"] == "no_sink", 0.25, 1.0)
    dimension = 6 + 8 * np.sin(np.pi * late) + 3 * depth
    scale = pd.to_numeric(frame["metric"].str.extract(r"_([1-9]\d*)$")[0]).fillna(2).to_numpy()
    of_metric = {
        "mean_cosine": 0.5 + 0.3 * depth,
        "mean_cosine_centered": 0.001 + 0 * depth,
        "anisotropy": 0.05 + dome * without,
        "anisotropy_uncentered": 0.4 + 0.5 * dome,
        "anisotropy_null": 0.01 + 0 * depth,
        "anisotropy_without_position_0": 0.05 + 0.25 * dome,
        "effective_rank": 4 * dimension,
        "participation_ratio": 2 * dimension,
        "id_twonn_surrogate": 3 * dimension,
        "leading_share_position_0": 0.01 + dome if model.sinks else 0.01 + 0 * depth,
        "leading_share_position_0_null": 1 / 128 + 0 * depth,
        "leading_share_other_sinks": 0.05 * dome,
        "linearity_held_out": 0.98 - 0.02 * depth,
        "linearity_residual_held_out": 0.9 - 0.4 * depth,
        "linearity_null": 0.03 + 0 * depth,
    }
    value = dimension * np.where(frame["rows"] == "one_per_type", 1.6, 1.0) * (1 - 0.03 * np.log2(scale / 2))
    for metric, its in of_metric.items():
        value = np.where(frame["metric"] == metric, its, value)
    return value


def checkpoints_table(models: Sequence[Model], *, gone: Sequence[int] = ()) -> pd.DataFrame:
    """The table `checkpoints`, as far as figures read it; of the steps `gone` only the tables are left."""
    rows = [
        {"model": model.name, "checkpoint": f"checkpoint-{step}", "step": step, "verdict": ""}
        | {"note": "gone" if step in gone else ""}
        for model in models
        for step in model.steps
    ]
    return pd.DataFrame(rows)


def phases_table(metrics: pd.DataFrame) -> pd.DataFrame:
    """The table `phases` of these metrics."""
    followed = metrics[metrics["metric"].isin(["id_twonn", "effective_rank"]) & (metrics["step"] >= 0)]
    draws = 1 + 0.01 * np.random.default_rng(0).standard_normal((len(followed), 5))
    copies = list(followed["value"].to_numpy()[:, None] * draws)
    return phases(
        followed[followed["dataset"] == DATASETS[0]].assign(
            replicates=pd.Series(copies, followed.index), interval="draws"
        )
    )


def truncation_ranks(models: Sequence[Model]) -> pd.DataFrame:
    """The table `truncation_ranks`, as far as figures read it."""
    rows = [
        {"study": "made-up", "model": model.name, "kind": model.kind, "checkpoint": f"checkpoint-{model.steps[-1]}",
         "step": model.steps[-1], "dataset": DATASETS[0], "layer": layer, "depth": layer / model.blocks, "d": 128,
         "rows": "all", "whole_loss": 4.0, "draws": 5, "flag": "", "tolerance": tolerance, "rank": rank + layer,
         "rank_low": rank + layer - 1, "rank_high": rank + layer + 2}
        for model in models if model.kind == "decoder"
        for layer in range(model.blocks + 1)
        for tolerance, rank in {0.01: 33, 0.1: 15, 1.0: 5}.items()
    ]  # fmt: skip
    return pd.DataFrame(rows)


def spike_tables(folder: Path, runs: Mapping[str, int]) -> dict[str, pd.DataFrame]:
    """Tables and losses of runs with so many spikes each, measured while they trained."""
    files = {
        name: write_run(folder, name, spikes=count, seed=seed)
        for seed, (name, count) in enumerate(runs.items())
    }
    losses = {name: one["losses"] for name, one in files.items()}
    geometry = {name: one["geometry"] for name, one in files.items()}
    write_spikes(folder, study="made-up", losses=losses, logs={}, geometry=geometry)
    tables = {path.stem: pd.read_parquet(path) for path in folder.glob("*.parquet")}
    return tables | {"losses": read_losses(losses)}


NO_SPIKES = {
    "spikes": pd.DataFrame(columns=["run", "spike"]),
    "warnings": pd.DataFrame(columns=["source"]),
    "before_spikes": pd.DataFrame(),
    "losses": pd.DataFrame(columns=["run", "step", "loss"]),
}


def study(models: Sequence[Model], *, gone: Sequence[int] = ()) -> dict[str, pd.DataFrame]:
    """All that figures read of a study that trained nothing itself."""
    metrics = metrics_table(models)
    return {
        **NO_SPIKES,
        "metrics": metrics,
        "checkpoints": checkpoints_table(models, gone=gone),
        "phases": phases_table(metrics),
        "truncation_ranks": truncation_ranks(models),
    }


HOSTILE = "a$b$_c\\d{e}^\u202e\u200b🙂"  # right to left, of no width, in no font
STUDIES = {
    "embedded": (
        Model("wiki-decoder", sinks=False),
        Model("wiki-encoder", "encoder", datasets=("wiki",), sinks=False),
    ),
    "many models": tuple(
        Model(
            f"model-{i:02}",
            "encoder" if i > 8 else "decoder",
            4 + i % 3,
            steps=(1000,),
            datasets=("wiki", "wiki-random"),
        )
        for i in range(13)
    ),
    "many checkpoints": (Model("pythia-6.9b", blocks=32, steps=LONG, datasets=("wiki",)),),
    "least": (Model("one", blocks=1, steps=(-1,), datasets=("wiki",)),),
    "hostile": (
        Model(HOSTILE, steps=(200, 600, 1000)),
        Model(f"_{HOSTILE}", "encoder", steps=(200, 600, 1000)),
    ),
}
