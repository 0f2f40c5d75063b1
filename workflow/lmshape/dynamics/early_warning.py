"""Whether a series warns of loss spikes, and whether geometry does better than what needs none.

Every series of a group of runs is put to the same test, with the same windows and the same resampled runs, so that
differences are paired. The baseline that geometry is compared with is the one of the largest area in the same runs,
which favors the baseline.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan

import numpy as np
import pandas as pd

from lmshape.dynamics.alarm_curves import PER_STEPS, Told
from lmshape.dynamics.alarm_scores import Windows, scores, windows_of
from lmshape.dynamics.holm import holm
from lmshape.dynamics.moves import Followed, courses, moves
from lmshape.dynamics.run_bootstrap import interval, run_weights, two_sided, weighted_median
from lmshape.dynamics.spikes import Spike
from lmshape.dynamics.warning_rule import RULE, WarningRule
from lmshape.dynamics.warning_series import NO_LAYER, Series

MOST_POINTS = 200  # of a curve over thresholds


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A run whose spikes are to be warned of: its series, its spikes, and the last step of its loss."""

    series: Sequence[Series]
    spikes: Sequence[Spike]
    last_step: float


@dataclass(frozen=True, slots=True)
class Warnings:
    """Rows of the tables `warnings`, `alarms` and `before_spikes`."""

    warnings: pd.DataFrame
    alarms: pd.DataFrame
    courses: pd.DataFrame


@dataclass(frozen=True, slots=True)
class _Tested:
    """A series in all runs, its windows told apart, and its area with every resample."""

    key: tuple[str, int]
    kind: str
    parts: list[Followed]
    told: Told
    areas: np.ndarray


def early_warnings(watched: Sequence[Watched], rule: WarningRule = RULE) -> Warnings:
    """Test every series of runs whose models have the same blocks.

    Parameters
    ----------
    watched : the runs, at least one, with spikes or without
    rule : how a warning is counted
    """
    windows = [
        windows_of(run.series[0].steps, run.spikes, last_step=run.last_step, rule=rule) for run in watched
    ]
    weights = run_weights([bool(one.before) for one in windows])
    tested = [_tested(key, kind, watched, windows, weights, rule) for key, kind in _keys(watched).items()]
    best = _best_baseline(tested)
    group = _Group(windows, weights, best, rule)
    rows = [group.row(one, watched) for one in tested]
    adjusted = holm([row["p"] for row in rows])
    return Warnings(
        pd.DataFrame([row | {"p_adjusted": p} for row, p in zip(rows, adjusted, strict=True)]),
        pd.DataFrame([point for one in tested for point in _points(one)]),
        pd.DataFrame([point for one in tested for point in group.course(one)]),
    )


def _keys(watched: Sequence[Watched]) -> dict[tuple[str, int], str]:
    return {series.key: series.kind for run in watched for series in run.series}


def _tested(
    key: tuple[str, int],
    kind: str,
    watched: Sequence[Watched],
    windows: Sequence[Windows],
    weights: np.ndarray,
    rule: WarningRule,
) -> _Tested:
    parts = []
    for number, (run, own) in enumerate(zip(watched, windows, strict=True)):
        for series in run.series:
            if series.key == key:
                scored = scores(series.values, own.stretches, rule)
                parts.append(Followed(number, series.steps, series.values, scored, own))
    told = Told.of([(part.run, part.steps, part.scores, part.windows) for part in parts])
    return _Tested(key, kind, parts, told, told.areas(weights))


def _best_baseline(tested: Sequence[_Tested]) -> _Tested | None:
    known = [one for one in tested if one.kind == "baseline" and not isnan(one.areas[0])]
    return max(known, key=lambda one: one.areas[0], default=None)


@dataclass(frozen=True, slots=True)
class _Group:
    """What all series of a group share."""

    windows: Sequence[Windows]
    weights: np.ndarray
    best: _Tested | None
    rule: WarningRule

    @property
    def runs(self) -> int:
        """Runs with a spike that has values before it."""
        return sum(bool(own.before) for own in self.windows)

    @property
    def spikes(self) -> int:
        """Spikes with values before them."""
        return sum(len(own.before) for own in self.windows)

    @property
    def runs_of_interval(self) -> int:
        """Runs behind intervals; 0, which gives none, where runs or spikes are too few."""
        enough = self.runs >= self.rule.fewest_runs and self.spikes >= self.rule.fewest_spikes
        return self.runs if enough else 0

    def row(self, one: _Tested, watched: Sequence[Watched]) -> dict[str, object]:
        """Return the columns of `warnings` that one series fills."""
        every = [np.median(np.diff(run.series[0].steps)) for run in watched if len(run.series[0].steps) > 1]
        metric, layer = one.key
        row = {
            "kind": one.kind,
            "metric": metric,
            "layer": None if layer == NO_LAYER else layer,
            "spikes": self.spikes,
            "unscored": sum(len(own.unscored) for own in self.windows),
            "runs": self.runs,
            "quiet_windows": sum(len(own.quiet) for own in self.windows),
            "every": float(np.median(every)) if every else nan,
            "rule": str(self.rule),
            "p": nan,
            "best_baseline": "",
        }
        row["flag"] = self.flag(one, row)
        if row["flag"].startswith("not measurable"):
            return row
        return row | self._measured(one) | self._compared(one)

    def flag(self, one: _Tested, row: Mapping[str, object]) -> str:
        """Say why a series cannot be tested, or why there are no intervals."""
        values = f"{self.rule.least + self.rule.horizon // 2} values before it"
        if not self.spikes and not row["unscored"]:
            return "not measurable: no spike"
        if not self.spikes:
            return f"not measurable: no spike has {values}, one every {row['every']:g} steps"
        if not row["quiet_windows"]:
            return f"not measurable: no quiet window of {self.rule.horizon} values, one every {row['every']:g} steps"
        if isnan(one.areas[0]):
            return "not measurable: the series has no values there"
        if not self.runs_of_interval:
            return (
                f"too few: {self.spikes} spikes in {self.runs} runs; intervals need {self.rule.fewest_spikes} in "
                f"{self.rule.fewest_runs}"
            )
        return ""

    def _measured(self, one: _Tested) -> dict[str, float]:
        told, weights = one.told, self.weights
        precision = told.average_precisions(weights)
        thresholds = told.thresholds(weights.shape[1], self.rule)
        leads = told.leads_at(thresholds)
        hits = np.isfinite(leads)
        drawn = weights[:, told.before_run]
        rates = (drawn @ hits) / np.maximum(drawn.sum(axis=1), 1e-300)
        medians = weighted_median(leads[hits], weights[:, told.before_run[hits]])
        false = told.false_at(thresholds).sum() / told.steps.sum() * PER_STEPS
        return {
            **self._interval("auc", one.areas),
            **self._interval("average_precision", precision),
            **self._interval("hit_rate", rates),
            **self._interval("lead_steps", medians),
            "false_alarms_per_10k": float(false),
            **dict(
                zip(
                    ("move_before", "move_before_low", "move_before_high"),
                    moves(one.parts, weights, runs=self.runs_of_interval, rule=self.rule),
                    strict=True,
                )
            ),
        }

    def _compared(self, one: _Tested) -> dict[str, object]:
        if self.best is None or one.kind == "baseline":
            return {}
        metric, layer = self.best.key
        name = metric if layer == NO_LAYER else f"{metric} layer {layer}"
        gains = one.areas - self.best.areas
        p = two_sided(gains[1:], runs=self.runs_of_interval)
        return {"best_baseline": name, **self._interval("auc_gain", gains), "p": p}

    def _interval(self, name: str, statistics: np.ndarray) -> dict[str, float]:
        low, high = interval(statistics[1:], runs=self.runs_of_interval)
        return {name: float(statistics[0]), f"{name}_low": low, f"{name}_high": high}

    def course(self, one: _Tested) -> Iterator[dict[str, object]]:
        """Yield the rows of `before_spikes` of a series."""
        metric, layer = one.key
        every = float(
            np.median([np.median(np.diff(part.steps)) for part in one.parts if len(part.steps) > 1])
        )
        name = {"kind": one.kind, "metric": metric, "layer": None if layer == NO_LAYER else layer}
        for point in courses(one.parts, self.weights, runs=self.runs_of_interval, rule=self.rule):
            yield {**name, **point, "steps": point["offset"] * every}


def _points(one: _Tested) -> Iterator[dict[str, object]]:
    """Yield the points of the curves over thresholds, from no alarm to all."""
    told = one.told
    before, quiet = told.before[~np.isnan(told.before)], told.quiet[~np.isnan(told.quiet)]
    if not len(before) or not len(quiet):
        return
    metric, layer = one.key
    thresholds = np.unique(np.concatenate([before, quiet]))
    if len(thresholds) > MOST_POINTS:
        thresholds = np.quantile(thresholds, np.linspace(0, 1, MOST_POINTS))
    for threshold in [*thresholds[::-1], -np.inf]:
        hits, false = np.count_nonzero(before > threshold), np.count_nonzero(quiet > threshold)
        yield {
            "kind": one.kind,
            "metric": metric,
            "layer": None if layer == NO_LAYER else layer,
            "threshold": threshold,
            "hit_rate": hits / len(before),
            "false_alarm_rate": false / len(quiet),
            "false_alarms_per_10k": false / told.steps.sum() * PER_STEPS,
            "precision": hits / (hits + false) if hits + false else nan,
        }
