"""P-values of many tests, so that many are not taken for one."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan

import numpy as np


def holm(p: Sequence[float]) -> np.ndarray:
    """Adjust p-values for as many tests as there are, so that the chance of any false rejection stays under the level.

    Parameters
    ----------
    p : p-values; NaN is no test

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
