"""How often alarms are right: areas, precision and hit rates over windows, with intervals over resampled runs.

Windows of `horizon` values make right and wrong comparable: the one before each onset, and quiet ones. The largest
score of a window decides whether it has an alarm. Runs are drawn with replacement, whole; every statistic is computed
for all resamples at once, from how often each run is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, nan, sqrt

import numpy as np
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from lmshape.dynamics.noise import LEVEL
from lmshape.dynamics.spikes import Rule


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
PER_STEPS = 10_000  # that false alarms are counted in
Laid = tuple[int, np.ndarray, int, float]  # run, places, end and steps of one of the `Windows`


@dataclass(frozen=True, slots=True)
class Windows:
    """Some windows in the values of all runs, which stand one behind the other.

    Attributes
    ----------
    runs : (k,) number of the run of each
    places : (k, w) its values in order; −1 in the place of those that a shorter one has fewer
    ends : (k,) place behind it: of the first value at or after the onset
    steps : (k,) the onset; of a quiet window the steps that it lasts
    """

    runs: np.ndarray
    places: np.ndarray
    ends: np.ndarray
    steps: np.ndarray

    @classmethod
    def of(cls, laid: Sequence[Laid]) -> Windows:
        """Take them from the run, places, end and steps of each."""
        width = max((len(places) for _, places, *_ in laid), default=1)
        filled = [np.pad(places, (width - len(places), 0), constant_values=-1) for _, places, *_ in laid]
        runs, ends = (np.array([one[part] for one in laid], dtype=int) for part in (0, 2))
        steps = np.array([one[3] for one in laid], dtype=float)
        return cls(runs, np.array(filled, dtype=int).reshape(-1, width), ends, steps)

    def of_runs(self, there: np.ndarray) -> Windows:
        """Keep those of some runs, (R,) bool."""
        kept = there[self.runs]
        return Windows(self.runs[kept], self.places[kept], self.ends[kept], self.steps[kept])


@dataclass(frozen=True, slots=True)
class Alarms:
    """The scores of one series in the windows of the runs that have it.

    Attributes
    ----------
    before, quiet : s windows before onsets, and q without a spike
    scores : (n + 1,) signed, of the values of all runs; NaN where there is none, and behind the last
    steps : (n,) of these values
    """

    before: Windows
    quiet: Windows
    scores: np.ndarray
    steps: np.ndarray

    def highest(self, windows: Windows) -> np.ndarray:
        """(k,): the largest score without sign in each window; NaN where there is none."""
        return np.fmax.reduce(np.abs(self.scores)[windows.places], axis=1)

    def moves(self, windows: Windows) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean of the last signed scores of each window that has any, and the runs of these windows."""
        latest = self.scores[windows.places[:, -RULE.latest :]]
        known = ~np.isnan(latest).all(axis=1)
        return np.nanmean(latest[known], axis=1), windows.runs[known]

    def areas(self, weights: np.ndarray) -> np.ndarray:
        """Return the area under the ROC curve for each row of `weights` (B, R): P(before > quiet) + P(equal)/2."""
        before, quiet = self.highest(self.before)[:, None], self.highest(self.quiet)
        table = np.zeros((2, weights.shape[1], weights.shape[1]))
        wins = (before > quiet) + 0.5 * (before == quiet)
        known = ~np.isnan(before) & ~np.isnan(quiet)
        for number, numbers in enumerate((np.where(known, wins, 0), known)):
            np.add.at(table[number], (self.before.runs[:, None], self.quiet.runs), numbers)
        won, pairs = (np.einsum("bi,ij,bj->b", weights, part, weights) for part in table)
        return ratios(won, pairs)

    def average_precisions(self, weights: np.ndarray) -> np.ndarray:
        """Return Σ (recall step) × precision over falling thresholds, for each row of `weights` (B, R)."""
        scores = np.concatenate([self.highest(self.before), self.highest(self.quiet)])
        right = np.arange(len(scores)) < len(self.before.runs)
        runs = np.concatenate([self.before.runs, self.quiet.runs])
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
        return ratios((steps * precision).sum(axis=1), hits[:, -1])

    def thresholds(self, weights: np.ndarray) -> np.ndarray:
        """Return (B, R) for each run the least threshold that keeps the rate on the quiet windows of all others.

        On its own where it has the only ones; no alarm at all where a resample has none of them.
        """
        highest, runs = self.highest(self.quiet), self.quiet.runs
        known = np.flatnonzero(~np.isnan(highest))
        order = known[np.argsort(-highest[known], kind="stable")]
        scores = np.append(highest[order], -inf)
        found = np.full(weights.shape, inf)
        for run in range(weights.shape[1]):
            others = runs != run
            drawn = weights[:, runs] * (others if others.any() else ~others)
            allowed = np.floor(RULE.rate * (drawn @ self.quiet.steps) / PER_STEPS)
            alarms = np.cumsum(np.insert(drawn[:, order], len(order), inf, axis=1), axis=1)
            least = scores[np.argmax(alarms > allowed[:, None], axis=1)]
            found[:, run] = np.where(drawn.any(axis=1), least, inf)
        return found

    def leads_at(self, thresholds: np.ndarray) -> np.ndarray:
        """Return (B, s) steps from the first alarm over each run's threshold to the onset; NaN where there is none."""
        alarms = np.abs(self.scores)[self.before.places] > thresholds[:, self.before.runs, None]
        first = self.before.places[np.arange(len(self.before.runs)), np.argmax(alarms, axis=2)]
        return np.where(alarms.any(axis=2), self.before.steps - self.steps[first], nan)

    def false_at(self, thresholds: np.ndarray) -> np.ndarray:
        """Return (q,) bool: the quiet windows with an alarm over their run's threshold, (R,)."""
        return self.highest(self.quiet) > thresholds[self.quiet.runs]


def ratios(numbers: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Divide; NaN where a total is 0."""
    return np.divide(numbers, totals, out=np.full(len(totals), nan), where=totals > 0)


RESAMPLES = 2000


def run_weights(
    strata: Sequence[int] | np.ndarray, *, seed: int = 0, resamples: int = RESAMPLES
) -> np.ndarray:
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
