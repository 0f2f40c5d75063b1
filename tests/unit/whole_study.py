"""Tables of a made-up study with everything in it, and the parts that the tests of single figures need."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from benchmarks.trajectories import GRIDS
from figure_tables import Model, metrics_table, profiles_table
from shape_tables import shape_tables
from spiking_runs import SERIES, write_run

from lmshape.dynamics.phases import phases
from lmshape.figures import FIGURES
from lmshape.tables.loss_spikes import write_spikes

TRAJECTORIES = {"id_twonn": [6.0, 9.0, 5.0], "effective_rank": [40.0, 8.0, 30.0]}
LAYERS, WIDTH = range(3), 16
RANKS = (0, 1, 2, 4, 8, 16)


def whole_study(folder: Path) -> dict[str, pd.DataFrame]:
    """All tables of a study that every figure draws something from."""
    small = Model("small", blocks=3, steps=(0, 700))
    shapes, measured = (
        shape_tables([Model("shapes", blocks=3, steps=(0, 16, 700))]),
        metrics_table((small,), ("text", "random")),
    )
    trajectories, truncated = phase_metrics(checkpoints=5), truncation_tables([small.name], rows=("all",))
    every = {
        **shapes,
        **truncated,
        **spike_tables(folder, {"a": 3, "calm": 0, "b": 2}),
        "metrics": pd.concat([measured, shapes["metrics"], trajectories], ignore_index=True),
        "profiles": profiles_table(measured),
        "phases": phases(trajectories),
    }
    return every


def phase_metrics(models: int = 1, checkpoints: int = 20, rows: tuple[str, ...] = ("all",)) -> pd.DataFrame:
    """Rows of the table of metrics as phases are found from them: a rise and fall, a fall and rise, at four blocks."""
    steps, generator = np.array(GRIDS[checkpoints]), np.random.default_rng(0)
    axis, parts = np.log10(1.0 + steps), []
    for place in range(models):
        for metric, heights in TRAJECTORIES.items():
            for choice in rows:
                value = np.exp(np.interp(axis, [0, 2.5, axis[-1]], np.log(heights)))
                draws = value[:, None] * (1 + 0.01 * generator.standard_normal((len(steps), 5)))
                frame = pd.DataFrame({"step": steps, "value": draws.mean(axis=1), "replicates": list(draws)})
                named = {"model": f"model-{place}", "metric": metric, "rows": choice}
                parts += [frame.assign(layer=layer, depth=layer / 4, **named) for layer in (1, 2, 3, 4)]
    frame = pd.concat(parts, ignore_index=True)
    return frame.assign(
        study="s", kind="decoder", checkpoint=frame["step"].astype(str), dataset="text", site="block",
        ci_low=frame["value"] * 0.98, ci_high=frame["value"] * 1.02, draws=5, n_rows=1, n_unique=1, d=128,
        interval="draws", flag="", verdict="",
    )  # fmt: skip


def _place(model: str, rows: str, layer: int) -> dict[str, object]:
    cell = {
        "study": "s",
        "model": model,
        "kind": "decoder",
        "checkpoint": "step9",
        "step": 9,
        "dataset": "wiki",
    }
    shape = {"layer": layer, "depth": layer / 2, "d": WIDTH, "rows": rows, "whole_loss": 4.0, "draws": 5}
    return {**cell, **shape, "flag": ""}


def truncation_tables(
    models: list[str], rows: tuple[str, ...] = ("all", "no_sink")
) -> dict[str, pd.DataFrame]:
    places = [_place(model, one, layer) for model in models for one in rows for layer in LAYERS]
    losses = [
        {**at, "variant": variant, "rank": rank, "loss": 4.0 + increase, "tokens": 50}
        | {
            "loss_increase": increase,
            "loss_increase_low": increase - 0.1,
            "loss_increase_high": increase + 0.1,
        }
        for at in places
        for variant in ("keep", "remove")
        for rank in RANKS
        for increase in [2.0 ** (1 - rank) if variant == "keep" and rank < WIDTH else 0.0]
    ]
    ranks = [
        {
            **at,
            "tolerance": tolerance,
            "rank": rank,
            "rank_low": rank - 1,
            "rank_high": rank + 2,
            "share_of_d": rank / 16,
        }
        for at in places
        for tolerance, rank in {0.01: 8, 0.1: 5, 1.0: 1}.items()
    ]
    metrics = [
        {**at, "site": "block" if at["layer"] else "embedding", "metric": name, "value": 3.0}
        | {"ci_low": 2.5, "ci_high": 3.5}
        for at in places
        for name in ("participation_ratio", "id_twonn")
    ]
    return {
        "truncation": pd.DataFrame(losses),
        "truncation_ranks": pd.DataFrame(ranks),
        "metrics": pd.DataFrame(metrics),
    }


def spike_tables(
    folder: Path, runs: Mapping[str, int], *, watched: bool = True, series: Mapping = SERIES
) -> dict:
    """Tables of a study of runs with so many spikes each."""
    files = {
        name: write_run(folder, name, spikes=count, seed=seed, series=series)
        for seed, (name, count) in enumerate(runs.items())
    }
    geometry = {name: one["geometry"] for name, one in files.items()} if watched else {}
    losses = {name: one["losses"] for name, one in files.items()}
    write_spikes(folder, study="made-up", losses=losses, logs={}, geometry=geometry)
    every = [pd.read_csv(path).assign(run=name) for name, path in losses.items()]
    none = pd.DataFrame(columns=["run", "step", "loss"])
    tables = {name: pd.read_parquet(folder / f"{name}.parquet") for name in FIGURES["spikes"].more_tables}
    return tables | {"losses": pd.concat(every) if every else none, "metrics": pd.DataFrame()}
