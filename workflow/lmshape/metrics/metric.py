"""A metric is one number per layer, a function of stored arrays; the metrics of a family share their arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, isfinite, nan, sqrt
from typing import Literal

import numpy as np

from lmshape.errors import InputError
from lmshape.geometry.resample import Estimate, jackknife, over_draws
from lmshape.metrics.layer import Arrays, Measured


def kept_array(arrays: Arrays, *, array: str) -> np.ndarray:
    """Return an array as it is kept: the `values` of a metric that was computed when the layer was measured."""
    return arrays[array]


def named_array(arrays: Arrays, *, family: str, name: str) -> np.ndarray:
    """Return the array of a metric that a study names, which an archive of an earlier study can lack."""
    if name not in arrays:
        raise InputError(f"the archive of the family `{family}` holds no `{name}`; measure it again.")
    return arrays[name]


def no_doubt(arrays: Arrays) -> str:
    """Say nothing against a value."""
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One number of a layer, with its interval and what a reader must know to read it.

    From the arrays of the family `values` gives the K + 1 numbers of the jackknife (all rows; then without
    each draw) or the K numbers of the draws, as `interval` says; with "none" the first number stands alone, and
    `no_interval` says why, for the table. `low` and `high` bound value and interval; `range` is the tighter truth
    in words; `step` is 1 for a number that is rounded to a whole one, whose left-out values are not rounded.
    `null` is the value that means "nothing there"; `undefined` is the reason where there is no number. `doubt` says
    of a value why its interval is not to be trusted; empty where it is.
    """

    name: str
    family: str
    definition: str
    low: float
    high: float
    range: str
    null: str
    source: str
    undefined: str
    interval: Literal["jackknife", "draws", "none"]
    values: Callable[[Arrays], np.ndarray]
    no_interval: str = ""
    step: float = 0.0
    doubt: Callable[[Arrays], str] = no_doubt

    def __post_init__(self) -> None:
        """Refuse a metric without an interval that does not say why, and a reason beside an interval."""
        if (self.interval == "none") != bool(self.no_interval):
            raise ValueError(
                f"`{self.name}` has `interval` {self.interval!r} and `no_interval` {self.no_interval!r}; "
                'give the reason if the interval is "none", and only then.'
            )

    def replicates(self, arrays: Arrays) -> np.ndarray:
        """Return the numbers (float64) that value and interval are made of: `values` of the arrays."""
        return np.asarray(self.values(arrays), dtype=np.float64)

    def estimate(self, replicates: np.ndarray) -> Estimate:
        """Estimate the metric with its 95 % interval from its replicates.

        NaN where it is not defined; a value without an interval where it has none (`missing_interval` says why).
        """
        return self._estimate(replicates, bounds=(self.low, self.high), step=self.step)

    def compute(self, arrays: Arrays) -> Estimate:
        """Estimate the metric from the arrays of its family, as `estimate` does."""
        return self.estimate(self.replicates(arrays))

    def change(self, before: np.ndarray, after: np.ndarray) -> Estimate:
        """Return the difference of two values by their replicates on the same draws, with its interval."""
        # the rounding of both values; where one is infinite there is no difference
        with np.errstate(invalid="ignore"):
            difference = after - before
        return self._estimate(difference, bounds=(-inf, inf), step=sqrt(2) * self.step)

    def _estimate(self, values: np.ndarray, *, bounds: tuple[float, float], step: float) -> Estimate:
        by_draw = self.interval == "draws"
        value = float(values.mean() if by_draw else values[0])
        draws = len(values) if by_draw else max(len(values) - 1, 1)
        if self.interval == "none" or not np.isfinite(values).all():
            return Estimate(value if np.isfinite(value) else nan, nan, nan, draws)
        if by_draw:
            return over_draws(values, bounds=bounds)
        return jackknife(value, values[1:], bounds=bounds, step=step)

    def missing_interval(self, estimate: Estimate) -> str:
        """Return why a value stands without its interval; empty where it has one, and where there is no value."""
        if not isfinite(estimate.value) or isfinite(estimate.low):
            return ""
        return f"no interval: {self.no_interval or 'not defined without one of its draws'}"


@dataclass(frozen=True, slots=True)
class Family:
    """The metrics that are computed from one archive, and how the archive is made.

    Parameters
    ----------
    name : name of the family, and of the folder of its archives
    metrics : those of the library; none in a family whose metrics the study names
    measured : None where the arrays are of the model's output and come with the extraction
    """

    name: str
    metrics: tuple[Metric, ...] = ()
    measured: Measured | None = None
