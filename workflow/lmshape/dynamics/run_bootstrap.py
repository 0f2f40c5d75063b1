"""Intervals over runs: what happens in one run is of one piece, so that whole runs are drawn again.

With few runs a percentile interval is too narrow. It is widened so that it would be Student's for a mean
(Hesterberg's expanded percentiles): the shares that are cut off are Φ(−t √(R/(R − 1))), R the number of runs with
spikes and t the quantile of Student's distribution with R − 1 degrees of freedom.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import nan, sqrt

import numpy as np
from scipy.special import ndtr, ndtri, stdtr, stdtrit

RESAMPLES = 2000
LEVEL = 0.95


def run_weights(strata: Sequence[int], *, seed: int = 0, resamples: int = RESAMPLES) -> np.ndarray:
    """Draw runs with replacement, those of each stratum among themselves.

    Parameters
    ----------
    strata : (R,) stratum of each run, as whether it has spikes

    Returns
    -------
    (1 + resamples, R) float64: how often each run is drawn; the first row is of ones, the sample itself.
    """
    random = np.random.default_rng(seed)
    labels = np.asarray(strata)
    weights = np.zeros((resamples + 1, len(labels)))
    weights[0] = 1
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        drawn = members[random.integers(len(members), size=(resamples, len(members)))]
        for column in drawn.T:
            weights[np.arange(1, resamples + 1), column] += 1
    return weights


def interval(statistics: np.ndarray, *, runs: int) -> tuple[float, float]:
    """Return the expanded percentiles of resampled statistics, NaN with under 2 runs or under half of them defined.

    Parameters
    ----------
    statistics : (B,) of the resamples; NaN where one is not defined
    runs : independent runs behind the statistic
    """
    defined = statistics[~np.isnan(statistics)]
    if runs < 2 or len(defined) < len(statistics) / 2:
        return nan, nan
    tail = float(ndtr(stdtrit(runs - 1, (1 - LEVEL) / 2) * sqrt(runs / (runs - 1))))
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)


def two_sided(statistics: np.ndarray, *, runs: int) -> float:
    """Return the p-value of a statistic whose true value is 0: the level at which `interval` would end there."""
    defined = statistics[~np.isnan(statistics)]
    if runs < 2 or len(defined) < len(statistics) / 2:
        return nan
    under = np.count_nonzero(defined < 0) + np.count_nonzero(defined == 0) / 2
    share = (min(under, len(defined) - under) + 0.5) / (len(defined) + 1)
    return float(min(1.0, 2 * stdtr(runs - 1, ndtri(share) / sqrt(runs / (runs - 1)))))


def weighted_median(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the median of values drawn so often, the lower one where two share it.

    Parameters
    ----------
    values : (n,)
    weights : (B, n) non-negative

    Returns
    -------
    (B,), NaN where all weights are 0.
    """
    if not len(values):
        return np.full(len(weights), nan)
    order = np.argsort(values, kind="stable")
    summed = np.cumsum(weights[:, order], axis=1)
    place = np.argmax(summed >= summed[:, -1:] / 2, axis=1)
    return np.where(summed[:, -1] > 0, values[order][place], nan)
