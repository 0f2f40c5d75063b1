"""95 % intervals from K disjoint draws of whole sequences, never from resampled rows.

Tokens of one sequence depend on each other, and a bootstrap of rows makes copies at distance 0 (it reads 0.27
where a dimension of 8.7 is true), so the draw is the unit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import stdtrit

from lmshape.geometry.checks import as_floats

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

UNBOUNDED = (-math.inf, math.inf)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number, its confidence interval, and the number of draws behind it."""

    value: float
    low: float
    high: float
    draws: int


def over_draws(
    values: ArrayLike, *, level: float = 0.95, bounds: tuple[float, float] = UNBOUNDED
) -> Estimate:
    """Estimate a number from its values on K independent draws.

    mean ± t · s / √K, with Student's t on K − 1 degrees of freedom: for estimates that can't be pooled, such
    as dimensions from the neighbors within a draw.

    Parameters
    ----------
    values : (K,) value of each draw, K ≥ 2
    level : coverage, between 0 and 1
    bounds : least and greatest value that the number can have; the interval is clipped to it

    Returns
    -------
    The estimate. Where a value is not finite the value is their mean and the interval NaN.
    """
    values = _as_draws(values, name="values")
    error = _standard_deviation(values) / math.sqrt(len(values))
    with np.errstate(invalid="ignore"):  # inf − inf within a mean is NaN, as intended
        mean = float(values.mean())
    return _student(mean, error, len(values), level=level, bounds=bounds)


def jackknife(
    pooled: float,
    left_out: ArrayLike,
    *,
    level: float = 0.95,
    bounds: tuple[float, float] = UNBOUNDED,
    step: float = 0.0,
) -> Estimate:
    """Estimate a number from all rows, with the delete-one-draw jackknife for its standard error.

    Its square is (K − 1)/K · Σ (θ_j − mean θ)² + step²/12, θ_j the number without draw j; the interval is
    pooled ± t · error, with Student's t on K − 1 degrees of freedom. The value is not corrected for bias.

    Parameters
    ----------
    pooled : the number on the rows of all draws
    left_out : (K,) the number without each draw, K ≥ 2; not rounded where `pooled` is
    level : coverage, between 0 and 1
    bounds : least and greatest value that the number can have; the interval is clipped to it
    step : what `pooled` is rounded to multiples of, 1 for a whole number: that adds step²/12, the variance of an
        even spread over a step, to the square of the error. 0 for a number that is not rounded

    Returns
    -------
    The estimate, whose value is `pooled`. Where a number is not finite the interval is NaN.

    References
    ----------
    Tukey 1958; Efron & Stein 1981, "The jackknife estimate of variance". Sheppard 1898 for the step.
    """
    left_out = _as_draws(left_out, name="left_out")
    draws = len(left_out)
    error = math.hypot(_standard_deviation(left_out) * (draws - 1) / math.sqrt(draws), step / math.sqrt(12))
    return _student(float(pooled), error, draws, level=level, bounds=bounds)


def _as_draws(values: ArrayLike, *, name: str) -> np.ndarray:
    array = as_floats(values)
    if array.ndim != 1 or len(array) < 2:
        raise ValueError(
            f"`{name}` has shape {array.shape}; an interval needs one value for each of 2 or more draws."
        )
    return array


def _standard_deviation(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if np.isfinite(values).all() else math.nan


def _student(
    value: float, error: float, draws: int, *, level: float, bounds: tuple[float, float]
) -> Estimate:
    if not 0 < level < 1:
        raise ValueError(f"`level` is {level}; a coverage lies between 0 and 1. Pass 0.95 for 95 %.")
    if not (math.isfinite(value) and math.isfinite(error)):
        return Estimate(value, math.nan, math.nan, draws)
    half = float(stdtrit(draws - 1, (1 + level) / 2)) * error
    low, high = np.clip([value - half, value + half], *bounds)
    return Estimate(value, float(low), float(high), draws)
