"""What a metric is: one number of a layer as a function of the statistics that are kept of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import nan
from typing import Literal

import numpy as np

from lmshape.geometry.resample import Estimate, jackknife, over_draws

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One number of a layer, with its interval and what a reader must know to read it.

    From the arrays of the family `values` gives the K + 1 numbers of the jackknife (all rows; then without
    each draw) or the K numbers of the draws, as `interval` says. `low` and `high` bound value and interval;
    `range` is the tighter truth in words. `null` is the value that means "nothing there"; `undefined` is the
    reason where there is no number.
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
    interval: Literal["jackknife", "draws"]
    values: Callable[[Arrays], np.ndarray]

    def compute(self, arrays: Arrays) -> Estimate:
        """Estimate the metric with its 95 % interval from the arrays of its family.

        NaN where it is not defined; a value without an interval where it is not defined with a draw left out.
        """
        values = np.asarray(self.values(arrays), dtype=np.float64)
        jackknifed = self.interval == "jackknife"
        pooled = float(values[0] if jackknifed else values.mean())
        if not np.isfinite(values).all():
            return Estimate(pooled if np.isfinite(pooled) else nan, nan, nan, len(values) - jackknifed)
        if jackknifed:
            return jackknife(pooled, values[1:], bounds=(self.low, self.high))
        return over_draws(values, bounds=(self.low, self.high))
