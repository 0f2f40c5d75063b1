"""Alarm scores of a series, and the windows in which they are right or wrong.

A score is how many robust standard deviations a value lies from the median of the values before it: of at most
`window` of them, none from before the end of the last spike. It knows nothing of later values, and nothing of
other runs. Both ways count as alarming; the sign is kept for telling which way a series moves.

Windows of `horizon` values make right and wrong comparable: the one before each onset, and quiet ones, which follow
each other wherever no spike is under way, recovered from less than `least` values ago, or due within the horizon.
The end of a run is not quiet: nobody knows what would have come.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from lmshape.dynamics.calm_losses import NORMAL_DEVIATION
from lmshape.dynamics.spikes import Spike
from lmshape.dynamics.warning_rule import RULE, WarningRule

DIGITS = 9  # of a score behind the point
RESOLUTION = 1e-9  # of a median: values nearer to each other than that are equal


@dataclass(frozen=True, slots=True)
class Windows:
    """Places of a series that belong together, by their steps alone.

    Attributes
    ----------
    stretches : (n,) int: number of the stretch between spikes that a value lies in, −1 within a spike
    before : places before each onset that has values enough before it
    onsets : the onset of each of these
    quiet : places of each quiet window
    steps_of_window : steps that a window lasts
    unscored : onsets without values enough before them
    """

    stretches: np.ndarray
    before: tuple[np.ndarray, ...]
    onsets: tuple[float, ...]
    quiet: tuple[np.ndarray, ...]
    steps_of_window: float
    unscored: tuple[float, ...]


def windows_of(
    steps: np.ndarray, spikes: Sequence[Spike], *, last_step: float, rule: WarningRule = RULE
) -> Windows:
    """Lay the windows of a series.

    Parameters
    ----------
    steps : (n,) steps of its values, rising
    spikes : of the run's loss
    last_step : of the run's loss
    rule : numbers of windows
    """
    cadence = float(np.median(np.diff(steps))) if len(steps) > 1 else np.inf
    horizon = rule.horizon * cadence
    stretches = _stretches(steps, spikes)
    scored = _places_in_stretch(stretches) >= rule.least
    before, onsets, unscored = [], [], []
    for spike in spikes:
        places = np.flatnonzero((steps >= spike.onset - horizon) & (steps < spike.onset) & scored)
        if len(places) >= rule.horizon / 2:
            before.append(places)
            onsets.append(spike.onset)
        else:
            unscored.append(spike.onset)
    ahead = [spike.onset for spike in spikes] + [last_step]
    following = np.array([min((end for end in ahead if end >= step), default=-np.inf) for step in steps])
    calm = np.flatnonzero(scored & (steps < following - horizon))
    quiet = _laid(calm, stretches, rule.horizon)
    return Windows(stretches, tuple(before), tuple(onsets), tuple(quiet), horizon, tuple(unscored))


def scores(values: np.ndarray, stretches: np.ndarray, rule: WarningRule = RULE) -> np.ndarray:
    """Score each value against those before it.

    Parameters
    ----------
    values : (n,) float64 of a series, NaN where there is none
    stretches : (n,) as in `Windows`

    Returns
    -------
    (n,) signed, NaN where under `least` values of the stretch lie before. Infinite nowhere: values that differ from
    equal ones before them count as `RESOLUTION` of their median away at the least.
    """
    found = np.full(len(values), np.nan)
    for number in range(stretches.max(initial=-1) + 1):
        places = np.flatnonzero(stretches == number)
        if len(places) > rule.least:
            found[places] = _scores(values[places], rule)
    return found


def _scores(values: np.ndarray, rule: WarningRule) -> np.ndarray:
    padded = np.concatenate([np.full(rule.window, np.nan), values[:-1]])
    before = sliding_window_view(padded, rule.window)
    enough = np.count_nonzero(~np.isnan(before), axis=1) >= rule.least
    found = np.full(len(values), np.nan)
    if not enough.any():
        return found
    medians = np.nanmedian(before[enough], axis=1)
    spread = NORMAL_DEVIATION * np.nanmedian(np.abs(before[enough] - medians[:, None]), axis=1)
    floor = RESOLUTION * np.maximum(np.abs(medians), 1e-300)
    # rounded, so that a series of a fixed course, such as a learning rate, scores the same everywhere
    found[enough] = np.round((values[enough] - medians) / np.maximum(spread, floor), DIGITS)
    return found


def _stretches(steps: np.ndarray, spikes: Sequence[Spike]) -> np.ndarray:
    number = np.zeros(len(steps), dtype=int)
    inside = np.zeros(len(steps), dtype=bool)
    for spike in spikes:
        number += steps > spike.last
        inside |= (steps >= spike.onset) & (steps <= spike.last)
    return np.where(inside, -1, number)


def _places_in_stretch(stretches: np.ndarray) -> np.ndarray:
    """Count the values of its stretch before each value; −1 within a spike."""
    places = np.full(len(stretches), -1)
    for number in range(stretches.max(initial=-1) + 1):
        inside = stretches == number
        places[inside] = np.arange(np.count_nonzero(inside))
    return places


def _laid(calm: np.ndarray, stretches: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Lay windows of `size` places one after the other into each stretch; what is left over is in none."""
    for number in np.unique(stretches[calm]):
        places = calm[stretches[calm] == number]
        for first in range(0, len(places) - size + 1, size):
            yield places[first : first + size]
