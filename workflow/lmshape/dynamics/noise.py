"""How far a curve may be off: bounds for any functional of its error, from a few draws.

A curve has T numbers, over layers or over steps, that share their K draws of sequences, so that its error e is one
vector with correlations that nobody knows. Any weighting of the draws whose weights sum to 0 and whose squares sum
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
from scipy.linalg import helmert
from scipy.special import fdtrc, fdtri

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
        draws = len(left_out)
        deviations = (draws - 1) * (left_out.mean(axis=0) - left_out)
        return cls((helmert(draws) @ deviations / np.sqrt(draws),))

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
