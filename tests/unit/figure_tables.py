"""Made-up tables for tests of figures: models as the article has them, a dome that grows, a dimension that bends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd

STEPS = (0, 16, 700)
DATASETS = ("wiki", "wiki-shuffled", "wiki-random")
COLUMNS = (
    "study model family kind parameters checkpoint step tokens_seen dataset site layer depth rows metric "
    "value ci_low ci_high draws n_rows n_unique d seed flag verdict"
).split()
SCALES = (
    *(f"id_gride_{n2}" for n2 in (2, 4, 8, 16, 32, 64)),
    *(f"id_twonn_decimated_{part}" for part in (2, 4, 8)),
)
ANISOTROPIES = ("anisotropy", "anisotropy_null")
DIMENSIONS = ("id_twonn", "id_twonn_surrogate")
LINEARITIES = (
    "linearity",
    "linearity_null",
    "linearity_held_out",
    "linearity_residual",
    "linearity_residual_held_out",
)
MEASURED = {
    "all": (*ANISOTROPIES, *DIMENSIONS),
    "no_sink": (*ANISOTROPIES, *DIMENSIONS),
    "one_per_type": DIMENSIONS,
}


@dataclass(frozen=True, slots=True)
class Model:
    """A made-up model; `lower` takes from the dome's height, `final_norm` says whether it has that site."""

    name: str
    kind: str = "decoder"
    blocks: int = 6
    steps: tuple[int, ...] = STEPS
    final_norm: bool = True
    lower: float = 0.0

    @property
    def sites(self) -> list[tuple[str, int]]:
        inside = [("embedding" if layer == 0 else "block", layer) for layer in range(self.blocks + 1)]
        return inside + [("final_norm", self.blocks)] * self.final_norm


MODELS = (
    Model("wiki-decoder"),
    Model("wiki-encoder", kind="encoder", final_norm=False),
)


def metrics_table(models: Sequence[Model] = MODELS, datasets: Sequence[str] = DATASETS) -> pd.DataFrame:
    """Rows of the table `metrics`; scales and linearity stand at each model's last step on the first dataset."""
    random = np.random.default_rng(0)
    return pd.concat([_of_model(model, datasets, random) for model in models], ignore_index=True)


def _of_model(model: Model, datasets: Sequence[str], random: np.random.Generator) -> pd.DataFrame:
    cells = [
        (step, dataset, site, layer, variant, metric)
        for step, dataset, (site, layer), variant in product(model.steps, datasets, model.sites, MEASURED)
        for metric in (*MEASURED[variant], *_of_the_last(model, step, dataset, datasets, variant))
    ]
    frame = pd.DataFrame(cells, columns=["step", "dataset", "site", "layer", "rows", "metric"])
    frame = frame.assign(
        study="synthetic", model=model.name, family="gpt_neox", kind=model.kind, parameters=1_200_000,
        checkpoint="checkpoint-" + frame["step"].astype(str), tokens_seen=2048.0 * frame["step"],
        depth=frame["layer"] / max(model.blocks, 1), draws=5, n_rows=5120, n_unique=4800, d=128, seed=0,
        verdict="",
    )  # fmt: skip
    value, width = _values(model, frame, random)
    dimension = frame["metric"].str.startswith("id_")
    frame = frame.assign(value=value, ci_low=np.maximum(value - width, 0), ci_high=value + width)
    flag = np.where(dimension & (frame["layer"] == 0), "fewer unique rows: 612 of 1024 per draw", "")
    return frame.assign(flag=flag)[COLUMNS]


def _of_the_last(
    model: Model, step: int, dataset: str, datasets: Sequence[str], variant: str
) -> tuple[str, ...]:
    # at every step they would make the table ten times as long
    if step != model.steps[-1] or dataset != datasets[0]:
        return ()
    return SCALES if variant == "one_per_type" else (*SCALES, *LINEARITIES)


def _values(model: Model, frame: pd.DataFrame, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Values and half the widths of their intervals."""
    metric, noise = frame["metric"], random.normal(0, 0.1, len(frame))
    linear = metric.str.startswith("linearity").to_numpy()
    anisotropy = (metric == "anisotropy").to_numpy()
    value = np.where(linear, _linearity(frame), _dimension(frame) + noise)
    value = np.where(anisotropy, _anisotropy(model, frame), value)
    value = np.where(metric == "anisotropy_null", 0.0105, value)
    width = np.where(metric.isin(["anisotropy_null", "linearity_null"]), 0.0, 0.4)
    return value, np.where(anisotropy | linear & (width > 0), 0.02, width)


def progress(step: pd.Series) -> np.ndarray:
    """Give the share of training that lies behind, 0 to 1, in logarithms; 1 where the step is unknown."""
    late = np.log1p(np.maximum(step, 0)) / np.log1p(700)
    return np.where(step < 0, 1.0, np.minimum(late, 1.0))


def _anisotropy(model: Model, frame: pd.DataFrame) -> np.ndarray:
    grown, depth = progress(frame["step"]), frame["depth"]
    if model.kind == "encoder":
        value = 0.05 + 0.04 * depth + 0.02 * grown
    else:
        height = np.where(frame["rows"] == "all", 0.85, 0.25) * (1 - model.lower) * grown**2
        value = 0.04 + height * np.exp(-(((depth - 0.5) / 0.28) ** 4))
    return np.where(frame["site"] == "final_norm", 0.4 * value, value)


def _dimension(frame: pd.DataFrame) -> np.ndarray:
    """A dimension at some scale; one row of each token type as the study found it: 30, then 5.5, then 9."""
    late, depth, metric = progress(frame["step"]), frame["depth"], frame["metric"]
    surrogate = 33 - 9 * late + 4 * depth
    scale = pd.to_numeric(metric.str.extract(r"_(\d+)$")[0]).fillna(2)
    fall = np.where(
        metric.str.contains("gride"), 1 - 0.04 * np.log2(scale), 1 + 0.05 * np.log2(scale / 2 + 1)
    )
    peak = frame["dataset"].map({"wiki": 6.0, "wiki-shuffled": 4.0}).fillna(2.0)
    plain = 12 + 6 * depth + peak * np.sin(np.pi * late) - 5 * late * depth
    by_type = 5.5 + (surrogate - 5.5) * np.maximum(1 - late / 0.75, 0) ** 2 + 14 * np.maximum(late - 0.75, 0)
    share = np.where(frame["rows"] == "no_sink", 0.35, 0.4)
    value = fall * np.where(frame["rows"] == "one_per_type", by_type, share * plain)
    return np.where(metric == "id_twonn_surrogate", surrogate, value)


def _linearity(frame: pd.DataFrame) -> np.ndarray:
    """In sample a little higher than held out; the update alone, less linear than the block's output."""
    metric, depth = frame["metric"], frame["depth"]
    value = np.where(metric.str.contains("residual"), 0.9 - 0.4 * depth, 0.99 - 0.02 * depth)
    value = np.where(metric.str.contains("held_out"), value - 0.03, value)
    return np.where(metric == "linearity_null", 0.025, value)


def profiles_table(metrics: pd.DataFrame) -> pd.DataFrame:
    """The table `profiles` of these metrics, as far as figures read it."""
    blocks = metrics[(metrics["metric"] == "anisotropy") & (metrics["site"] == "block")]
    keys = ["model", "kind", "checkpoint", "step", "dataset", "rows"]
    rows = []
    for cell, profile in blocks.groupby(keys, sort=False):
        values = profile.set_index("layer")["value"]
        index = values.max() - max(values.iloc[0], values.iloc[-1])
        rows.append((*cell, values.max(), index, max(index - 0.02, 0), index + 0.02, 0.03, ""))
    names = ["height", "dome_index", "dome_index_low", "dome_index_high", "dome_index_null", "flag"]
    return pd.DataFrame(rows, columns=[*keys, *names]).assign(metric="anisotropy")


def loss_table(*, spike: bool) -> pd.DataFrame:
    """A loss of 700 steps that falls from 7.6 to about 4.2, with a spike at steps 350 to 420 if asked for."""
    step = np.arange(1, 701)
    loss = 4.2 + 3.4 * np.exp(-step / 60) + np.random.default_rng(1).normal(0, 0.06, 700)
    if spike:
        loss += np.where((step >= 350) & (step < 420), 1.6 * np.exp(-(step - 350) / 40), 0)
    return pd.DataFrame(
        {"step": step, "tokens": step * 2048, "loss": loss, "learning_rate": 1e-3, "gradient_norm": 1.0}
    )


def tables(
    metrics: pd.DataFrame | None = None, losses: Mapping[str, pd.DataFrame] | None = None
) -> dict[str, pd.DataFrame]:
    """All that figures read of a study."""
    runs = [table.assign(run=run) for run, table in (losses or {}).items()]
    metrics = metrics_table() if metrics is None else metrics
    return {
        "metrics": metrics,
        "profiles": profiles_table(metrics),
        "losses": pd.concat(runs) if runs else pd.DataFrame(columns=["run", "step", "loss"]),
    }
