"""How well alarms tell windows before a spike from quiet ones: over all thresholds, and at a rate of false alarms.

A window is told by its largest score without sign. Areas and precisions are those of the windows of all runs
together, each as often as its run is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, inf, nan

import numpy as np

from lmshape.dynamics.alarm_scores import Windows
from lmshape.dynamics.warning_rule import RULE, WarningRule

PER_STEPS = 10_000  # that false alarms are counted in


@dataclass(frozen=True, slots=True)
class Told:
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
    def of(cls, parts: list[tuple[int, np.ndarray, np.ndarray, Windows]]) -> Told:
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

    def thresholds(self, runs: int, rule: WarningRule = RULE) -> np.ndarray:
        """Return (R,) for each run the least threshold that keeps the rate on the quiet windows of all others.

        On its own where it has the only ones.
        """
        found = []
        for run in range(runs):
            others = self.quiet_run != run
            chosen = others if others.any() else ~others
            quiet, steps = self.quiet[chosen], self.steps[chosen]
            allowed = floor(rule.rate * steps.sum() / PER_STEPS)
            known = np.sort(quiet[~np.isnan(quiet)])[::-1]
            found.append(known[allowed] if allowed < len(known) else -inf)
        return np.array(found)

    def leads_at(self, thresholds: np.ndarray) -> np.ndarray:
        """Return (s,) steps from the first alarm over each run's threshold to the onset; NaN where there is none."""
        alarms = self.before_scores > thresholds[self.before_run][:, None]
        first = np.argmax(alarms, axis=1)
        return np.where(alarms.any(axis=1), self.leads[np.arange(len(first)), first], nan)

    def false_at(self, thresholds: np.ndarray) -> np.ndarray:
        """Return (q,) bool: the quiet windows with an alarm over their run's threshold."""
        return self.quiet > thresholds[self.quiet_run]


def _padded(values: np.ndarray, width: int) -> np.ndarray:
    return np.concatenate([values, np.full(width - len(values), nan)])


def _largest(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.max()) if len(known) else nan
