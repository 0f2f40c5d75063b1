"""Which way a series moves before a spike: against what it does in quiet windows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import nan

import numpy as np

from lmshape.dynamics.alarm_scores import Windows
from lmshape.dynamics.calm_losses import NORMAL_DEVIATION
from lmshape.dynamics.run_bootstrap import interval, weighted_median
from lmshape.dynamics.warning_rule import RULE, WarningRule

LEAST_SPREAD = 1e-6  # of moves, in deviations of the values
DRAWN_BACK, DRAWN_ON = 20, 3  # values before and behind an onset, in the course around it


@dataclass(frozen=True, slots=True)
class Followed:
    """A series of one run: number of the run, steps, values, signed scores, and the windows of its steps."""

    run: int
    steps: np.ndarray
    values: np.ndarray
    scores: np.ndarray
    windows: Windows


def moves(
    parts: Sequence[Followed], weights: np.ndarray, *, runs: int, rule: WarningRule = RULE
) -> tuple[float, float, float]:
    """Return the median move over spikes and its interval, in standard deviations of quiet moves about their median.

    A move is the mean of the last signed scores of a window.

    Parameters
    ----------
    parts : the series in each run
    weights : (1 + B, R) how often each run is drawn
    runs : runs with spikes

    Returns
    -------
    NaN where no window, or no quiet one, has a score.
    """
    before = np.array(
        [(part.run, _move(part, places, rule)) for part in parts for places in part.windows.before]
    )
    quiet = np.array([_move(part, places, rule) for part in parts for places in part.windows.quiet])
    before = before.reshape(-1, 2)
    before, quiet = before[~np.isnan(before[:, 1])], quiet[~np.isnan(quiet)]
    if not len(before) or len(quiet) < 2:
        return nan, nan, nan
    middle = np.median(quiet)
    spread = NORMAL_DEVIATION * np.median(np.abs(quiet - middle))
    if not spread > LEAST_SPREAD:  # a series whose quiet moves are all the same has no deviations
        return nan, nan, nan
    medians = weighted_median((before[:, 1] - middle) / spread, weights[:, before[:, 0].astype(int)])
    return float(medians[0]), *interval(medians[1:], runs=runs)


def courses(
    parts: Sequence[Followed], weights: np.ndarray, *, runs: int, rule: WarningRule = RULE
) -> Iterator[dict[str, float]]:
    """Yield the mean change around onsets, offset by offset, and that around the ends of quiet windows.

    A change is a value less the median of those before the horizon, in the series' own unit.
    """
    before = [
        (part.run, _course(part, _place_of(part, onset), rule))
        for part in parts
        for onset in part.windows.onsets
    ]
    quiet = [_course(part, int(places[-1]) + 1, rule) for part in parts for places in part.windows.quiet]
    if not before:
        return
    of_run, table = np.array([run for run, _ in before]), np.array([course for _, course in before])
    others = np.array(quiet).reshape(len(quiet), DRAWN_BACK + DRAWN_ON)
    for column, offset in enumerate(range(-DRAWN_BACK, DRAWN_ON)):
        known = ~np.isnan(table[:, column])
        if not known.any():
            continue
        drawn = weights[:, of_run[known]]
        total = drawn.sum(axis=1)
        means = np.divide(drawn @ table[known, column], total, out=np.full(len(total), nan), where=total > 0)
        low, high = interval(means[1:], runs=runs)
        calm = others[:, column][~np.isnan(others[:, column])] if offset < 0 else np.array([])
        quiet_low, quiet_high = np.quantile(calm, [0.025, 0.975]) if len(calm) else (nan, nan)
        yield {
            "offset": offset,
            "spikes": int(known.sum()),
            "change": float(means[0]),
            "change_low": low,
            "change_high": high,
            "quiet": float(calm.mean()) if len(calm) else nan,
            "quiet_low": float(quiet_low),
            "quiet_high": float(quiet_high),
        }


def _move(part: Followed, places: np.ndarray, rule: WarningRule) -> float:
    latest = part.scores[places[-rule.latest :]]
    known = latest[~np.isnan(latest)]
    return float(known.mean()) if len(known) else nan


def _place_of(part: Followed, onset: float) -> int:
    """Place of the first value that is not before an onset."""
    return int(np.searchsorted(part.steps, onset, side="left"))


def _course(part: Followed, end: int, rule: WarningRule) -> np.ndarray:
    """(offsets,) change at each offset from place `end`; NaN outside the stretch before, and behind the next onset."""
    found = np.full(DRAWN_BACK + DRAWN_ON, nan)
    stretch = part.windows.stretches[end - 1]
    start = end - rule.horizon
    reference = np.arange(max(0, start - rule.window), max(0, start))
    reference = reference[part.windows.stretches[reference] == stretch]
    values = part.values[reference]
    if np.count_nonzero(~np.isnan(values)) < 3:
        return found
    level = np.nanmedian(values)
    for column, place in enumerate(range(end - DRAWN_BACK, min(end + DRAWN_ON, len(part.values)))):
        inside = place >= end or (place >= 0 and part.windows.stretches[place] == stretch)
        if inside:
            found[column] = part.values[place] - level
    return found
