"""The shape of a course over training: which rises and falls are sure, and whether another one may be hidden.

The rule, stated before any course was judged by it. Changes are those of the natural logarithm of the value. A rise or
fall counts from `least` on: a tenth, or a tenth of the course's whole range if that is more. Let the noise be the
largest difference between two checkpoints that the draws explain, with 95 % confidence for all pairs at once. A move
is sure if it exceeds `least` and the noise together. The shape is that of the sure moves; it is undecided where the
noise leaves room for one more move of twice `least`. So with 95 % confidence each move that is named changes the
value by a tenth at the least, and no other changes it by more than a fifth.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

import numpy as np

from lmshape.dynamics.noise import Noise, spread
from lmshape.dynamics.turns import Moves, depths, moves

LEAST_CHANGE = 0.1  # of the natural logarithm: a tenth of the value
LEAST_SHARE = 0.1  # of the course's range
TOLERATED = 2.0  # × `least`: what a move that is not named may have

UNDECIDED = "undecided"
SHAPES = {
    "flat": "no move",
    "rise": "one move, up",
    "fall": "one move, down",
    "rise_fall": "up, then down",
    "fall_rise": "down, then up",
    "three_phase": "three moves: the column `moves` says which",
    "many_phase": "four moves or more",
    UNDECIDED: "the noise leaves room for another move, or there is one draw alone",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What is sure of a course.

    Attributes
    ----------
    name : one of `SHAPES`
    moves : those that are sure, or with one draw those that are seen
    least, noise : of the rule, differences of the natural logarithm; NaN for the noise of one draw
    p : p-values of the course having no move, under two, and under three; NaN with one draw
    """

    name: str
    moves: Moves
    least: float
    noise: float
    p: tuple[float, float, float]


def shape_of(logarithms: np.ndarray, noise: Noise | None) -> Shape:
    """Decide the shape of a course.

    Parameters
    ----------
    logarithms : (T,) natural logarithms of the value at each checkpoint
    noise : their error; None with one draw
    """
    least = max(LEAST_CHANGE, LEAST_SHARE * float(np.ptp(logarithms)))
    if noise is None:
        return Shape(
            name=UNDECIDED, moves=moves(logarithms, least), least=least, noise=nan, p=(nan, nan, nan)
        )
    bound = noise.bound(spread)
    sure = moves(logarithms, least + bound)
    room = TOLERATED * least - bound
    decided = room > 0 and len(moves(logarithms, room)) <= len(sure)
    p = tuple(noise.p_value(spread, depth - least) for depth in depths(logarithms))
    return Shape(name=name(sure) if decided else UNDECIDED, moves=sure, least=least, noise=bound, p=p)


def name(found: Moves) -> str:
    """Name the shape that some moves make."""
    if not found:
        return "flat"
    if len(found) <= 2:
        return "_".join(found.words)
    return "three_phase" if len(found) == 3 else "many_phase"
