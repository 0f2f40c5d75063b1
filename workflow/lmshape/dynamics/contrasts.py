"""Encoders against decoders: how much higher, and how much more of a dome, the profiles of decoders are.

A difference between kinds is one between models: the interval that says something of kinds comes from the spread over
models, and needs two on each side. With one on a side there is only the difference between these models, whose
interval is that of their tokens, and `basis` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import isfinite, nan, sqrt
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import gammaln, nctdtrinc, stdtr, stdtrit

from lmshape.dynamics.noise import LEVEL, replicated
from lmshape.dynamics.profiles import PROFILED, excess, last_checkpoint
from lmshape.tables.columns import Row, declare, integer, interval, interval_of, joined, real, shared, text


def welch(difference: float, errors: Sequence[float], freedom: Sequence[int]) -> tuple[float, float, float]:
    """Return the ends of the 95 % interval of a difference, and the two-sided p-value of its being 0.

    Parameters
    ----------
    difference : of two means
    errors : squared standard error of each mean; where one is NaN, so is all
    freedom : degrees of freedom of each error

    References
    ----------
    Welch 1947, "The generalization of Student's problem when several different population variances are involved".
    """
    total = sum(errors)
    if not isfinite(total):
        return nan, nan, nan
    if total == 0:
        return difference, difference, float(difference == 0)
    degrees = total**2 / sum(error**2 / count for error, count in zip(errors, freedom, strict=True))
    half = float(stdtrit(degrees, (1 + LEVEL) / 2)) * sqrt(total)
    p = 2 * float(stdtr(degrees, -abs(difference) / sqrt(total)))
    return difference - half, difference + half, p


def between(one: np.ndarray, two: np.ndarray) -> tuple[float, float, float]:
    """Return `welch` of the means of two groups whose members' spread is the error."""
    errors = [side.var(ddof=1) / len(side) for side in (one, two)]
    return welch(float(one.mean() - two.mean()), errors, [len(one) - 1, len(two) - 1])


def hedges(one: np.ndarray, two: np.ndarray) -> tuple[float, float, float]:
    """Return Hedges' g of two groups, and the ends of its 95 % interval, exact for normal groups of equal variance.

    g = J (mean₁ − mean₂)/s, s the pooled standard deviation, J the correction for few members, without which g is too
    large. The interval is that of the noncentral t. NaN where no group has any spread.

    Parameters
    ----------
    one, two : (n₁,), (n₂,) with two members or more each

    References
    ----------
    Hedges 1981, "Distribution theory for Glass's estimator of effect size and related estimators".
    """
    freedom = len(one) + len(two) - 2
    pooled = sqrt(((len(one) - 1) * one.var(ddof=1) + (len(two) - 1) * two.var(ddof=1)) / freedom)
    if pooled == 0:
        return nan, nan, nan
    correction = np.exp(gammaln(freedom / 2) - gammaln((freedom - 1) / 2)) / sqrt(freedom / 2)
    scale = sqrt(1 / len(one) + 1 / len(two))
    t = float((one.mean() - two.mean()) / (pooled * scale))
    low, high = (float(nctdtrinc(freedom, tail, t)) for tail in ((1 + LEVEL) / 2, (1 - LEVEL) / 2))
    unit = float(correction) * scale
    return unit * t, unit * low, unit * high


# quantity of a profile → what it is, and the function of (…, L) numbers that gives it
QUANTITIES: dict[str, tuple[str, Callable[[np.ndarray], Any]]] = {
    "height": ("largest value of a block", partial(np.max, axis=-1)),
    "dome_index": ("that less the larger of the first and the last block's", excess),
    "mean": ("mean over the blocks", partial(np.mean, axis=-1)),
}

CONTRAST_COLUMNS = declare(
    *shared("study dataset rows"),
    text(
        "metric",
        "the metric whose profile over the blocks is compared, at each model's last trusted checkpoint",
    ),
    text("quantity", "; ".join(f"{name}: {meaning}" for name, (meaning, _) in QUANTITIES.items())),
    integer("decoders", "number of decoders; those that the registry calls unstable are left out"),
    integer("encoders", "number of encoders"),
    real("decoder_mean", "mean of the quantity over the decoders"),
    real("encoder_mean", "mean of the quantity over the encoders"),
    *interval(
        real,
        "difference",
        "decoder_mean less encoder_mean",
        ": over models (Welch), or over draws where basis is blocks",
    ),
    real("p", "two-sided p-value of no difference, from the same t"),
    *interval(real, "effect", "the difference in standard deviations: Hedges' g over models, or over blocks"),
    text(
        "basis",
        "models: two or more on each side; blocks: fewer, so that the deviation is that of the values over the blocks "
        "of a model, and nothing is said of other models",
    ),
    text("flag", "the reason of an empty value; empty when fine"),
)


def contrasts(metrics: pd.DataFrame, metric: str = PROFILED) -> pd.DataFrame:
    """Compare the profiles of decoders with those of encoders, on each dataset and choice of rows.

    Parameters
    ----------
    metrics : rows of the models' own tables (`lmshape.tables.columns.MODEL_COLUMNS`)

    Returns
    -------
    The columns of CONTRAST_COLUMNS: a row for each dataset, choice of rows and quantity; NaN with a flag where one
    kind is absent.
    """
    curves = metrics[(metrics["metric"] == metric) & (metrics["site"] == "block")]
    rows = [
        {"study": lines["study"].iloc[0], "dataset": dataset, "rows": choice, "metric": metric} | row
        for (dataset, choice), lines in curves.groupby(["dataset", "rows"], sort=False)
        for row in _rows(lines)
    ]
    return pd.DataFrame(rows, columns=CONTRAST_COLUMNS.names)


def _rows(lines: pd.DataFrame) -> Iterator[Row]:
    kinds = lines.drop_duplicates("model").set_index("model")["kind"]
    profiles = {model: _last_profile(own) for model, own in lines.groupby("model", sort=False)}
    for quantity, (_, function) in QUANTITIES.items():
        sides: dict[str, list[np.ndarray]] = {"decoder": [], "encoder": []}
        values = {name: function(profile[0]) for name, profile in profiles.items() if profile.size}
        for name, value in values.items():
            if np.isfinite(value):
                sides[kinds[name]].append(profiles[name])
        row: Row = {"quantity": quantity} | {f"{kind}s": len(side) for kind, side in sides.items()}
        missing = [kind for kind, side in sides.items() if not side]
        if missing:
            yield row | {"flag": f"no {' and no '.join(missing)} with a whole profile"}
        else:
            yield row | _compared(function, *sides.values())


def _last_profile(of_model: pd.DataFrame) -> np.ndarray:
    """(K + 1, L): the profile of the last trusted checkpoint, with all draws and without each."""
    last = of_model[of_model["checkpoint"] == last_checkpoint(of_model)]
    return replicated(last.sort_values("layer", kind="stable"))


def _compared(
    function: Callable[[np.ndarray], Any], decoders: list[np.ndarray], encoders: list[np.ndarray]
) -> Row:
    """Compare a quantity of the last profiles of decoders and encoders, which are one or more on each side."""
    both = (decoders, encoders)
    one, two = (np.array([float(function(model[0])) for model in side]) for side in both)
    difference = float(one.mean() - two.mean())
    if min(len(one), len(two)) >= 2:
        basis = "models"
        low, high, p = between(one, two)
        effect: tuple[float, ...] = hedges(one, two)
        flag = "" if isfinite(effect[0]) else "no effect size: no spread over models"
    else:
        # These models alone: their tokens are other sequences, so that their errors are independent.
        basis = "blocks"
        errors = [sum(_variance(function, model) for model in side) / len(side) ** 2 for side in both]
        low, high, p = welch(difference, errors, [min(map(len, side)) - 2 for side in both])
        over_blocks = [np.mean([_over_blocks(model) for model in side]) for side in both]
        spread = sqrt(np.mean(over_blocks))
        known = isfinite(spread) and spread > 0
        effect = tuple(number / spread if known else nan for number in (difference, low, high))
        alone = "" if isfinite(low) else "no interval: one draw"
        flag = joined(alone, "" if known else "no effect size: no spread over the blocks")
    return {
        "decoder_mean": float(one.mean()),
        "encoder_mean": float(two.mean()),
        **interval_of("difference", difference, low, high),
        "p": p,
        **interval_of("effect", *effect),
        "basis": basis,
        "flag": flag,
    }


def _variance(function: Callable[[np.ndarray], Any], profile: np.ndarray) -> float:
    """Squared standard error of a quantity over the draws: the jackknife's; NaN with one draw."""
    left_out, draws = function(profile[1:]), len(profile) - 1
    return float(left_out.var(ddof=1)) * (draws - 1) ** 2 / draws if draws >= 2 else nan


def _over_blocks(profile: np.ndarray) -> float:
    return float(profile[0].var(ddof=1)) if profile.shape[1] > 1 else nan


def holm(p: Sequence[float]) -> np.ndarray:
    """Adjust p-values for as many tests as there are, so that the chance of any false rejection stays under the level.

    Parameters
    ----------
    p : p-values; NaN where nothing was tested

    Returns
    -------
    Adjusted p-values, at most 1, in the same order; NaN where `p` is.

    References
    ----------
    Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    values = np.asarray(p, dtype=np.float64)
    adjusted = np.full_like(values, nan)
    tested = np.flatnonzero(~np.isnan(values))
    order = tested[np.argsort(values[tested], kind="stable")]
    factors = len(order) - np.arange(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(values[order] * factors), 1.0)
    return adjusted
