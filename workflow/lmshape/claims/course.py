"""Courses over training: whether a curve rises, falls, or does both in an order that a claim names.

A course is known at checkpoints, with noise. Its depth in a sequence of rises and falls is the least of them, in the
natural logarithm, at the places where that is largest. Two depths decide: that of the named sequence, and that of the
sequence which contradicts it, the same with rises and falls exchanged; a course that has neither is shorter than both.
The noise moves either by at most the largest difference between two checkpoints that the draws explain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lmshape.claims.claim import ONE_DRAW, Finding, Verdict, undecided
from lmshape.dynamics.noise import Noise, Replicated, spread
from lmshape.dynamics.phases import FEWEST
from lmshape.dynamics.trajectories import LEAST_CHANGE, LEAST_SHARE, Moves, depth, is_part, segments
from lmshape.tables.columns import joined

OTHER = {"rise": "fall", "fall": "rise"}
RULE = (
    f"a rise or fall counts from {LEAST_CHANGE} on (a tenth of the value), or a tenth of the range if that is more; "
    "supported if {} and nothing as large against it; contradicted if {} is significant, or if the noise excludes "
    "that the course has what is claimed"
)
STATISTIC = "least change of the natural logarithm among {}; where {} decides, that of it"


@dataclass(frozen=True, slots=True)
class Course:
    """A positive quantity over training.

    Attributes
    ----------
    steps : (T,) rising
    values : (T,) natural logarithms
    noise : their error; None with one draw
    """

    steps: np.ndarray
    values: np.ndarray
    noise: Noise | None

    @classmethod
    def of(cls, values: np.ndarray, steps: np.ndarray, *, first: float = 0, last: float = np.inf) -> Course:
        """Take it from values (K + 1, T), with all draws and without each, at the steps from `first` to `last`."""
        kept = np.isfinite(values).all(axis=0) & (values > 0).all(axis=0) & (steps >= first) & (steps <= last)
        logarithms = Replicated(values[0, kept], values[1:, kept].T).logarithms()
        return cls(steps[kept], logarithms.values, logarithms.noise())

    @property
    def few(self) -> str:
        """Say that the checkpoints are too few; empty where they are enough."""
        return f"needs {FEWEST} checkpoints from where the course begins; there are {len(self.steps)}" * (
            len(self.steps) < FEWEST
        )

    @property
    def least(self) -> float:
        """Least change that counts."""
        return max(LEAST_CHANGE, LEAST_SHARE * float(np.ptp(self.values)))

    @property
    def bound(self) -> float:
        """Largest difference between two checkpoints that the draws explain, 95 %; infinite with one draw."""
        return self.noise.bound(spread) if self.noise else np.inf

    def seen(self, bound: float) -> Moves:
        """Rises and falls that are significant."""
        return segments(self.values, self.least + bound).words

    def has(self, moves: Moves, bound: float) -> bool:
        """Whether the noise leaves room for these rises and falls, in their order."""
        return bound >= self.least or is_part(moves, segments(self.values, self.least - bound).words)

    def clear(self, bound: float) -> bool:
        """Whether the noise leaves no room for a further rise or fall as large as the least significant one."""
        found = segments(self.values, self.least + bound)
        if not found:
            return bound < self.least and not segments(self.values, self.least - bound)
        least = float(np.abs(np.diff(self.values[list(found.ends)])).min())
        return least > bound and len(segments(self.values, least - bound)) <= len(found)


def spelled(moves: Sequence[str]) -> str:
    """Name rises and falls in their order."""
    return ", then ".join(moves) or "no significant rise or fall"


def judged(finding: Finding, course: Course, moves: Moves, *why: str) -> Finding:
    """Decide whether a course has the rises and falls that a claim names, in their order, and nothing against them."""
    if course.few:
        return replace(finding, why=course.few)
    against = tuple(OTHER[move] for move in moves)
    bound, least = course.bound, course.least
    named, other = depth(course.values, moves), depth(course.values, against)
    draws = 1 + len(course.noise.rows()) if course.noise else 1
    told = replace(finding, draws=draws, threshold=least, number=named)
    if course.noise is None:
        return undecided(told, *why, ONE_DRAW)
    contradicts = other - bound > least
    shown, side = (other, 1) if contradicts else (named, 1 if named > least else -1)
    told = replace(
        told,
        number=shown,
        ci_low=max(shown - bound, 0.0),
        ci_high=shown + bound,
        p=course.noise.p_value(spread, side * (shown - least)),
        why=joined(*why, spelled(course.seen(bound))),
    )
    if contradicts:
        return replace(told, verdict="contradicted", why=joined(told.why, f"shown: the {spelled(against)}"))
    if named + bound < least:
        return replace(told, verdict="contradicted")
    if named - bound <= least:
        return undecided(told, f"a {spelled(moves)} is neither significant nor excluded")
    if other + bound >= named:
        return undecided(told, f"a {spelled(against)} as large is not excluded")
    return replace(told, verdict="supported")


def alike(one: Course, two: Course) -> Verdict:
    """Compare two courses by their significant rises and falls.

    `supported` if these are the same and nothing as large may be hidden in either. `contradicted` if what one has is
    excluded in the other, or if each has what the other has not and nothing as large may be hidden.
    """
    if one.noise is None or two.noise is None:
        return "undecided"
    bounds = one.bound, two.bound
    first, second = one.seen(bounds[0]), two.seen(bounds[1])
    clear = one.clear(bounds[0]) and two.clear(bounds[1])
    if clear and first == second:
        return "supported"
    opposed = clear and not is_part(first, second) and not is_part(second, first)
    excluded = not (two.has(first, bounds[1]) and one.has(second, bounds[0]))
    return "contradicted" if opposed or excluded else "undecided"
