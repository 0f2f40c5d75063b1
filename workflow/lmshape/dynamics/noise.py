"""How far a curve may be off: bounds for any functional of its error, from a few draws.

A curve has T numbers, over layers or over steps, that share their K draws of sequences, so that its error e is one
vector with unknown correlations. Any weighting of the draws whose weights sum to 0 and whose squares sum
to K gives a vector that is distributed as e is (for Gaussian errors exactly, whatever the correlations). From many
such vectors the mean of f(e)² and its variation are known, for any f that scales with e: the range, the root mean
square, one difference. Satterthwaite's two moments then make f(e)² a multiple of an F variable. For one difference
that is Student's t on K − 1 degrees of freedom; for the range of many independent numbers nearly the studentized
range; all curves of a study lie between. Measured coverage: docs/dynamics.md.

References
----------
Satterthwaite 1946, "An approximate distribution of estimates of variance components".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
from scipy.linalg import helmert
from scipy.optimize import brentq
from scipy.special import digamma, fdtrc, fdtri, polygamma, stdtrit

LEVEL = 0.95
DIRECTIONS = 400
Functional = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, slots=True)
class Noise:
    """The error of a curve of T numbers.

    Attributes
    ----------
    parts : independent sources of error, such as draws and seeds; each (ν, T), ν rows distributed as the error that
        it makes, independent of one another
    """

    parts: tuple[np.ndarray, ...]

    @classmethod
    def of_draws(cls, left_out: np.ndarray) -> Noise:
        """Take the error from the curve without each draw, (K, T), K ≥ 2: its jackknife pseudo-values."""
        return cls.of_copies((len(left_out) - 1) * (left_out.mean(axis=0) - left_out))

    @classmethod
    def of_copies(cls, curves: np.ndarray) -> Noise:
        """Take the error of the mean of independent curves, (S, T), S ≥ 2, from their spread."""
        return cls((helmert(len(curves)) @ curves / np.sqrt(len(curves)),))

    def __add__(self, other: Noise) -> Noise:
        """Add an independent error of the same curve."""
        return Noise((*self.parts, *other.parts))

    def at(self, places: np.ndarray) -> Noise:
        """Return the error at some places of the curve."""
        return Noise(tuple(part[:, places] for part in self.parts))

    def times(self, weights: np.ndarray) -> Noise:
        """Return the error of linear functions of the curve, `weights` (T, functions)."""
        return Noise(tuple(part @ weights for part in self.parts))

    def samples(self) -> np.ndarray:
        """(DIRECTIONS, T): vectors that are distributed as the error is, not independent of one another."""
        return sum(_directions(len(part), place) @ part for place, part in enumerate(self.parts))

    def rows(self) -> np.ndarray:
        """(ν, T): the rows of all parts."""
        return np.concatenate(self.parts)

    def weights(self, generator: np.random.Generator, count: int) -> np.ndarray:
        """Simulate errors as weights (count, ν) of `rows`: multivariate t, each part with its degrees of freedom."""
        columns = []
        for part in self.parts:
            freedom = len(part)
            normal = generator.standard_normal((count, freedom))
            columns.append(normal / np.sqrt(generator.chisquare(freedom, size=(count, 1))))
        return np.concatenate(columns, axis=1)

    def errors_of_differences(self) -> tuple[np.ndarray, float]:
        """(T, T): standard errors of the differences of any two numbers, and their degrees of freedom.

        Few draws tell one variance badly, and those of all differences much better: each is `squeezed` toward them.
        Their trend is a parabola along the curve, and straight in the distance. Short curves and equal draws have none.
        """
        size = self.parts[0].shape[1]
        one, two = np.triu_indices(size, 1)
        variances = sum(((part[:, one] - part[:, two]) ** 2).mean(axis=0) for part in self.parts)
        freedom = self._freedom(spread)
        if size > 5 and variances.all():
            trend = np.stack([np.ones(len(one)), one + two, (one + two) ** 2, two - one], axis=1)
            variances, freedom = squeezed(variances, freedom, trend, most=freedom * (size - 4))
        errors = np.zeros((size, size))
        errors[one, two] = errors[two, one] = np.sqrt(variances)
        return errors, freedom

    def bound(self, functional: Functional, *, level: float = LEVEL) -> float:
        """Return what `functional` of the error stays under with probability `level`.

        Parameters
        ----------
        functional : (…, T) → (…); f(a e) = a f(e) for a > 0, and f ≥ 0
        level : of coverage, for this functional alone
        """
        scale, first, second = self._moments(functional)
        return float(np.sqrt(scale * fdtri(first, second, level))) if scale > 0 else 0.0

    def p_value(self, functional: Functional, observed: float) -> float:
        """Return the probability that `functional` of the error is at least `observed`: 1 for none or less."""
        if observed <= 0:
            return 1.0
        scale, first, second = self._moments(functional)
        return float(fdtrc(first, second, observed**2 / scale)) if scale > 0 else 0.0

    def _moments(self, functional: Functional) -> tuple[float, float, float]:
        """Mean square of the functional, and the two degrees of freedom of its square as an F variable."""
        squares = functional(self.samples()) ** 2
        scale, freedom = float(squares.mean()), self._freedom(functional)
        if scale == 0 or freedom <= 1:
            return scale, 1.0, freedom
        variation = max(float(squares.var()) / scale**2, 1e-9)
        # (1 − 1/ν): directions share ν rows, and so vary less than independent errors would
        numbers = max(2 * (1 - 1 / freedom) / variation - 2 / freedom, 1.0)
        # half of the degrees of freedom beyond one difference's: `numbers` is itself an estimate from few draws
        return scale, numbers, freedom * (1 + (numbers - 1) / 2)

    def _freedom(self, functional: Functional) -> float:
        """Degrees of freedom of the scale; of several parts, Welch's."""
        if len(self.parts) == 1:
            return float(len(self.parts[0]))
        squares = [
            float((functional(_directions(len(part), place) @ part) ** 2).mean())
            for place, part in enumerate(self.parts)
        ]
        doubt = sum(square**2 / len(part) for square, part in zip(squares, self.parts, strict=True))
        return sum(squares) ** 2 / doubt if doubt > 0 else float(min(map(len, self.parts)))


@cache
def _directions(freedom: int, place: int) -> np.ndarray:
    """(DIRECTIONS, ν) vectors of length 1, in all directions alike; the same ones in every process."""
    normal = np.random.default_rng((place, freedom)).standard_normal((DIRECTIONS, freedom))
    return normal / np.linalg.norm(normal, axis=1, keepdims=True)


def spread(error: np.ndarray) -> np.ndarray:
    """Largest difference between two numbers of a curve, (…, T) → (…)."""
    return np.ptp(error, axis=-1)


def size(error: np.ndarray) -> np.ndarray:
    """Root mean square of a curve, (…, T) → (…)."""
    return np.sqrt((error**2).mean(axis=-1))


def largest(error: np.ndarray) -> np.ndarray:
    """Largest magnitude in a curve, (…, T) → (…)."""
    return np.abs(error).max(axis=-1)


def replicated(frame: pd.DataFrame) -> np.ndarray:
    """Read the columns value, interval and replicates: (K + 1, rows), numbers with all draws, then without each.

    (1, rows) where there are under 2 draws, where rows have different numbers of draws, and in a table without
    replicates.
    """
    values = frame["value"].to_numpy(dtype=np.float64)
    if not len(frame) or "replicates" not in frame:
        return values[None]
    parts = [leave_one_out(*pair) for pair in zip(frame["interval"], frame["replicates"], strict=True)]
    same = len({len(part) for part in parts}) == 1
    return np.column_stack([values, np.array(parts)]).T if same else values[None]


def noise_of(numbers: np.ndarray) -> Noise | None:
    """Return the error of a curve, (K + 1, T), with all draws and without each; None where draws cannot tell."""
    left_out = numbers[1:]
    known = len(left_out) >= 2 and np.isfinite(left_out).all()
    return Noise.of_draws(left_out) if known else None


def leave_one_out(interval: str, replicates: np.ndarray) -> np.ndarray:
    """Return a number without each of its K draws, (K,); empty where there are under 2.

    Parameters
    ----------
    interval : jackknife, draws or none
    replicates : K + 1 numbers, over all rows, then without each draw; for `draws` those of the K draws, whose mean the
        number is
    """
    numbers = np.asarray(replicates, dtype=np.float64)
    if interval == "draws" and len(numbers) > 1:
        return (numbers.sum() - numbers) / (len(numbers) - 1)
    return numbers[1:] if interval == "jackknife" and len(numbers) > 2 else np.empty(0)


def may_be_largest(values: np.ndarray, noise: Noise) -> np.ndarray:
    """Return the places that cannot be told from the largest number of a curve.

    A place is excluded where one of the places left is significantly higher: by Student's t, one-sided, corrected for
    as many comparisons as there are (Bonferroni). This is repeated with what is left, until nothing more goes. The
    place of the true largest number is among them with 95 % confidence. A flat curve keeps all of its places.

    Parameters
    ----------
    values : (T,) numbers
    noise : their error

    Returns
    -------
    Indices, rising.

    References
    ----------
    Hansen, Lunde & Nason 2011, "The model confidence set", with its many-to-one statistic.
    """
    errors, freedom = noise.errors_of_differences()
    left = np.arange(len(values))
    while len(left) > 1:
        higher = values[left] - values[left, None]
        near = (higher <= one_sided(freedom, len(left) - 1) * errors[np.ix_(left, left)]).all(axis=1)
        if near.all():
            break
        left = left[near]
    return left


def one_sided(freedom: float, tests: int = 1) -> float:
    """Return what Student's t stays under in all of some tests: with one test, an end of a 95 % interval."""
    return float(stdtrit(freedom, 1 - (1 - LEVEL) / 2 / tests))


def squeezed(
    variances: np.ndarray, freedom: float, trend: np.ndarray, *, most: float
) -> tuple[np.ndarray, float]:
    """Squeeze variances toward what they have in common, and return them with their degrees of freedom.

    The logarithms of estimates spread by themselves, more the fewer degrees of freedom they have. What they spread
    beyond that about their trend is how much the true variances differ from it; where it is nothing, they are those of
    the trend.

    Parameters
    ----------
    variances : (n,) over 0, estimates on `freedom` degrees of freedom each
    trend : (n, k) that the logarithms of the true variances are linear in, a column of ones among them
    most : degrees of freedom of all of them together

    References
    ----------
    Smyth 2004, "Linear models and empirical Bayes methods for assessing differential expression in microarray
    experiments", sections 4 and 6; with a trend in the R package limma.
    """
    logarithms = np.log(variances) - digamma(freedom / 2) + np.log(freedom / 2)
    fitted = trend @ np.linalg.lstsq(trend, logarithms, rcond=None)[0]
    spread_of_logarithms = ((logarithms - fitted) ** 2).sum() / (len(trend) - trend.shape[1])
    beyond = float(spread_of_logarithms - polygamma(1, freedom / 2))
    if beyond <= polygamma(1, most / 2):
        return np.exp(fitted), most
    prior = 2 * brentq(lambda half: polygamma(1, half) - beyond, 1e-3, most / 2)
    common = np.exp(fitted + digamma(prior / 2) - np.log(prior / 2))
    return (prior * common + freedom * variances) / (prior + freedom), min(prior + freedom, most)


def around(places: np.ndarray, count: int) -> tuple[int, int]:
    """Return the places just below the first and just above the last, within a curve of `count` numbers.

    Between two places nothing was measured: a peak at one of them may lie anywhere up to the next ones.
    """
    return max(int(places[0]) - 1, 0), min(int(places[-1]) + 1, count - 1)
