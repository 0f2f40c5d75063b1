"""Two groups: the interval of their difference, and the difference in standard deviations."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, nan, sqrt

import numpy as np
from scipy.optimize import brentq
from scipy.special import chdtri, gammaln, ndtr, stdtr, stdtrit

from lmshape.dynamics.noise import LEVEL

FAR = 8.0  # standard deviations beyond which a normal variable never lies
SHARES = 4000  # equal parts of a chi distribution that stand for it


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
    low, high = (noncentrality(t, freedom, tail) for tail in ((1 + LEVEL) / 2, (1 - LEVEL) / 2))
    return tuple(float(correction * scale * number) for number in (t, low, high))


def noncentrality(t: float, freedom: int, tail: float) -> float:
    """Return the noncentrality at which a noncentral t lies below `t` with probability `tail`; to 4 digits.

    P(T < t) is the mean of Φ(t s - noncentrality) over the scale s, a chi variable over the root of `freedom`. SciPy's
    `nctdtr` is NaN at some arguments in between.
    """
    shares = (np.arange(SHARES) + 0.5) / SHARES
    scales = np.sqrt(chdtri(freedom, shares) / freedom)
    ends = (t * scales.min(), t * scales.max())
    return float(
        brentq(lambda center: ndtr(t * scales - center).mean() - tail, min(ends) - FAR, max(ends) + FAR)
    )
