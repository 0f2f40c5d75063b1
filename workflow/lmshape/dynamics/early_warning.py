"""Whether a series warns of loss spikes, and whether geometry does better than what needs none.

The series are the geometry of each block, and what a user has without any: level, slope and variance of the training
loss, gradient norm, learning rate, the loss on held-out tokens, and the size of activations. Each is taken at the steps
of the geometry, from no later step.

Every series of a group of runs is put to the same test, with the same windows and the same resampled runs, so that
differences are paired. The baseline that geometry is compared with is the one of the largest area in the same runs,
which favors the baseline.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isnan, nan

import numpy as np
import pandas as pd

from lmshape.dynamics.alarms import (
    PER_STEPS,
    RULE,
    Windows,
    WindowScores,
    lay_windows,
    run_interval,
    run_weights,
    scores,
    share_interval,
    two_sided,
    weighted_median,
)
from lmshape.dynamics.contrasts import holm
from lmshape.dynamics.spikes import NORMAL_DEVIATION, Spike
from lmshape.tables.columns import Row

GEOMETRIC = (
    "anisotropy",
    "effective_rank",
    "participation_ratio",
    "mean_cosine",
    "id_twonn",
    "id_twonn_types",
)
HELD_OUT = "loss_held_out"
BASELINES = (
    "loss_level",
    "loss_slope",
    "loss_variance",
    "gradient_norm",
    "learning_rate",
    HELD_OUT,
    "norm_median",
    "activation_max",
)
TRAILING = 10  # logged losses behind level, slope and variance
NO_LAYER = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A number of a run over training.

    Attributes
    ----------
    run, metric : names
    layer : block, `NO_LAYER` for what is of the whole run
    steps, values : (n,) rising; NaN where there is no number
    """

    run: str
    metric: str
    layer: int
    steps: np.ndarray
    values: np.ndarray

    @property
    def kind(self) -> str:
        """Geometric or baseline."""
        return "geometric" if self.metric in GEOMETRIC else "baseline"


def series_of(run: str, geometry: pd.DataFrame, losses: pd.DataFrame) -> list[Series]:
    """Return all series of a run, on the steps of its geometry.

    Parameters
    ----------
    run : name
    geometry : step, layer, metric, value, as `lmshape.monitor` writes them; metrics of neither kind are left out
    losses : step, loss and, if there are any, gradient_norm and learning_rate
    """
    steps = np.unique(geometry["step"].to_numpy(np.float64))
    found = []
    for (metric, layer), rows in geometry.groupby(["metric", "layer"], sort=False):
        name = HELD_OUT if metric == "loss" else metric
        if name in GEOMETRIC or name in BASELINES:
            values = np.full(len(steps), np.nan)
            values[np.searchsorted(steps, rows["step"])] = rows["value"].to_numpy(np.float64)
            place = NO_LAYER if name == HELD_OUT else int(layer)
            found.append(Series(run=run, metric=name, layer=place, steps=steps, values=values))
    logged = _of_losses(steps, losses)
    return found + [
        Series(run=run, metric=name, layer=NO_LAYER, steps=steps, values=values) for name, values in logged
    ]


def _of_losses(steps: np.ndarray, losses: pd.DataFrame) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the baselines of the log: of the last `TRAILING` rows up to each step, that step's loss included."""
    logged = losses["step"].to_numpy(np.float64)
    ends = np.searchsorted(logged, steps, side="right")
    lines = [_line(logged, losses["loss"].to_numpy(np.float64), end) for end in ends]
    yield from zip(("loss_level", "loss_slope", "loss_variance"), np.array(lines).T, strict=True)
    for name, rows in (("gradient_norm", TRAILING), ("learning_rate", 1)):
        if name in losses and losses[name].notna().any():
            with np.errstate(divide="ignore", invalid="ignore"):
                logarithms = np.log(losses[name].to_numpy(np.float64))
            yield name, np.array([_mean(logarithms[max(0, end - rows) : end]) for end in ends])


def _line(logged: np.ndarray, losses: np.ndarray, end: int) -> tuple[float, float, float]:
    """Fit a line to the last losses: its mean, its slope, and the logarithm of the variance about it."""
    inside = slice(max(0, end - TRAILING), end)
    x, y = logged[inside], losses[inside]
    finite = np.isfinite(y)
    if np.count_nonzero(finite) < TRAILING:
        return np.nan, np.nan, np.nan
    x = x - x.mean()
    level = y.mean()
    slope = float(x @ y / (x @ x))
    left = y - level - slope * x
    return float(level), slope, float(np.log(max(left @ left / (TRAILING - 2), 1e-300)))


def _mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else np.nan


LEAST_SPREAD = 1e-6  # of moves, in deviations of the values
BACK, ON = 20, 3  # values before and behind an onset at which changes are given
MOST_POINTS = 200  # of a curve over thresholds


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A run whose spikes are to be warned of: its series, its spikes, and the last step of its loss."""

    series: Sequence[Series]
    spikes: Sequence[Spike]
    last_step: float


@dataclass(frozen=True, slots=True)
class _Followed:
    """A series of one run: number of the run, steps, values, signed scores, and the windows of its steps."""

    run: int
    steps: np.ndarray
    values: np.ndarray
    scores: np.ndarray
    windows: Windows

    def move(self, places: np.ndarray) -> float:
        """Return the mean of the last signed scores of a window."""
        latest = self.scores[places[-RULE.latest :]]
        known = latest[~np.isnan(latest)]
        return float(known.mean()) if len(known) else nan

    def changes(self, end: int) -> np.ndarray:
        """(BACK + ON,): the change at each offset from place `end`.

        NaN outside the stretch that ends there, and behind the end of the run.
        """
        found = np.full(BACK + ON, nan)
        stretches, start = self.windows.stretches, end - RULE.horizon
        reference = np.arange(max(0, start - RULE.window), max(0, start))
        values = self.values[reference[stretches[reference] == stretches[end - 1]]]
        if np.count_nonzero(~np.isnan(values)) < 3:
            return found
        level = np.nanmedian(values)
        for column, place in enumerate(range(end - BACK, min(end + ON, len(self.values)))):
            if place >= end or (place >= 0 and stretches[place] == stretches[end - 1]):
                found[column] = self.values[place] - level
        return found


@dataclass(frozen=True, slots=True)
class _Tested:
    """A series in all runs, the scores of its windows, and its area with every resample."""

    metric: str
    layer: int
    kind: str
    parts: list[_Followed]
    scored: WindowScores
    areas: np.ndarray

    @property
    def names(self) -> Row:
        """Columns that say which series it is."""
        return {
            "kind": self.kind,
            "metric": self.metric,
            "layer": None if self.layer == NO_LAYER else self.layer,
        }


def early_warnings(watched: Sequence[Watched]) -> dict[str, pd.DataFrame]:
    """Test every series of runs whose models have the same blocks.

    Parameters
    ----------
    watched : the runs, at least one, with spikes or without

    Returns
    -------
    Rows of the tables `warnings`, `alarms` and `before_spikes`, by the name of the table.
    """
    windows = [lay_windows(run.series[0].steps, run.spikes, last_step=run.last_step) for run in watched]
    weights = run_weights([bool(one.before) for one in windows])
    kinds = {(series.metric, series.layer): series.kind for run in watched for series in run.series}
    tested = [_tested(*key, kind, watched, windows, weights) for key, kind in kinds.items()]
    baselines = [one for one in tested if one.kind == "baseline" and not isnan(one.areas[0])]
    best = max(baselines, key=lambda one: one.areas[0], default=None)
    group = _Group(windows, weights, best)
    every = _median([_cadence(run.series[0].steps) for run in watched])
    rows = [group.row(one, every) for one in tested]
    adjusted = holm([row["p"] for row in rows])
    return {
        "warnings": pd.DataFrame([row | {"p_adjusted": p} for row, p in zip(rows, adjusted, strict=True)]),
        "alarms": pd.DataFrame([point for one in tested for point in _points(one)]),
        "before_spikes": pd.DataFrame([point for one in tested for point in group.changes(one)]),
    }


def _cadence(steps: np.ndarray) -> float:
    """Steps from one value to the next, the median; NaN of a single value."""
    return float(np.median(np.diff(steps))) if len(steps) > 1 else nan


def _median(values: Sequence[float]) -> float:
    """Median of those that are numbers; NaN without one."""
    known = [value for value in values if not isnan(value)]
    return float(np.median(known)) if known else nan


def _tested(
    metric: str,
    layer: int,
    kind: str,
    watched: Sequence[Watched],
    windows: Sequence[Windows],
    weights: np.ndarray,
) -> _Tested:
    parts = [
        _Followed(number, series.steps, series.values, scores(series.values, own.stretches), own)
        for number, (run, own) in enumerate(zip(watched, windows, strict=True))
        for series in run.series
        if (series.metric, series.layer) == (metric, layer)
    ]
    scored = WindowScores.of([(part.run, part.steps, part.scores, part.windows) for part in parts])
    return _Tested(metric, layer, kind, parts, scored, scored.areas(weights))


@dataclass(frozen=True, slots=True)
class _Group:
    """What all series of a group share."""

    windows: Sequence[Windows]
    weights: np.ndarray
    best: _Tested | None

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
        enough = self.runs >= RULE.fewest_runs and self.spikes >= RULE.fewest_spikes
        return self.runs if enough else 0

    def row(self, one: _Tested, every: float) -> Row:
        """Return the columns of `warnings` that one series fills; `every`: steps between values of the group."""
        row = one.names | {
            "spikes": self.spikes,
            "unscored": sum(len(own.unscored) for own in self.windows),
            "runs": self.runs,
            "quiet_windows": sum(len(own.quiet) for own in self.windows),
            "every": every,
            "rule": str(RULE),
            "p": nan,
            "best_baseline": "",
        }
        row["flag"] = self.flag(one, row)
        if row["flag"].startswith("not measurable"):
            return row
        return row | self._measured(one) | self._compared(one)

    def flag(self, one: _Tested, row: Row) -> str:
        """Say why a series cannot be tested, or why there are no intervals."""
        values = f"{RULE.least + RULE.horizon // 2} values before it"
        if not self.spikes and not row["unscored"]:
            return "not measurable: no spike"
        if not self.spikes:
            return f"not measurable: no spike has {values}, one every {row['every']:g} steps"
        if not row["quiet_windows"]:
            return (
                f"not measurable: no quiet window of {RULE.horizon} values, one every {row['every']:g} steps"
            )
        if isnan(one.areas[0]):
            return "not measurable: the series has no values there"
        if not self.runs_of_interval:
            return (
                f"too few: {self.spikes} spikes in {self.runs} runs; intervals need {RULE.fewest_spikes} in "
                f"{RULE.fewest_runs}"
            )
        return ""

    def _measured(self, one: _Tested) -> Row:
        scored, weights, runs = one.scored, self.weights, self.runs_of_interval
        precision = scored.average_precisions(weights)
        thresholds = scored.thresholds(weights)  # of each resample its own: they are of a few quiet windows
        leads = scored.leads_at(thresholds)
        drawn = weights[:, scored.before_run]
        rates = (drawn * np.isfinite(leads)).sum(axis=1) / np.maximum(drawn.sum(axis=1), 1e-300)
        medians = weighted_median(leads, drawn)
        false = scored.false_at(thresholds[0]).sum() / scored.steps.sum() * PER_STEPS
        return {
            **self._interval("auc", one.areas),
            **self._interval("average_precision", precision),
            "hit_rate": float(rates[0]),
            **dict(zip(("hit_rate_low", "hit_rate_high"), share_interval(rates, runs=runs), strict=True)),
            **self._interval("lead_steps", medians),
            "false_alarms_per_10k": float(false),
            **self._interval("move_before", self._moves(one.parts)),
        }

    def _moves(self, parts: Sequence[_Followed]) -> np.ndarray:
        """(1 + B,): the median move over spikes, in standard deviations of quiet moves about their median.

        NaN where no window, or no quiet one, has a score.
        """
        before = [(part.run, part.move(places)) for part in parts for places in part.windows.before]
        before = [(run, move) for run, move in before if not isnan(move)]
        quiet = [part.move(places) for part in parts for places in part.windows.quiet]
        quiet = [move for move in quiet if not isnan(move)]
        nothing = np.full(len(self.weights), nan)
        if not before or len(quiet) < 2:
            return nothing
        middle = np.median(quiet)
        spread = NORMAL_DEVIATION * np.median(np.abs(np.array(quiet) - middle))
        if not spread > LEAST_SPREAD:  # a series whose quiet moves are all the same has no deviations
            return nothing
        runs, found = (np.array(column) for column in zip(*before, strict=True))
        return weighted_median((found - middle) / spread, self.weights[:, runs])

    def _compared(self, one: _Tested) -> Row:
        best = self.best
        if best is None or one.kind == "baseline":
            return {}
        name = best.metric if best.layer == NO_LAYER else f"{best.metric} layer {best.layer}"
        gains = one.areas - best.areas
        p = two_sided(gains[1:], runs=self.runs_of_interval)
        return {"best_baseline": name, **self._interval("auc_gain", gains), "p": p}

    def _interval(self, name: str, statistics: np.ndarray) -> Row:
        """Name a statistic and its interval; (1 + B,): of the sample, then of the resamples."""
        low, high = run_interval(statistics[1:], runs=self.runs_of_interval)
        return {name: float(statistics[0]), f"{name}_low": low, f"{name}_high": high}

    def changes(self, one: _Tested) -> Iterator[Row]:
        """Yield the rows of `before_spikes`: the mean change around onsets and around the ends of quiet windows.

        A change is a value less the median of those before the horizon, in the series' own unit.
        """
        onsets = [(part, onset) for part in one.parts for onset in part.windows.onsets]
        if not onsets:
            return
        runs = np.array([part.run for part, _ in onsets])
        found = np.array([part.changes(int(np.searchsorted(part.steps, onset))) for part, onset in onsets])
        quiet = np.array(
            [part.changes(int(places[-1]) + 1) for part in one.parts for places in part.windows.quiet]
        ).reshape(-1, BACK + ON)
        every = _median([_cadence(part.steps) for part in one.parts])
        for offset, column, calm in zip(range(-BACK, ON), found.T, quiet.T, strict=True):
            known = ~np.isnan(column)
            if known.any():
                mean = self._mean_change(column[known], runs[known])
                others = calm[~np.isnan(calm)] if offset < 0 else np.array([])
                place = {"offset": offset, "steps": offset * every, "spikes": int(known.sum())}
                yield one.names | place | mean | _quiet(others)

    def _mean_change(self, changes: np.ndarray, runs: np.ndarray) -> Row:
        drawn = self.weights[:, runs]
        total = drawn.sum(axis=1)
        means = np.divide(drawn @ changes, total, out=np.full(len(total), nan), where=total > 0)
        return self._interval("change", means)


def _quiet(changes: np.ndarray) -> Row:
    low, high = np.quantile(changes, [0.025, 0.975]) if len(changes) else (nan, nan)
    mean = float(changes.mean()) if len(changes) else nan
    return {"quiet": mean, "quiet_low": float(low), "quiet_high": float(high)}


def _points(one: _Tested) -> Iterator[Row]:
    """Yield the points of the curves over thresholds, from no alarm to all."""
    scored = one.scored
    before, quiet = scored.before[~np.isnan(scored.before)], scored.quiet[~np.isnan(scored.quiet)]
    if not len(before) or not len(quiet):
        return
    thresholds = np.unique(np.concatenate([before, quiet]))
    if len(thresholds) > MOST_POINTS:
        thresholds = np.quantile(thresholds, np.linspace(0, 1, MOST_POINTS))
    for threshold in [*thresholds[::-1], -np.inf]:
        hits, false = np.count_nonzero(before > threshold), np.count_nonzero(quiet > threshold)
        yield one.names | {
            "threshold": threshold,
            "hit_rate": hits / len(before),
            "false_alarm_rate": false / len(quiet),
            "false_alarms_per_10k": false / scored.steps.sum() * PER_STEPS,
            "precision": hits / (hits + false) if hits + false else nan,
        }
