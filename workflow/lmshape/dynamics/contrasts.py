"""Encoders against decoders: how much higher, and how much more of a dome, the profiles of decoders are.

A difference between kinds is one between models: the interval that says something of kinds comes from the spread over
models, and needs two on each side. With one on a side there is only the difference between these models, whose
interval is that of their tokens, and `basis` says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import nan, sqrt

import numpy as np
import pandas as pd

from lmshape.dynamics.domes import excess
from lmshape.dynamics.effects import hedges, welch
from lmshape.dynamics.profiles import PROFILED, last_checkpoint
from lmshape.dynamics.replicates import Replicated
from lmshape.tables.columns import COLUMN_DESCRIPTIONS, declare

QUANTITIES = {
    "height": "largest value of a block",
    "dome_index": "that less the larger of the first and the last block's",
    "mean": "mean over the blocks",
}

CONTRAST_COLUMNS = declare(
    {
        "study": COLUMN_DESCRIPTIONS["study"],
        "dataset": COLUMN_DESCRIPTIONS["dataset"],
        "rows": COLUMN_DESCRIPTIONS["rows"],
        "metric": "the metric whose profile over the blocks is compared, at each model's last trusted checkpoint",
        "quantity": "; ".join(f"{name}: {text}" for name, text in QUANTITIES.items()),
        "decoders": "number of decoders; those that the registry calls unstable are left out",
        "encoders": "number of encoders",
        "decoder_mean": "mean of the quantity over the decoders",
        "encoder_mean": "mean of the quantity over the encoders",
        "difference": "decoder_mean less encoder_mean",
        "difference_low": "lower end of its 95 % interval: over models (Welch), or over draws where basis is blocks",
        "difference_high": "upper end of its 95 % interval",
        "p": "two-sided p-value of no difference, from the same t",
        "effect": "the difference in standard deviations: Hedges' g over models, or over blocks",
        "effect_low": "lower end of its 95 % interval",
        "effect_high": "upper end of its 95 % interval",
        "basis": "models: two or more on each side; blocks: fewer, so that the deviation is that of the values over "
        "the blocks of a model, and nothing is said of other models",
        "flag": "the reason of NaN; empty when fine",
    },
    integers=["decoders", "encoders"],
    reals=[
        "decoder_mean",
        "encoder_mean",
        "difference",
        "difference_low",
        "difference_high",
        "p",
        "effect",
        "effect_low",
        "effect_high",
    ],
)

Row = dict[str, str | int | float]


@dataclass(frozen=True, slots=True)
class _Model:
    """The last profile of a model: kind, value and variance of a quantity, draws, variance over its blocks."""

    kind: str
    value: float
    variance: float
    draws: int
    over_blocks: float


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
    last = [_last(of_model) for _, of_model in lines.groupby("model", sort=False)]
    for quantity in QUANTITIES:
        models = [_quantity(profile, quantity) for profile in last if len(profile)]
        models = [model for model in models if np.isfinite(model.value)]
        decoders, encoders = ([one for one in models if one.kind == kind] for kind in ("decoder", "encoder"))
        row: Row = {"quantity": quantity, "decoders": len(decoders), "encoders": len(encoders)}
        missing = [kind for kind in ("decoder", "encoder") if not row[f"{kind}s"]]
        if missing:
            yield row | {"flag": f"no {' and no '.join(missing)} with a whole profile"}
        elif min(len(decoders), len(encoders)) >= 2:
            yield row | _over_models(*([one.value for one in side] for side in (decoders, encoders)))
        else:
            yield row | _over_blocks(decoders, encoders)


def _last(of_model: pd.DataFrame) -> pd.DataFrame:
    return of_model[of_model["checkpoint"] == last_checkpoint(of_model)].sort_values("layer", kind="stable")


def _quantity(profile: pd.DataFrame, quantity: str) -> _Model:
    numbers = Replicated.of(profile)
    functions = {"height": lambda curve: curve.max(axis=-1), "dome_index": excess, "mean": _mean}
    value = float(functions[quantity](numbers.values))
    left_out, draws = functions[quantity](numbers.left_out.T), numbers.draws
    variance = float(left_out.var(ddof=1)) * (draws - 1) ** 2 / draws if draws >= 2 else nan
    over_blocks = float(numbers.values.var(ddof=1)) if len(profile) > 1 else nan
    return _Model(str(profile["kind"].iloc[0]), value, variance, draws, over_blocks)


def _mean(curve: np.ndarray) -> np.ndarray:
    return curve.mean(axis=-1)


def _over_models(decoders: list[float], encoders: list[float]) -> Row:
    one, two = np.array(decoders), np.array(encoders)
    errors = [side.var(ddof=1) / len(side) for side in (one, two)]
    compared = _compared(one, two, errors, [len(one) - 1, len(two) - 1])
    effect = hedges(one, two)
    flag = "" if np.isfinite(effect[0]) else "no effect size: no spread over models"
    return compared | dict(zip(_EFFECT, effect, strict=True)) | {"basis": "models", "flag": flag}


def _over_blocks(decoders: list[_Model], encoders: list[_Model]) -> Row:
    """Compare these models alone: their tokens are other sequences, so that their errors are independent."""
    one, two = (np.array([model.value for model in side]) for side in (decoders, encoders))
    errors = [sum(model.variance for model in side) / len(side) ** 2 for side in (decoders, encoders)]
    row = _compared(
        one, two, errors, [min(model.draws for model in side) - 1 for side in (decoders, encoders)]
    )
    spread = sqrt(np.mean([np.mean([model.over_blocks for model in side]) for side in (decoders, encoders)]))
    known = np.isfinite(spread) and spread > 0
    effect = {name: row[of] / spread if known else nan for name, of in _EFFECT.items()}
    reasons = [
        "" if np.isfinite(row["difference_low"]) else "no interval: one draw",
        "" if known else "no effect size: no spread over the blocks",
    ]
    return row | effect | {"basis": "blocks", "flag": "; ".join(filter(None, reasons))}


_EFFECT = {"effect": "difference", "effect_low": "difference_low", "effect_high": "difference_high"}


def _compared(one: np.ndarray, two: np.ndarray, errors: list[float], freedom: list[int]) -> Row:
    difference = float(one.mean() - two.mean())
    low, high, p = welch(difference, errors, freedom)
    means = {"decoder_mean": float(one.mean()), "encoder_mean": float(two.mean()), "difference": difference}
    return means | {"difference_low": low, "difference_high": high, "p": p}
