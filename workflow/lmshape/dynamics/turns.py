"""Rises and falls of a curve: its moves of at least some size, and how large the smallest of several is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Moves:
    """Alternating rises and falls of a curve.

    Attributes
    ----------
    turns : places where the moves begin and end, one more than there are moves; empty without a move
    rises : whether the first move is a rise
    """

    turns: tuple[int, ...] = ()
    rises: bool = False

    def __len__(self) -> int:
        """Count the moves."""
        return max(len(self.turns) - 1, 0)

    @property
    def words(self) -> tuple[str, ...]:
        """Name the moves in their order: rise or fall."""
        names = ("rise", "fall") if self.rises else ("fall", "rise")
        return tuple(names[place % 2] for place in range(len(self)))

    def turn(self, *, top: bool) -> tuple[int, ...]:
        """Places inside the curve where a rise ends and a fall begins, or the other way round."""
        first = 1 if self.rises == top else 2
        return self.turns[first:-1:2]


def moves(values: np.ndarray, least: float) -> Moves:
    """Return the rises and falls by `least` or more; smaller ones in between are part of the move around them.

    Of all alternating sequences of places, each differing from the one before by `least`, this is a longest one, with
    its turns at the extremes of the curve between them.

    Parameters
    ----------
    values : (T,) finite numbers
    least : over 0
    """
    low = high = direction = 0
    turns: list[int] = []
    for place, value in enumerate(values):
        if direction >= 0 and value > values[high]:
            high = place
        if direction <= 0 and value < values[low]:
            low = place
        if direction >= 0 and values[high] - value >= least:
            turns.append(high)
            low, direction = place, -1
        elif direction <= 0 and value - values[low] >= least:
            turns.append(low)
            high, direction = place, 1
    if not turns:
        return Moves()
    last = high if direction > 0 else low
    return Moves((*turns, last), rises=(direction > 0) == (len(turns) % 2 == 1))


def depths(values: np.ndarray) -> tuple[float, float, float]:
    """Return the largest `least` with which a curve has at least one move, two, and three.

    The first is its range. The second is the lesser of the rise before and the fall after a place (or fall and rise),
    at the best place; the third the same for three moves.
    """
    pairs = [_two_and_three(sign * values) for sign in (1.0, -1.0)]
    return float(np.ptp(values)), max(pair[0] for pair in pairs), max(pair[1] for pair in pairs)


def _two_and_three(values: np.ndarray) -> tuple[float, float]:
    """Depth of a rise and a fall, and of a rise, a fall and a rise."""
    rise = values - np.minimum.accumulate(values)
    after = np.minimum.accumulate(values[::-1])[::-1]
    two = float(np.minimum(rise, values - after).max())
    ends = np.minimum(rise[:, None], values[:, None] - values[None, :])
    fallen = np.where(np.tri(len(values), dtype=bool).T, ends, 0.0).max(axis=0)
    rises = np.maximum.accumulate(values[::-1])[::-1] - values
    return two, float(np.minimum(fallen, rises).max())
