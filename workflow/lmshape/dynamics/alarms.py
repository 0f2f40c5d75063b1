"""Alarm scores of a series, and the windows in which they are right or wrong.

A score is how many robust standard deviations a value lies from the median of the values before it: of at most
`window` of them, none from before the end of the last spike. It depends on no later value, and on no other run. Both
directions count as alarming; the sign says in which direction a series moves.

Windows of `horizon` values make right and wrong comparable: the one before each onset, and quiet ones, which follow
each other wherever no spike is under way, recovered from less than `least` values ago, or due within the horizon.
The end of a run is not quiet: what would have followed is unknown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf, nan, sqrt

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from lmshape.dynamics.noise import LEVEL
from lmshape.dynamics.spikes import NORMAL_DEVIATION, Rule, Spike


@dataclass(frozen=True, slots=True, kw_only=True)
class WarningRule(Rule):
    """The numbers of an early warning; all counts but the last three are of a series' own values.

    Attributes
    ----------
    window, least : values behind a score, at most and at least; none from before the last spike's end
    horizon : values before an onset in which an alarm is a hit
    latest : values before an onset whose mean tells which way a series moves
    fewest_spikes, fewest_runs : with fewer there are no intervals
    rate : false alarms per 10 000 quiet steps at which hits are counted
    """

    window: int = 16
    least: int = 8
    horizon: int = 10
    latest: int = 3
    fewest_spikes: int = 5
    fewest_runs: int = 3
    rate: float = 10.0


RULE = WarningRule()


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


def lay_windows(steps: np.ndarray, spikes: Sequence[Spike], *, last_step: float) -> Windows:
    """Lay the windows of a series.

    Parameters
    ----------
    steps : (n,) steps of its values, rising
    spikes : of the run's loss
    last_step : of the run's loss
    """
    cadence = float(np.median(np.diff(steps))) if len(steps) > 1 else np.inf
    horizon = RULE.horizon * cadence
    stretches = _stretches(steps, spikes)
    # values of its stretch before each value
    scored = (pd.Series(stretches).groupby(stretches).cumcount().to_numpy() >= RULE.least) & (stretches >= 0)
    before, onsets, unscored = [], [], []
    for spike in spikes:
        places = np.flatnonzero((steps >= spike.onset - horizon) & (steps < spike.onset) & scored)
        if len(places) >= RULE.horizon / 2:
            before.append(places)
            onsets.append(spike.onset)
        else:
            unscored.append(spike.onset)
    ahead = np.array([*(spike.onset for spike in spikes), last_step, -np.inf])
    following = ahead[np.searchsorted(ahead[:-1], steps)]
    calm = np.flatnonzero(scored & (steps < following - horizon))
    quiet = _laid(calm, stretches, RULE.horizon)
    return Windows(stretches, tuple(before), tuple(onsets), tuple(quiet), horizon, tuple(unscored))


def scores(values: np.ndarray, stretches: np.ndarray) -> np.ndarray:
    """Score each value against those before it.

    Parameters
    ----------
    values : (n,) float64 of a series, NaN where there is none
    stretches : (n,) as in `Windows`

    Returns
    -------
    (n,) signed, NaN where under `least` values of the stretch lie before. Infinite nowhere: values that differ from
    equal ones before them count as `RESOLUTION` of their median away at least.
    """
    found = np.full(len(values), np.nan)
    for number in range(stretches.max(initial=-1) + 1):
        places = np.flatnonzero(stretches == number)
        if len(places) > RULE.least:
            found[places] = _scores(values[places])
    return found


def _scores(values: np.ndarray) -> np.ndarray:
    padded = np.concatenate([np.full(RULE.window, np.nan), values[:-1]])
    before = sliding_window_view(padded, RULE.window)
    enough = np.count_nonzero(~np.isnan(before), axis=1) >= RULE.least
    found = np.full(len(values), np.nan)
    if not enough.any():
        return found
    medians = np.nanmedian(before[enough], axis=1)
    spread = NORMAL_DEVIATION * np.nanmedian(np.abs(before[enough] - medians[:, None]), axis=1)
    floor = RESOLUTION * np.maximum(np.abs(medians), 1e-300)
    # rounded, so that a series of fixed values, such as a learning rate, scores the same everywhere
    found[enough] = np.round((values[enough] - medians) / np.maximum(spread, floor), DIGITS)
    return found


def _stretches(steps: np.ndarray, spikes: Sequence[Spike]) -> np.ndarray:
    number = np.zeros(len(steps), dtype=int)
    inside = np.zeros(len(steps), dtype=bool)
    for spike in spikes:
        number += steps > spike.last
        inside |= (steps >= spike.onset) & (steps <= spike.last)
    return np.where(inside, -1, number)


def _laid(calm: np.ndarray, stretches: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Lay windows of `size` places one after the other into each stretch; what is left over is in none."""
    for number in np.unique(stretches[calm]):
        places = calm[stretches[calm] == number]
        for first in range(0, len(places) - size + 1, size):
            yield places[first : first + size]


PER_STEPS = 10_000  # that false alarms are counted in


@dataclass(frozen=True, slots=True)
class WindowScores:
    """Largest scores of the windows of one series in all runs.

    Attributes
    ----------
    before, quiet : (s,) and (q,) largest scores before onsets and in quiet windows; NaN where a window has none
    before_run, quiet_run : the run of each, as a number
    leads : (s, w) steps from each value of a window before an onset to the onset, in order; `before_scores` (s, w) its
        score without sign, NaN where the window is shorter
    steps : (q,) steps of each quiet window
    """

    before: np.ndarray
    quiet: np.ndarray
    before_run: np.ndarray
    quiet_run: np.ndarray
    leads: np.ndarray
    before_scores: np.ndarray
    steps: np.ndarray

    @classmethod
    def of(cls, parts: list[tuple[int, np.ndarray, np.ndarray, Windows]]) -> WindowScores:
        """Collect the windows of each run: its number, the steps and the scores of the series, its windows."""
        width = max((len(places) for *_, windows in parts for places in windows.before), default=1)
        before, leads, quiet, of_before, of_quiet, steps = [], [], [], [], [], []
        for run, at, scored, windows in parts:
            size = np.abs(scored)
            for places, onset in zip(windows.before, windows.onsets, strict=True):
                before.append(_padded(size[places], width))
                leads.append(_padded(onset - at[places], width))
                of_before.append(run)
            quiet += [_largest(size[places]) for places in windows.quiet]
            of_quiet += [run] * len(windows.quiet)
            steps += [windows.steps_of_window] * len(windows.quiet)
        scores_before = np.array(before).reshape(len(before), width)
        return cls(
            before=np.array([_largest(row) for row in scores_before]),
            quiet=np.array(quiet),
            before_run=np.array(of_before, dtype=int),
            quiet_run=np.array(of_quiet, dtype=int),
            leads=np.array(leads).reshape(len(leads), width),
            before_scores=scores_before,
            steps=np.array(steps),
        )

    def areas(self, weights: np.ndarray) -> np.ndarray:
        """Return the area under the ROC curve for each row of `weights` (B, R): P(before > quiet) + P(equal)/2."""
        table = np.zeros((2, weights.shape[1], weights.shape[1]))
        wins = (self.before[:, None] > self.quiet) + 0.5 * (self.before[:, None] == self.quiet)
        known = ~np.isnan(self.before)[:, None] & ~np.isnan(self.quiet)
        for number, numbers in enumerate((np.where(known, wins, 0), known)):
            np.add.at(table[number], (self.before_run[:, None], self.quiet_run[None, :]), numbers)
        won, pairs = (np.einsum("bi,ij,bj->b", weights, part, weights) for part in table)
        return np.divide(won, pairs, out=np.full(len(weights), nan), where=pairs > 0)

    def average_precisions(self, weights: np.ndarray) -> np.ndarray:
        """Return Σ (recall step) × precision over falling thresholds, for each row of `weights` (B, R)."""
        scores = np.concatenate([self.before, self.quiet])
        right = np.arange(len(scores)) < len(self.before)
        runs = np.concatenate([self.before_run, self.quiet_run])
        known = np.flatnonzero(~np.isnan(scores))
        order = known[np.argsort(-scores[known], kind="stable")]
        drawn = weights[:, runs[order]]
        hits = np.cumsum(drawn * right[order], axis=1)
        alarms = np.cumsum(drawn, axis=1)
        last = np.append(np.diff(scores[order]) != 0, True)  # of windows with equal scores
        hits, alarms = hits[:, last], alarms[:, last]
        if not hits.size:
            return np.full(len(weights), nan)
        steps = np.diff(hits, axis=1, prepend=0)
        precision = np.divide(hits, alarms, out=np.zeros_like(hits), where=alarms > 0)
        total = hits[:, -1]
        return np.divide(
            (steps * precision).sum(axis=1), total, out=np.full(len(weights), nan), where=total > 0
        )

    def thresholds(self, weights: np.ndarray) -> np.ndarray:
        """Return (B, R) for each run the least threshold that keeps the rate on the quiet windows of all others.

        On its own where it has the only ones; no alarm at all where a resample has none of them.
        """
        known = np.flatnonzero(~np.isnan(self.quiet))
        order = known[np.argsort(-self.quiet[known], kind="stable")]
        scores = np.append(self.quiet[order], -inf)
        found = np.full(weights.shape, inf)
        for run in range(weights.shape[1]):
            others = self.quiet_run != run
            drawn = weights[:, self.quiet_run] * (others if others.any() else ~others)
            allowed = np.floor(RULE.rate * (drawn @ self.steps) / PER_STEPS)
            alarms = np.cumsum(np.insert(drawn[:, order], len(order), inf, axis=1), axis=1)
            least = scores[np.argmax(alarms > allowed[:, None], axis=1)]
            found[:, run] = np.where(drawn.any(axis=1), least, inf)
        return found

    def leads_at(self, thresholds: np.ndarray) -> np.ndarray:
        """Return (B, s) steps from the first alarm over each run's threshold to the onset; NaN where there is none."""
        alarms = self.before_scores > thresholds[:, self.before_run, None]
        leads = self.leads[np.arange(len(self.leads)), np.argmax(alarms, axis=2)]
        return np.where(alarms.any(axis=2), leads, nan)

    def false_at(self, thresholds: np.ndarray) -> np.ndarray:
        """Return (q,) bool: the quiet windows with an alarm over their run's threshold, (R,)."""
        return self.quiet > thresholds[self.quiet_run]


def _padded(values: np.ndarray, width: int) -> np.ndarray:
    return np.concatenate([values, np.full(width - len(values), nan)])


def _largest(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.max()) if len(known) else nan


RESAMPLES = 2000


def run_weights(strata: Sequence[int], *, seed: int = 0, resamples: int = RESAMPLES) -> np.ndarray:
    """Draw runs with replacement, those of each stratum among themselves.

    Parameters
    ----------
    strata : (R,) stratum of each run, as whether it has spikes

    Returns
    -------
    (1 + resamples, R) float64: how often each run is drawn; the first row is of ones, the sample itself.
    """
    random = np.random.default_rng(seed)
    labels = np.asarray(strata)
    weights = np.zeros((resamples + 1, len(labels)))
    weights[0] = 1
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        drawn = members[random.integers(len(members), size=(resamples, len(members)))]
        for column in drawn.T:
            weights[np.arange(1, resamples + 1), column] += 1
    return weights


def run_interval(statistics: np.ndarray, *, runs: int) -> tuple[float, float]:
    """Return the expanded percentiles of resampled statistics, NaN with under 2 runs or under half of them defined.

    Parameters
    ----------
    statistics : (B,) of the resamples; NaN where one is not defined
    runs : independent runs behind the statistic
    """
    defined = statistics[~np.isnan(statistics)]
    if runs < 2 or len(defined) < len(statistics) / 2:
        return nan, nan
    tail = float(ndtr(stdtrit(runs - 1, (1 - LEVEL) / 2) * sqrt(runs / (runs - 1))))
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)


def share_interval(shares: np.ndarray, *, runs: int) -> tuple[float, float]:
    """Return the interval of a share of events, (1 + B,): of the sample, then of the resamples.

    What no run has, or all have, no resample shows otherwise; then the end is that of so many of `runs` independent
    runs (Clopper & Pearson 1934).
    """
    low, high = run_interval(shares[1:], runs=runs)
    end = ((1 - LEVEL) / 2) ** (1 / max(runs, 1))
    return min(low, end) if shares[0] == 1 else low, max(high, 1 - end) if shares[0] == 0 else high


def two_sided(statistics: np.ndarray, *, runs: int) -> float:
    """Return the p-value of a statistic whose true value is 0: the level at which `run_interval` would end there."""
    defined = statistics[~np.isnan(statistics)]
    if runs < 2 or len(defined) < len(statistics) / 2:
        return nan
    under = np.count_nonzero(defined < 0) + np.count_nonzero(defined == 0) / 2
    share = (min(under, len(defined) - under) + 0.5) / (len(defined) + 1)
    return float(min(1.0, 2 * stdtr(runs - 1, ndtri(share) / sqrt(runs / (runs - 1)))))


def weighted_median(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the median of values drawn so often, the lower one where two share it.

    Parameters
    ----------
    values : (n,) or (B, n); NaN has no weight
    weights : (B, n) non-negative

    Returns
    -------
    (B,), NaN where all weights are 0.
    """
    if not values.shape[-1]:
        return np.full(len(weights), nan)
    values = np.broadcast_to(values, weights.shape)
    order = np.argsort(values, axis=1, kind="stable")
    summed = np.cumsum(np.take_along_axis(np.where(np.isnan(values), 0, weights), order, axis=1), axis=1)
    place = np.argmax(summed >= summed[:, -1:] / 2, axis=1)[:, None]
    return np.where(
        summed[:, -1] > 0, np.take_along_axis(values, np.take_along_axis(order, place, 1), 1)[:, 0], nan
    )
