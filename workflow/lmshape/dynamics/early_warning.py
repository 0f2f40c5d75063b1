"""Whether a series warns of loss spikes, and whether geometry does better than what needs none.

The series are the geometry of each block, and what a user has without any: level, slope and variance of the training
loss, gradient norm, learning rate, the loss on held-out tokens, and the size of activations. Each is taken at the steps
of the geometry, from no later step.

A score is how many robust standard deviations a value lies from the median of the values before it: of at most
`window` of them, none from before the end of the last spike. It depends on no later value, and on no other run. Both
directions count as alarming; the sign says in which direction a series moves. Quiet windows follow each other wherever
no spike is under way, recovered from less than `least` values ago, or due within the horizon. The end of a run is not
quiet: what would have followed is unknown.

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
    Alarms,
    Laid,
    Windows,
    ratios,
    run_interval,
    run_weights,
    share_interval,
    two_sided,
    weighted_median,
)
from lmshape.dynamics.contrasts import holm
from lmshape.dynamics.spikes import NORMAL_DEVIATION, Spike
from lmshape.tables.columns import Row, interval_of

GEOMETRIC = (
    "anisotropy",
    "effective_rank",
    "participation_ratio",
    "mean_cosine",
    "id_twonn",
    "id_twonn_types",
)
OF_LOSS = ("loss_level", "loss_slope", "loss_variance")
HELD_OUT = "loss_held_out"
BASELINES = (*OF_LOSS, "gradient_norm", "learning_rate", HELD_OUT, "norm_median", "activation_max")
TRAILING = 10  # logged losses behind level, slope and variance
NO_LAYER = -1  # layer of what is of the whole run
Name = tuple[str, int]  # metric and layer of a series


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A run whose spikes are to be warned of.

    Attributes
    ----------
    steps : (n,) rising, at which its series have values
    series : metric and layer → (n,) values; NaN where there is no number
    spikes : of its loss
    last_step : of its loss
    """

    steps: np.ndarray
    series: Mapping[Name, np.ndarray]
    spikes: Sequence[Spike]
    last_step: float

    @classmethod
    def of(cls, geometry: pd.DataFrame, losses: pd.DataFrame, spikes: Sequence[Spike]) -> Watched:
        """Take all series of a run on the steps of its geometry.

        Parameters
        ----------
        geometry : step, layer, metric, value, as `lmshape.monitor` writes them; metrics of neither kind are left out
        losses : step, loss and, if there are any, gradient_norm and learning_rate
        spikes : of these losses
        """
        steps = np.unique(geometry["step"].to_numpy(np.float64))
        series: dict[Name, np.ndarray] = {}
        for (metric, layer), rows in geometry.groupby(["metric", "layer"], sort=False):
            name = (HELD_OUT, NO_LAYER) if metric == "loss" else (metric, int(layer))
            if name[0] in (*GEOMETRIC, *BASELINES):
                series[name] = np.full(len(steps), nan)
                series[name][np.searchsorted(steps, rows["step"])] = rows["value"]
        series |= {(name, NO_LAYER): values for name, values in _of_losses(steps, losses)}
        return cls(steps=steps, series=series, spikes=spikes, last_step=float(losses["step"].max()))

    @property
    def cadence(self) -> float:
        """Steps from one value to the next, the median; NaN of a single value."""
        return float(np.median(np.diff(self.steps))) if len(self.steps) > 1 else nan


def _of_losses(steps: np.ndarray, losses: pd.DataFrame) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the baselines of the log: of the last `TRAILING` rows up to each step, that step's loss included."""
    logged = losses["step"].to_numpy(np.float64)
    ends = np.searchsorted(logged, steps, side="right")
    lines = [_line(logged, losses["loss"].to_numpy(np.float64), end) for end in ends]
    yield from zip(OF_LOSS, np.array(lines).T, strict=True)
    for name, rows in (("gradient_norm", TRAILING), ("learning_rate", 1)):
        if name in losses and losses[name].notna().any():
            with np.errstate(divide="ignore", invalid="ignore"):
                logarithms = np.log(losses[name].to_numpy(np.float64))
            yield name, np.array([_mean(logarithms[max(0, end - rows) : end]) for end in ends])


def _line(logged: np.ndarray, losses: np.ndarray, end: int) -> tuple[float, float, float]:
    """Fit a line to the last losses: its mean, its slope, and the logarithm of the variance about it."""
    inside = slice(max(0, end - TRAILING), end)
    x, y = logged[inside], losses[inside]
    if np.count_nonzero(np.isfinite(y)) < TRAILING:
        return nan, nan, nan
    x = x - x.mean()
    level = y.mean()
    slope = float(x @ y / (x @ x))
    left = y - level - slope * x
    return float(level), slope, float(np.log(max(left @ left / (TRAILING - 2), 1e-300)))


def _mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else nan


LEAST_SPREAD = 1e-6  # of moves, in deviations of the values
DIGITS = 9  # of a score behind the point
RESOLUTION = 1e-9  # of a median: values nearer to each other than that are equal
BACK, ON = 20, 3  # values before and behind an onset at which changes are given
MOST_POINTS = 200  # of a curve over thresholds


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The runs that are tested together: their values one behind the other, n of them, and the windows.

    Attributes
    ----------
    runs, steps : (n,) number of the run of each value, and its step
    stretches : (n,) number of the stretch between spikes of its run that it lies in, −1 within a spike
    before : windows before onsets that have values enough before them
    quiet : windows without a spike
    unscored : onsets without values enough before them
    every : steps from one value to the next
    weights : (1 + B, R) how often each run is drawn: `run_weights`
    """

    runs: np.ndarray
    steps: np.ndarray
    stretches: np.ndarray
    before: Windows
    quiet: Windows
    unscored: Sequence[float]
    every: float
    weights: np.ndarray

    @classmethod
    def of(cls, watched: Sequence[Watched]) -> Group:
        """Lay the windows, by the steps of the values and the spikes alone."""
        spiked: list[Laid] = []
        quiet: list[Laid] = []
        unscored: list[float] = []
        stretches = [_stretches(run.steps, run.spikes) for run in watched]
        begin = 0
        for number, (run, own) in enumerate(zip(watched, stretches, strict=True)):
            before, early, calm = _lay(run, own)
            spiked += [(number, begin + places, begin + end, onset) for places, end, onset in before]
            unscored += early
            lasting = RULE.horizon * run.cadence
            quiet += [(number, begin + places, begin + places[-1] + 1, lasting) for places in calm]
            begin += len(run.steps)
        windows = Windows.of(spiked)
        return cls(
            runs=np.repeat(np.arange(len(watched)), [len(run.steps) for run in watched]),
            steps=np.concatenate([run.steps for run in watched]),
            stretches=np.concatenate(stretches),
            before=windows,
            quiet=Windows.of(quiet),
            unscored=unscored,
            every=pd.Series([run.cadence for run in watched]).median(),
            weights=run_weights(np.isin(np.arange(len(watched)), windows.runs)),
        )

    @property
    def spiking(self) -> int:
        """Runs with a spike that has values before it."""
        return len(np.unique(self.before.runs))

    @property
    def runs_of_interval(self) -> int:
        """Runs behind intervals; 0, which gives none, where runs or spikes are too few."""
        enough = self.spiking >= RULE.fewest_runs and len(self.before.runs) >= RULE.fewest_spikes
        return self.spiking if enough else 0

    def interval(self, name: str, statistics: np.ndarray) -> Row:
        """Name a statistic and its interval; (1 + B,): of the sample, then of the resamples."""
        low, high = run_interval(statistics[1:], runs=self.runs_of_interval)
        return interval_of(name, float(statistics[0]), low, high)

    def near(self, places: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """(k, m): the places at some offsets from others; −1 before their stretch, and behind the end of their run."""
        wanted = places[:, None] + offsets
        found = np.clip(wanted, 0, len(self.runs) - 1)
        there = (found == wanted) & (self.runs[found] == self.runs[places, None])
        return np.where(
            there & ((offsets > 0) | (self.stretches[found] == self.stretches[places, None])), found, -1
        )

    def scores(self, values: np.ndarray) -> np.ndarray:
        """Score each value of a series, (n,), against those before it.

        Returns
        -------
        (n,) signed, NaN where under `least` values of the stretch lie before. Infinite nowhere: values that differ from
        equal ones before them count as `RESOLUTION` of their median away at least.
        """
        before = np.append(values, nan)[self.near(np.arange(len(values)), np.arange(-RULE.window, 0))]
        enough = (self.stretches >= 0) & (np.count_nonzero(~np.isnan(before), axis=1) >= RULE.least)
        found = np.full(len(values), nan)
        if enough.any():
            medians = np.nanmedian(before[enough], axis=1)
            spread = NORMAL_DEVIATION * np.nanmedian(np.abs(before[enough] - medians[:, None]), axis=1)
            floor = RESOLUTION * np.maximum(np.abs(medians), 1e-300)
            # rounded, so that a series of fixed values, such as a learning rate, scores the same everywhere
            found[enough] = np.round((values[enough] - medians) / np.maximum(spread, floor), DIGITS)
        return found

    def changes(self, values: np.ndarray, windows: Windows) -> np.ndarray:
        """(k, BACK + ON): the change of a series, (n,), at each offset from the end of each window.

        A change is a value less the median of those before the horizon, in the series' own unit. NaN outside the
        stretch that ends there, and behind the end of the run.
        """
        known, last = np.append(values, nan), windows.ends - 1
        reference = known[self.near(last, np.arange(-RULE.window, 0) + 1 - RULE.horizon)]
        enough = np.count_nonzero(~np.isnan(reference), axis=1) >= 3
        found = np.full((len(last), BACK + ON), nan)
        if enough.any():
            around = known[self.near(last[enough], np.arange(-BACK, ON) + 1)]
            found[enough] = around - np.nanmedian(reference[enough], axis=1, keepdims=True)
        return found


def _stretches(steps: np.ndarray, spikes: Sequence[Spike]) -> np.ndarray:
    begun = np.searchsorted([spike.onset for spike in spikes], steps, side="right")
    over = np.searchsorted([spike.last for spike in spikes], steps)
    return np.where(begun > over, -1, over)


def _lay(
    run: Watched, stretches: np.ndarray
) -> tuple[list[tuple[np.ndarray, int, float]], list[float], list[np.ndarray]]:
    """Lay the windows of one run.

    Returns
    -------
    Places, end and onset of each window before a spike, the onsets that have none, and the places of quiet windows.
    """
    steps, horizon = run.steps, RULE.horizon * run.cadence
    # values of its stretch before each value
    scored = (pd.Series(stretches).groupby(stretches).cumcount().to_numpy() >= RULE.least) & (stretches >= 0)
    before, early = [], []
    for onset in (spike.onset for spike in run.spikes):
        places = np.flatnonzero((steps >= onset - horizon) & (steps < onset) & scored)
        if len(places) >= RULE.horizon / 2:
            before.append((places, int(np.searchsorted(steps, onset)), onset))
        else:
            early.append(onset)
    ahead = np.array([*(spike.onset for spike in run.spikes), run.last_step, -np.inf])
    following = ahead[np.searchsorted(ahead[:-1], steps)]
    calm = np.flatnonzero(scored & (steps < following - horizon))
    return before, early, list(_cut(calm, stretches))


def _cut(calm: np.ndarray, stretches: np.ndarray) -> Iterator[np.ndarray]:
    """Lay windows one after the other into each stretch; what is left over is in none."""
    for number in np.unique(stretches[calm]):
        places = calm[stretches[calm] == number]
        for first in range(0, len(places) - RULE.horizon + 1, RULE.horizon):
            yield places[first : first + RULE.horizon]


@dataclass(frozen=True, slots=True)
class Tested:
    """A series of a group of runs.

    Attributes
    ----------
    name : metric and layer
    values : (n,) of all runs, NaN in those that do not have it
    every : steps from one value to the next in those that have it
    alarms : its scores
    areas : (1 + B,) area under the ROC curve, of the sample and of each resample
    """

    name: Name
    values: np.ndarray
    every: float
    alarms: Alarms
    areas: np.ndarray

    @classmethod
    def of(cls, name: Name, watched: Sequence[Watched], group: Group) -> Tested:
        """Score a series in the windows of the runs that have it."""
        there = np.array([name in run.series for run in watched])
        values = np.concatenate([run.series.get(name, np.full(len(run.steps), nan)) for run in watched])
        windows = (group.before.of_runs(there), group.quiet.of_runs(there))
        alarms = Alarms(*windows, np.append(group.scores(values), nan), group.steps)
        every = pd.Series([run.cadence for run in watched])[there].median()
        return cls(name, values, every, alarms, alarms.areas(group.weights))

    @property
    def kind(self) -> str:
        """Geometric, or baseline: needs no geometry."""
        return "geometric" if self.name[0] in GEOMETRIC else "baseline"

    @property
    def columns(self) -> Row:
        """Columns that say which series it is."""
        metric, layer = self.name
        return {"kind": self.kind, "metric": metric, "layer": None if layer == NO_LAYER else layer}


def early_warnings(watched: Sequence[Watched]) -> dict[str, pd.DataFrame]:
    """Test every series of runs whose models have the same blocks.

    Parameters
    ----------
    watched : the runs, at least one, with spikes or without

    Returns
    -------
    Rows of the tables `warnings`, `alarms` and `before_spikes`, by the name of the table.
    """
    group = Group.of(watched)
    names = dict.fromkeys(name for run in watched for name in run.series)
    tested = [Tested.of(name, watched, group) for name in names]
    baselines = [one for one in tested if one.kind == "baseline" and not isnan(one.areas[0])]
    best = max(baselines, key=lambda one: one.areas[0], default=None)
    rows = [_warning(one, group, best) for one in tested]
    adjusted = holm([row["p"] for row in rows])
    return {
        "warnings": pd.DataFrame([row | {"p_adjusted": p} for row, p in zip(rows, adjusted, strict=True)]),
        "alarms": pd.DataFrame([point for one in tested for point in _points(one)]),
        "before_spikes": pd.DataFrame([point for one in tested for point in _changes(one, group)]),
    }


def _warning(one: Tested, group: Group, best: Tested | None) -> Row:
    """Return the columns of `warnings` that one series fills."""
    row = one.columns | {
        "spikes": len(group.before.runs),
        "unscored": len(group.unscored),
        "runs": group.spiking,
        "quiet_windows": len(group.quiet.runs),
        "every": group.every,
        "rule": str(RULE),
        "p": nan,
        "best_baseline": "",
        "flag": _flag(one, group),
    }
    if row["flag"].startswith("not measurable"):
        return row
    row |= _measured(one, group)
    if best is not None and one.kind == "geometric":
        metric, layer = best.name
        row["best_baseline"] = metric if layer == NO_LAYER else f"{metric} layer {layer}"
        gains = one.areas - best.areas
        row |= group.interval("auc_gain", gains) | {"p": two_sided(gains[1:], runs=group.runs_of_interval)}
    return row


def _flag(one: Tested, group: Group) -> str:
    """Say why a series cannot be tested, or why there are no intervals."""
    spikes = len(group.before.runs)
    if not spikes and not group.unscored:
        return "not measurable: no spike"
    if not spikes:
        needed = f"{RULE.least + RULE.horizon // 2} values before it"
        return f"not measurable: no spike has {needed}, one every {group.every:g} steps"
    if not len(group.quiet.runs):
        return f"not measurable: no quiet window of {RULE.horizon} values, one every {group.every:g} steps"
    if isnan(one.areas[0]):
        return "not measurable: the series has no values there"
    if not group.runs_of_interval:
        needed = f"{RULE.fewest_spikes} in {RULE.fewest_runs}"
        return f"too few: {spikes} spikes in {group.spiking} runs; intervals need {needed}"
    return ""


def _measured(one: Tested, group: Group) -> Row:
    alarms, weights = one.alarms, group.weights
    thresholds = alarms.thresholds(weights)  # of each resample its own: they are of a few quiet windows
    leads = alarms.leads_at(thresholds)
    drawn = weights[:, alarms.before.runs]
    rates = (drawn * np.isfinite(leads)).sum(axis=1) / np.maximum(drawn.sum(axis=1), 1e-300)
    low, high = share_interval(rates, runs=group.runs_of_interval)
    false = alarms.false_at(thresholds[0]).sum() / alarms.quiet.steps.sum() * PER_STEPS
    return {
        **group.interval("auc", one.areas),
        **group.interval("average_precision", alarms.average_precisions(weights)),
        **interval_of("hit_rate", float(rates[0]), low, high),
        **group.interval("lead_steps", weighted_median(leads, drawn)),
        "false_alarms_per_10k": float(false),
        **group.interval("move_before", _moves(one.alarms, weights)),
    }


def _moves(alarms: Alarms, weights: np.ndarray) -> np.ndarray:
    """(1 + B,): the median move over spikes, in standard deviations of quiet moves about their median.

    NaN where no window, or no quiet one, has a score.
    """
    before, runs = alarms.moves(alarms.before)
    quiet, _ = alarms.moves(alarms.quiet)
    if len(before) and len(quiet) > 1:
        middle = np.median(quiet)
        spread = NORMAL_DEVIATION * np.median(np.abs(quiet - middle))
        if spread > LEAST_SPREAD:  # a series whose quiet moves are all the same has no deviations
            return weighted_median((before - middle) / spread, weights[:, runs])
    return np.full(len(weights), nan)


def _changes(one: Tested, group: Group) -> Iterator[Row]:
    """Yield the rows of `before_spikes`: the mean change around onsets and around the ends of quiet windows."""
    before, quiet_windows = one.alarms.before, one.alarms.quiet
    around, calm = (group.changes(one.values, windows) for windows in (before, quiet_windows))
    for offset, changes, others in zip(range(-BACK, ON), around.T, calm.T, strict=True):
        known = ~np.isnan(changes)
        if not known.any():
            continue
        drawn = group.weights[:, before.runs[known]]
        quiet = others[~np.isnan(others)] if offset < 0 else np.empty(0)
        low, high = np.quantile(quiet, [0.025, 0.975]) if len(quiet) else (nan, nan)
        yield {
            **one.columns,
            "offset": offset,
            "steps": offset * one.every,
            "spikes": int(known.sum()),
            **group.interval("change", ratios(drawn @ changes[known], drawn.sum(axis=1))),
            **interval_of("quiet", float(quiet.mean()) if len(quiet) else nan, float(low), float(high)),
        }


def _points(one: Tested) -> Iterator[Row]:
    """Yield the points of the curves over thresholds, from no alarm to all."""
    alarms = one.alarms
    highest = (alarms.highest(windows) for windows in (alarms.before, alarms.quiet))
    before, quiet = (scores[~np.isnan(scores)] for scores in highest)
    if not len(before) or not len(quiet):
        return
    thresholds = np.unique(np.concatenate([before, quiet]))
    if len(thresholds) > MOST_POINTS:
        thresholds = np.quantile(thresholds, np.linspace(0, 1, MOST_POINTS))
    for threshold in [*thresholds[::-1], -np.inf]:
        hits, false = np.count_nonzero(before > threshold), np.count_nonzero(quiet > threshold)
        yield one.columns | {
            "threshold": threshold,
            "hit_rate": hits / len(before),
            "false_alarm_rate": false / len(quiet),
            "false_alarms_per_10k": false / alarms.quiet.steps.sum() * PER_STEPS,
            "precision": hits / (hits + false) if hits + false else nan,
        }
