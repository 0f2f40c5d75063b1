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

from lmshape.dynamics.alarms import (
    PER_STEPS,
    RULE,
    Told,
    WarningRule,
    Windows,
    interval,
    run_weights,
    scores,
    two_sided,
    weighted_median,
    windows_of,
)
from lmshape.dynamics.contrasts import holm
from lmshape.dynamics.spikes import NORMAL_DEVIATION, Spike
from lmshape.dynamics.warning_series import NO_LAYER, Series
from lmshape.tables.columns import declare

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


SPIKE_COLUMNS = declare(
    {
        "study": "name of the study, from the config",
        "run": "name of the training run, or of the log and its run",
        "source": "pretraining: a run of the study; log: of `loss_logs`",
        "spike": "number of the spike in its run, from 1; 0 where the run has none",
        "onset": "step at which the loss leaves its baseline",
        "peak_step": "step at which it is largest",
        "peak_loss": "nats per token there; infinite where the loss is not finite",
        "baseline": "median of the calm losses before the onset, nats per token",
        "height": "peak_loss - baseline",
        "threshold": "nats over the baseline that make a spike",
        "recovery_step": "first step at which the loss is back for good; empty where it is not",
        "steps": "steps from the onset to the recovery, or to the last high one",
        "logged": "losses in the run's log",
        "rule": "numbers of the rule: `lmshape.dynamics.spikes`",
        "flag": "no spike; did not come back; not finite, and how often; empty when fine",
    },
    integers=["spike", "onset", "peak_step", "recovery_step", "steps", "logged"],
    reals=["peak_loss", "baseline", "height", "threshold"],
)

_SERIES = {
    "study": "name of the study, from the config",
    "source": "probe: measured while the runs trained; checkpoints: at those of the models",
    "blocks": "blocks of the runs' models: layers of others are not theirs",
    "kind": "geometric, or baseline: needs no geometry",
    "metric": "name of the series: `lmshape.dynamics.warning_series`",
    "layer": "l after block l; empty for what is of the whole run",
}

WARNING_COLUMNS = declare(
    {
        **_SERIES,
        "spikes": "spikes with values enough before them",
        "unscored": "spikes without",
        "runs": "runs with such a spike",
        "quiet_windows": "windows without a spike, as long as those before a spike",
        "every": "steps from one value to the next, median",
        "auc": "area under the ROC curve of an alarm on it: 0.5 by chance",
        "auc_low": "lower end of its 95 % interval, over runs",
        "auc_high": "upper end of its 95 % interval, over runs",
        "average_precision": "area under precision over recall: spikes / (spikes + quiet_windows) by chance",
        "average_precision_low": "lower end of its 95 % interval, over runs",
        "average_precision_high": "upper end of its 95 % interval, over runs",
        "hit_rate": "share of the spikes with an alarm, at 10 false ones in 10 000 quiet steps of other runs",
        "hit_rate_low": "lower end of its 95 % interval, over runs",
        "hit_rate_high": "upper end of its 95 % interval, over runs",
        "lead_steps": "steps from the first alarm to the onset at that rate, median of the hits",
        "lead_steps_low": "lower end of its 95 % interval, over runs",
        "lead_steps_high": "upper end of its 95 % interval, over runs",
        "false_alarms_per_10k": "false alarms that this came to, in 10 000 quiet steps",
        "move_before": "move just before the onset in standard deviations of quiet moves, signed, median",
        "move_before_low": "lower end of its 95 % interval, over runs",
        "move_before_high": "upper end of its 95 % interval, over runs",
        "best_baseline": "baseline of the largest auc, with its layer; empty for baselines",
        "auc_gain": "auc less that of the best baseline",
        "auc_gain_low": "lower end of its 95 % interval, over the same runs",
        "auc_gain_high": "upper end of its 95 % interval, over the same runs",
        "p": "two-sided, of auc_gain being 0",
        "p_adjusted": "p after Holm's correction for all geometric series of the same source and blocks",
        "rule": "numbers of the rule: `lmshape.dynamics.alarms`",
        "flag": "not measurable, and why; too few runs or spikes for an interval; empty when fine",
    },
    integers=["blocks", "layer", "spikes", "unscored", "runs", "quiet_windows"],
    reals=[
        "every",
        *(
            f"{name}{end}"
            for name in ("auc", "average_precision", "hit_rate", "lead_steps")
            for end in ("", "_low", "_high")
        ),
        "false_alarms_per_10k",
        *(f"{name}{end}" for name in ("move_before", "auc_gain") for end in ("", "_low", "_high")),
        "p",
        "p_adjusted",
    ],
)

ALARM_COLUMNS = declare(
    {
        **_SERIES,
        "threshold": "score over which it alarms, in robust standard deviations of the values before",
        "hit_rate": "share of the spikes with an alarm",
        "false_alarm_rate": "share of the quiet windows with one",
        "false_alarms_per_10k": "false alarms in 10 000 quiet steps",
        "precision": "share of the windows with an alarm that are before a spike",
    },
    integers=["blocks", "layer"],
    reals=["threshold", "hit_rate", "false_alarm_rate", "false_alarms_per_10k", "precision"],
)

COURSE_COLUMNS = declare(
    {
        **_SERIES,
        "offset": "values before the onset, or before the end of a quiet window, from -1 back; 0 is at the onset",
        "steps": "offset in steps",
        "spikes": "spikes behind the mean",
        "change": "value less the median of those before the horizon, mean over spikes",
        "change_low": "lower end of its 95 % interval, over runs",
        "change_high": "upper end of its 95 % interval, over runs",
        "quiet": "the same in quiet windows, mean",
        "quiet_low": "2.5 % quantile over quiet windows",
        "quiet_high": "97.5 % quantile over quiet windows",
    },
    integers=["blocks", "layer", "offset", "spikes"],
    reals=["steps", "change", "change_low", "change_high", "quiet", "quiet_low", "quiet_high"],
)
