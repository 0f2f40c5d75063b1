"""Loss spikes: a rule stated before any curve was looked at, the same for every curve.

The baseline at a logged step is the median of the last `window` calm losses before it, those that are part of no
excursion; the threshold is `deviations` times the noise of the last `noise_window`, and at least `least_height` nats.
An excursion is a stretch of logged steps whose loss is over the baseline by more than half the threshold, or not
finite; up to `calm` − 1 others in a row may lie between. Baseline and threshold stand still meanwhile. It is a spike
where it reaches the whole threshold, or a loss that is not finite, and lasts longer than hard batches do, which are
no spikes however many follow each other: `Excursion.lasts`. A loss that stays up for `settled` logged steps, is
finite and has stopped rising becomes the new baseline.

Baseline and threshold depend on no later step. The onset is set afterwards, at the first step of the excursion and not
at the one that makes it a spike: a warning has to come before the loss leaves its baseline.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from math import inf, isfinite, nan, sqrt

import numpy as np
import pandas as pd

from lmshape.dynamics.loss_logs import AVERAGED, as_curve
from lmshape.tables.columns import joined

# Standard deviation of a normal variable over its median absolute deviation, and over its upper quartile.
NORMAL_DEVIATION = 1.4826
LEAST_LEVELS = 3  # losses without which there is no noise
LEAST_CHANGES = 2  # differences of successive losses without which there is none
LEAST_DEVIATIONS = 50  # deviations from the baseline before their spread counts
# Deviations after which the first steep fall of a loss is over, whose bend would count as spread.
LEARNED = 150


class Recent:
    """The last `most` numbers of a stream, and their quantiles."""

    def __init__(self, most: int) -> None:
        """Begin without numbers."""
        self._numbers: deque[float] = deque(maxlen=most)
        self._sorted: list[float] = []

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, number: float) -> None:
        """Take in a finite number, and let go of the oldest where there are too many."""
        if len(self._numbers) == self._numbers.maxlen:
            del self._sorted[bisect_left(self._sorted, self._numbers[0])]
        self._numbers.append(number)
        insort(self._sorted, number)

    def quantile(self, share: float) -> float:
        """Return the quantile, interpolated between neighbors; NaN without numbers."""
        if not self._sorted:
            return nan
        place = share * (len(self._sorted) - 1)
        below = int(place)
        above = min(below + 1, len(self._sorted) - 1)
        return self._sorted[below] + (place - below) * (self._sorted[above] - self._sorted[below])


class CalmLosses:
    """The median of the last `window` calm losses, and the noise of the last `noise_window`.

    The noise is the largest of three. One is of the differences of successive losses: √2 standard deviations where
    there is no trend, and hardly more where there is one. Losses more than `longest_gap` steps apart are not successive
    ones: they differ by what was learned between them. Where successive losses are alike, as in a log that was
    smoothed, these differences are too small, and one of two others is larger. Losses less their baseline, less the
    median of the last `window` of these differences, spread by what moves within a window, once the first steep fall is
    over. Losses less the baseline of
    `window` losses before spread upward by what moves more slowly; a trend moves them downward only.
    """

    def __init__(self, window: int, noise_window: int, longest_gap: float) -> None:
        """Begin without losses."""
        self._window, self._longest_gap = window, longest_gap
        self._changes, self._fast, self._slow = (Recent(noise_window) for _ in range(3))
        self._last: tuple[float, float] | None = None
        self._begin()

    def _begin(self) -> None:
        self._levels, self._deviations = Recent(self._window), Recent(self._window)
        self._baselines: deque[float] = deque(maxlen=self._window)

    def add(self, step: float, loss: float) -> None:
        """Take in the loss of the next calm step."""
        if self._last is not None and step - self._last[0] <= self._longest_gap:
            self._changes.add(abs(loss - self._last[1]))
        if len(self._levels) == self._window:
            if len(self._slow) >= LEARNED:
                self._fast.add(loss - self.baseline - self._deviations.quantile(0.5))
            self._slow.add(loss - self._baselines[0])
        if self._levels:
            self._deviations.add(loss - self.baseline)
        self._levels.add(loss)
        self._baselines.append(self.baseline)
        self._last = step, loss

    def resume(self, calm: Iterable[tuple[float, float]], *, anew: bool) -> None:
        """Take in steps and losses behind an excursion: the first does not succeed the last one before it.

        anew : whether the baseline is of these alone
        """
        self._last = None
        if anew:
            self._begin()
        for step, loss in calm:
            self.add(step, loss)

    @property
    def baseline(self) -> float:
        """Median loss, nats; NaN without losses."""
        return self._levels.quantile(0.5)

    @property
    def noise(self) -> float:
        """Standard deviation, nats; infinite until there are losses enough to tell."""
        if len(self._levels) < LEAST_LEVELS or len(self._changes) < LEAST_CHANGES:
            return inf
        deviations = [self._changes.quantile(0.5) / sqrt(2)]
        if len(self._slow) >= LEAST_DEVIATIONS:
            deviations.append(self._slow.quantile(0.75))
        if len(self._fast) >= LEAST_DEVIATIONS:
            deviations.append(self._fast.quantile(0.75) - self._fast.quantile(0.5))
        return NORMAL_DEVIATION * max(deviations)


@dataclass(frozen=True, slots=True)
class Rule:
    """The numbers of a rule."""

    def __str__(self) -> str:
        """Spell the rule as a table does."""
        return " ".join(f"{name}={value:g}" for name, value in asdict(self).items())


@dataclass(frozen=True, slots=True, kw_only=True)
class SpikeRule(Rule):
    """The numbers of the rule; counts are of logged steps where nothing else is said.

    Attributes
    ----------
    window, noise_window : calm losses behind the baseline, and behind its noise, which takes more of them
    deviations, least_height : the threshold, in standard deviations of the noise and in nats
    least_steps : high steps in a row that make a spike
    least_span : training steps from one high step to the next that make a spike of two in a row
    hard_batch : nats over the baseline that no batch has by itself: where a logged loss is the mean of several steps,
        a sum over these that is larger makes a spike of one logged step
    calm : steps in a row under half the threshold that end an excursion
    settled : steps after which a loss that stays up, and rises no more, is the new baseline
    """

    window: int = 50
    noise_window: int = 1000
    deviations: float = 6.0
    least_height: float = 0.25
    least_steps: int = 3
    least_span: int = 10
    hard_batch: float = 10.0
    calm: int = 3
    settled: int = 200

    def threshold(self, background: CalmLosses) -> float:
        """Nats over the baseline that make a spike; infinite while the noise is unknown."""
        return max(self.least_height, self.deviations * background.noise)


RULE = SpikeRule()


@dataclass(frozen=True, slots=True, kw_only=True)
class Spike:
    """A loss spike.

    Attributes
    ----------
    onset : step at which the loss leaves its baseline; warning times count back from it
    peak_step, peak_loss : where the loss is largest; infinite where it was not finite
    baseline, threshold : nats, as they were before the onset
    last : last high step, or the last step before the loss was taken for settled
    recovery_step : first step of `calm` in a row under baseline + threshold / 2; None where there is none
    flag : why there is none, or a doubt; empty when fine
    """

    onset: float
    peak_step: float
    peak_loss: float
    baseline: float
    threshold: float
    last: float
    recovery_step: float | None
    flag: str

    @property
    def height(self) -> float:
        """Nats of the peak over the baseline."""
        return self.peak_loss - self.baseline


@dataclass(frozen=True, slots=True, eq=False)
class _Curve:
    """Steps and losses (n,), and of how many training steps each loss is the mean (n,)."""

    steps: np.ndarray
    losses: np.ndarray
    averaged: np.ndarray

    @classmethod
    def of(cls, run: pd.DataFrame) -> _Curve:
        curve = as_curve(run)
        averaged = curve[AVERAGED] if AVERAGED in curve else np.ones(len(curve))
        return cls(*(np.asarray(one, np.float64) for one in (curve["step"], curve["loss"], averaged)))

    @property
    def every(self) -> float:
        """Training steps from one logged loss to the next, median; infinite for fewer than two."""
        return float(np.median(np.diff(self.steps))) if len(self.steps) > 1 else inf


@dataclass(slots=True)
class Excursion:
    """Places `first` … `last` of a curve: high ones, over half the threshold, and few between."""

    curve: _Curve
    first: int
    last: int
    baseline: float
    threshold: float
    calm: int = 0

    @property
    def level(self) -> float:
        """Nats over which a loss is high."""
        return self.baseline + self.threshold / 2

    @property
    def inside(self) -> np.ndarray:
        """The losses from the first to the last high one."""
        return self.curve.losses[self.first : self.last + 1]

    @property
    def reaches(self) -> bool:
        """Whether a loss is over the whole threshold, or not finite."""
        return not bool((self.inside <= self.baseline + self.threshold).all())

    @property
    def lasts(self) -> bool:
        """Whether it is not a hard batch, nor two.

        `least_steps` logged steps in a row are high; or two in a row, at least `least_span` training steps apart; or
        the losses are means of several steps, and no batch could have raised one so far.
        """
        low = self.inside <= self.level
        places = np.arange(len(low))
        rows = [list(row) for is_low, row in groupby(places, key=lambda place: low[place]) if not is_low]
        if max(map(len, rows)) >= RULE.least_steps:
            return True
        own = slice(self.first, self.last + 1)
        steps, averaged = self.curve.steps[own], self.curve.averaged[own]
        over = np.where(averaged > 1, averaged * (self.inside - self.baseline), 0)
        return any(
            steps[row[-1]] - steps[row[0]] >= RULE.least_span or over[row].sum() > RULE.hard_batch
            for row in rows
        )

    def take(self, place: int) -> None:
        """Go on with the next place."""
        if self.curve.losses[place] <= self.level:
            self.calm += 1
        else:
            self.last, self.calm = place, 0

    def settles(self, place: int) -> bool:
        """Whether the losses up to a place are a new baseline: up for long enough, finite, and no longer rising."""
        if place - self.first < RULE.settled:
            return False
        late = self.curve.losses[place + 1 - RULE.window : place + 1]
        early = self.curve.losses[place + 1 - 2 * RULE.window : place + 1 - RULE.window]
        lost = not (np.isfinite(late).all() and np.isfinite(early).any())
        return not lost and np.median(late) - np.nanmedian(early) <= self.threshold / 2


def find_spikes(run: pd.DataFrame) -> list[Spike]:
    """Find the spikes of a loss curve.

    Parameters
    ----------
    run : columns `step`, in any order and at any distance, and `loss`, nats, finite or not; and `averaged` where a loss
        is the mean over more than one training step: over how many

    Returns
    -------
    The spikes in the order of their onsets.

    Raises
    ------
    InputError
        When a step is not a number.

    Notes
    -----
    20 000 steps take about 0.3 s.
    """
    return [_spike(found) for found in _excursions(_Curve.of(run)) if found.reaches and found.lasts]


def not_told(run: pd.DataFrame) -> str:
    """Say which spikes the logging interval of a curve cannot show; empty under `least_span` steps, and for means.

    One loss that is high by itself can be a short spike or a single hard batch. How many of them the curve has, and the
    highest, is said, too.
    """
    curve = _Curve.of(run)
    if not RULE.least_span <= curve.every < inf or (curve.averaged > 1).any():
        return ""
    alone = [found for found in _excursions(curve) if found.reaches and not found.lasts]
    said = f"logged every {curve.every:g} steps, which shows no spike that is shorter"
    if not alone:
        return said
    highest = max(alone, key=lambda found: found.inside.max() - found.baseline)
    height, peak = highest.inside.max() - highest.baseline, highest.first + int(highest.inside.argmax())
    return (
        f"{said}: {len(alone)} logged by itself, or one hard batch, the highest by {height:.2g} nats at step "
        f"{curve.steps[peak]:g}"
    )


def _excursions(curve: _Curve) -> Iterator[Excursion]:
    """Go through the curve once, step after step."""
    background = CalmLosses(RULE.window, RULE.noise_window, longest_gap=10 * curve.every)
    current: Excursion | None = None
    for place, loss in enumerate(curve.losses.tolist()):
        if current is None:
            threshold = RULE.threshold(background)
            if not isfinite(loss) or loss > background.baseline + threshold / 2:
                current = Excursion(curve, place, place, background.baseline, threshold)
            else:
                background.add(curve.steps[place], loss)
            continue
        current.take(place)
        settled = current.settles(place)
        if current.calm == RULE.calm or settled:
            yield current
            behind = slice(place + 1 - (RULE.window if settled else RULE.calm), place + 1)
            background.resume(
                zip(curve.steps[behind], curve.losses[behind].tolist(), strict=True), anew=settled
            )
            current = None
    if current is not None:
        yield current


def _spike(excursion: Excursion) -> Spike:
    """Describe an excursion that is a spike."""
    steps, inside = excursion.curve.steps, excursion.inside
    lost = ~np.isfinite(inside)
    peak = int(np.argmax(np.where(lost, np.inf, inside)))
    back = _recovery(excursion)
    return Spike(
        onset=steps[excursion.first],
        peak_step=steps[excursion.first + peak],
        peak_loss=inf if lost[peak] else float(inside[peak]),
        baseline=excursion.baseline,
        threshold=excursion.threshold,
        last=steps[excursion.last],
        recovery_step=None if back is None else steps[back],
        flag=joined(
            "did not come back" if back is None else "",
            f"not finite: the loss of {np.count_nonzero(lost)} steps" if lost.any() else "",
        ),
    )


def _recovery(excursion: Excursion) -> int | None:
    """Place of the first of `calm` losses in a row that are back, fewer at the end of the curve."""
    back = excursion.curve.losses[excursion.last + 1 :] <= excursion.level
    for place in np.flatnonzero(back):
        if back[place : place + RULE.calm].all():
            return excursion.last + 1 + int(place)
    return None
