"""Trajectories and profiles whose truth is known, with the noise of real cells: shared draws, correlated numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lmshape.dynamics.trajectories import Trajectory

DRAWS = 5
LAST = 143_000
PYTHIA = (0, *(2**power for power in range(10)), *range(1000, LAST + 1, 1000))  # 154 steps
GRIDS = {
    5: (0, 64, 1000, 16_000, LAST),
    20: tuple(
        PYTHIA[place] for place in (0, 1, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 18, 26, 42, 64, 90, 120, 153)
    ),
    154: PYTHIA,
}


@dataclass(frozen=True, slots=True)
class Planted:
    """A trajectory whose logarithm is straight between its breaks.

    Attributes
    ----------
    shape : what `lmshape.dynamics.trajectories` calls it
    breaks, heights : (b + 2,) places on the axis log10(1 + step), ends included, and the logarithm there
    """

    shape: str
    breaks: np.ndarray
    heights: np.ndarray

    def at(self, steps: Sequence[int]) -> np.ndarray:
        """Natural logarithm at some steps."""
        return np.interp(np.log10(1.0 + np.asarray(steps)), self.breaks, self.heights)

    @property
    def peak(self) -> float:
        """Place of the largest height on the axis, among the breaks if one of them is a top."""
        inner = self.heights[1:-1]
        tops = np.flatnonzero((inner > self.heights[:-2]) & (inner > self.heights[2:])) + 1
        place = tops[self.heights[tops].argmax()] if len(tops) else int(self.heights.argmax())
        return float(self.breaks[place])


def _bent(shape: str, changes: Sequence[float], places: Sequence[tuple[float, float]]) -> Callable:
    """Make trajectories of straight pieces: their changes, and between which places each break may fall."""

    def make(generator: np.random.Generator) -> Planted:
        inner = [generator.uniform(*ends) for ends in places]
        breaks = np.array([0.0, *inner, np.log10(1.0 + LAST)])
        return Planted(shape, breaks, 2.0 + np.concatenate([[0.0], np.cumsum(changes)]))

    return make


# The breaks fall anywhere between checkpoints. Changes are of the logarithm: 0.7 doubles a value.
TRAJECTORIES = {
    "flat": _bent("flat", [0.0], []),
    "flat, waves of 4 %": _bent("flat", [0.04, -0.04, 0.04], [(1.0, 2.0), (3.0, 4.0)]),
    "rise": _bent("rise", [0.0, 0.8, 0.0], [(0.8, 1.8), (3.2, 4.4)]),
    "fall": _bent("fall", [0.0, -0.8, 0.0], [(0.8, 1.8), (3.2, 4.4)]),
    "rise, fall": _bent("rise_fall", [0.6, -0.5], [(2.0, 4.0)]),
    "fall, rise": _bent("fall_rise", [-0.6, 0.5], [(2.0, 4.0)]),
    "fall, rise, fall": _bent("three_phase", [-1.0, 1.2, -0.6], [(1.3, 2.2), (3.2, 4.4)]),
}


def correlated(
    axis: np.ndarray, generator: np.random.Generator, *, reach: float, count: int = DRAWS
) -> np.ndarray:
    """Draw noise of standard deviation 1 of one draw's numbers, (count, T).

    Three parts, of variance 0.3, 0.5 and 0.2: one that all places share, one that neighbors share (correlation exp(−1)
    at a distance of `reach`), and one of each place alone. In the embedded study two numbers of a model correlate over
    its draws by 0.2 to 0.5 in the median of most metrics, by −0.1 and 0.8 at the extremes.
    """
    near = np.exp(-np.abs(axis[:, None] - axis[None, :]) / reach)
    covariance = 0.3 + 0.5 * near + 0.2 * np.eye(len(axis))
    return generator.standard_normal((count, len(axis))) @ np.linalg.cholesky(covariance).T


def sampled(truth: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Average the draws, (K, T) deviations of each from the truth (T,), and leave each out: (K + 1, T)."""
    draws = truth + noise
    left_out = (draws.sum(axis=0) - draws) / (len(draws) - 1)
    return np.concatenate([draws.mean(axis=0)[None], left_out])


def measured(
    planted: Planted, steps: Sequence[int], noise: float, generator: np.random.Generator
) -> Trajectory:
    """Measure a planted trajectory at some steps in draws; `noise`: relative standard error of a value.

    The noise is up to twice as large at one end of the training as in the middle, as it is in real cells.
    """
    return _measured(planted.at(steps), steps, noise, generator)


def _measured(
    truth: np.ndarray, steps: Sequence[int], noise: float, generator: np.random.Generator
) -> Trajectory:
    axis = np.log10(1.0 + np.asarray(steps))
    uneven = np.exp(generator.choice([-1.0, 1.0]) * np.linspace(-np.log(2), np.log(2), len(axis)))
    deviations = noise * np.sqrt(DRAWS) * uneven * correlated(axis, generator, reach=0.5)
    numbers = np.exp(sampled(truth, deviations))
    return Trajectory(cell={"model": "made up"}, steps=np.asarray(steps), numbers=numbers)


def seeds(
    planted: Planted,
    steps: Sequence[int],
    count: int,
    wander: float,
    noise: float,
    generator: np.random.Generator,
) -> list[Trajectory]:
    """Measure runs that differ in their seed: each wanders about the trajectory by `wander`, over a decade of steps."""
    axis = np.log10(1.0 + np.asarray(steps))
    own = wander * correlated(axis, generator, reach=1.0, count=count)
    return [_measured(planted.at(steps) + one, steps, noise, generator) for one in own]


# Profiles over relative depth in (0, 1], in [0, 1] themselves.
PROFILES = {
    "flat": lambda depth: np.full_like(depth, 0.4),
    "rises": lambda depth: 0.2 + 0.5 * depth,
    "dome of 0.05": lambda depth: 0.4 + 0.05 * _bump(depth),
    "dome of 0.3": lambda depth: 0.3 + 0.3 * _bump(depth),
    "plateau of 0.8": lambda depth: np.where((depth > depth[0]) & (depth < depth[-1]), 0.95, 0.15),
}


def _bump(depth: np.ndarray) -> np.ndarray:
    """Give a parabola, 0 at the first and the last block, 1 in the middle."""
    place = (depth - depth[0]) / (depth[-1] - depth[0])
    return 4 * place * (1 - place)


def profile(
    shape: Callable[[np.ndarray], np.ndarray], blocks: int, noise: float, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Measure a profile in draws; returns the depths, and the numbers with standard error `noise`."""
    depth = np.arange(1, blocks + 1) / blocks
    deviations = noise * np.sqrt(DRAWS) * correlated(depth, generator, reach=0.25)
    return depth, sampled(shape(depth), deviations)
