"""Trajectories over training: whether a curve rises, falls, or does both in an order that a claim names.

A trajectory is known at checkpoints, with noise. Its depth in a sequence of rises and falls is the least of them, in
the natural logarithm, at the places where that is largest. Two depths decide: that of the named sequence, and that of
the sequence which contradicts it, the same with rises and falls exchanged; a trajectory that has neither is shorter
than both. The noise moves either by at most the largest difference between two checkpoints that the draws explain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lmshape.claims.claim import ONE_DRAW, Finding, Verdict, undecided
from lmshape.dynamics.noise import spread
from lmshape.dynamics.phases import FEWEST
from lmshape.dynamics.trajectories import Trajectory, depth, is_part, segments
from lmshape.tables.columns import joined

OTHER = {"rise": "fall", "fall": "rise"}


def trajectory(
    values: np.ndarray, steps: np.ndarray, *, first: float = 0, last: float = np.inf
) -> Trajectory:
    """Take a positive quantity from values (K + 1, T), with all draws and without each, from one step to another."""
    kept = np.isfinite(values).all(axis=0) & (values > 0).all(axis=0) & (steps >= first) & (steps <= last)
    return Trajectory(steps=steps[kept], numbers=values[:, kept])


def few(found: Trajectory) -> str:
    """Say that the checkpoints are too few; empty where they are enough."""
    count = len(found.steps)
    return f"needs {FEWEST} checkpoints from where the course begins; there are {count}" * (count < FEWEST)


def significant(found: Trajectory) -> str:
    """Name its significant rises and falls in their order."""
    return spelled(found.moves(found.bound))


def spelled(moves: Sequence[str]) -> str:
    """Name rises and falls in their order."""
    return ", then ".join(moves) or "no significant rise or fall"


def judged(finding: Finding, found: Trajectory, moves: Sequence[str], *why: str) -> Finding:
    """Decide whether a trajectory has the named rises and falls, in their order, and nothing against them."""
    if few(found):
        return replace(finding, why=few(found))
    against = [OTHER[move] for move in moves]
    bound, least, noise = found.bound, found.least, found.noise
    named, other = depth(found.logarithms, moves), depth(found.logarithms, against)
    draws = 1 + len(noise.rows()) if noise else 1
    told = replace(finding, draws=draws, threshold=least, number=named)
    if noise is None:
        return undecided(told, *why, ONE_DRAW)
    contradicts = other - bound > least
    shown, side = (other, 1) if contradicts else (named, 1 if named > least else -1)
    told = replace(
        told,
        number=shown,
        ci_low=max(shown - bound, 0.0),
        ci_high=shown + bound,
        p=noise.p_value(spread, side * (shown - least)),
        why=joined(*why, significant(found)),
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


def alike(one: Trajectory, two: Trajectory) -> Verdict:
    """Compare two trajectories by their significant rises and falls.

    `supported` if these are the same and nothing as large may be hidden in either. `contradicted` if what one has is
    excluded in the other, or if each has what the other has not and nothing as large may be hidden.
    """
    if one.noise is None or two.noise is None:
        return "undecided"
    first, second = one.moves(one.bound), two.moves(two.bound)
    clear = _clear(one) and _clear(two)
    if clear and first == second:
        return "supported"
    opposed = clear and not is_part(first, second) and not is_part(second, first)
    excluded = not (_has(two, first) and _has(one, second))
    return "contradicted" if opposed or excluded else "undecided"


def _has(found: Trajectory, moves: Sequence[str]) -> bool:
    """Whether the noise leaves room for these rises and falls, in their order."""
    return found.bound >= found.least or is_part(moves, found.moves(-found.bound))


def _clear(found: Trajectory) -> bool:
    """Whether the noise leaves no room for a further rise or fall as large as the least significant one."""
    sure = segments(found.logarithms, found.least + found.bound)
    if not sure:
        return found.bound < found.least and not found.moves(-found.bound)
    least = float(np.abs(np.diff(found.logarithms[list(sure.ends)])).min())
    return least > found.bound and len(segments(found.logarithms, least - found.bound)) <= len(sure)
