"""Series that may warn of a spike: the geometry of each block, and what a user has without any.

The baselines need no geometry: level, slope and variance of the training loss, gradient norm, learning rate, the loss
on held-out tokens, and the size of activations. Each is taken at the steps of the geometry, from no later step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

GEOMETRIC = (
    "anisotropy",
    "effective_rank",
    "participation_ratio",
    "mean_cosine",
    "id_twonn",
    "id_twonn_types",
)
HELD_OUT = "loss_held_out"
BASELINES = (
    "loss_level",
    "loss_slope",
    "loss_variance",
    "gradient_norm",
    "learning_rate",
    HELD_OUT,
    "norm_median",
    "activation_max",
)
TRAILING = 10  # logged losses behind level, slope and variance
NO_LAYER = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A number of a run over training.

    Attributes
    ----------
    run, metric : names
    layer : block, `NO_LAYER` for what is of the whole run
    steps, values : (n,) rising; NaN where there is no number
    """

    run: str
    metric: str
    layer: int
    steps: np.ndarray
    values: np.ndarray

    @property
    def kind(self) -> str:
        """Geometric or baseline."""
        return "geometric" if self.metric in GEOMETRIC else "baseline"


def series_of(run: str, geometry: pd.DataFrame, losses: pd.DataFrame) -> list[Series]:
    """Return all series of a run, on the steps of its geometry.

    Parameters
    ----------
    run : name
    geometry : step, layer, metric, value, as `lmshape.monitor` writes them; metrics of neither kind are left out
    losses : step, loss and, if there are any, gradient_norm and learning_rate
    """
    steps = np.unique(geometry["step"].to_numpy(np.float64))
    found = []
    for (metric, layer), rows in geometry.groupby(["metric", "layer"], sort=False):
        name = HELD_OUT if metric == "loss" else metric
        if name in GEOMETRIC or name in BASELINES:
            values = np.full(len(steps), np.nan)
            values[np.searchsorted(steps, rows["step"])] = rows["value"].to_numpy(np.float64)
            place = NO_LAYER if name == HELD_OUT else int(layer)
            found.append(Series(run=run, metric=name, layer=place, steps=steps, values=values))
    logged = _of_losses(steps, losses)
    return found + [
        Series(run=run, metric=name, layer=NO_LAYER, steps=steps, values=values) for name, values in logged
    ]


def _of_losses(steps: np.ndarray, losses: pd.DataFrame) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the baselines of the log: of the last `TRAILING` rows up to each step, that step's loss included."""
    logged = losses["step"].to_numpy(np.float64)
    ends = np.searchsorted(logged, steps, side="right")
    lines = [_line(logged, losses["loss"].to_numpy(np.float64), end) for end in ends]
    yield from zip(("loss_level", "loss_slope", "loss_variance"), np.array(lines).T, strict=True)
    for name, rows in (("gradient_norm", TRAILING), ("learning_rate", 1)):
        if name in losses and losses[name].notna().any():
            with np.errstate(divide="ignore", invalid="ignore"):
                logarithms = np.log(losses[name].to_numpy(np.float64))
            yield name, np.array([_mean(logarithms[max(0, end - rows) : end]) for end in ends])


def _line(logged: np.ndarray, losses: np.ndarray, end: int) -> tuple[float, float, float]:
    """Fit a line to the last losses: its mean, its slope, and the logarithm of the variance about it."""
    inside = slice(max(0, end - TRAILING), end)
    x, y = logged[inside], losses[inside]
    finite = np.isfinite(y)
    if np.count_nonzero(finite) < TRAILING:
        return np.nan, np.nan, np.nan
    x = x - x.mean()
    level = y.mean()
    slope = float(x @ y / (x @ x))
    left = y - level - slope * x
    return float(level), slope, float(np.log(max(left @ left / (TRAILING - 2), 1e-300)))


def _mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else np.nan
