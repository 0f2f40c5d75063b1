"""Loss spikes: a rule stated before any curve was looked at, the same for every curve.

The baseline at a logged step is the median of the last `window` calm losses before it, those that are part of no
excursion; the threshold is `deviations` times the noise of the last `noise_window`, and at least `least_height` nats.
An excursion is a stretch of logged steps whose loss is over the baseline by more than half the threshold, or not
finite; up to `calm` − 1 others in a row may lie between. Baseline and threshold stand still meanwhile. It is a spike
where it reaches the whole threshold, or a loss that is not finite, and `least_steps` steps in a row are high: hard
batches, of one or two steps, are not spikes, however many follow each other. A loss that stays up for `settled` logged
steps becomes the new baseline.

Baseline and threshold depend on no later step. The onset is set afterwards, at the first step of the excursion and not
at the one that makes it a spike: a warning has to come before the loss leaves its baseline.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from math import inf, isfinite, nan, sqrt
from statistics import median

import numpy as np
import pandas as pd

from lmshape.dynamics.loss_logs import as_curve
from lmshape.tables.columns import joined

# Standard deviation of a normal variable over its median absolute deviation.
NORMAL_DEVIATION = 1.4826
LEAST_LEVELS = 3  # losses without which there is no noise
LEAST_CHANGES = 2  # differences of successive losses without which there is none


class CalmLosses:
    """The median of the last `window` calm losses, and the noise of the last `noise_window`.

    The noise is read off the differences of successive losses: √2 standard deviations where there is no trend, and
    hardly more where there is one. Losses more than `longest_gap` steps apart are no successive ones: they differ by
    what was learned between them.
    """

    def __init__(self, window: int, noise_window: int, longest_gap: float) -> None:
        """Begin without losses."""
        self._longest_gap = longest_gap
        self._levels: deque[float] = deque(maxlen=window)
        self._changes: deque[float] = deque(maxlen=noise_window)
        self._last: tuple[float, float] | None = None

    def add(self, step: float, loss: float) -> None:
        """Take in the loss of the next calm step."""
        if self._last is not None and step - self._last[0] <= self._longest_gap:
            self._changes.append(abs(loss - self._last[1]))
        self._levels.append(loss)
        self._last = step, loss

    def resume(self, calm: Iterable[tuple[float, float]]) -> None:
        """Take in steps and losses behind an excursion: the first does not succeed the last one before it."""
        self._last = None
        for step, loss in calm:
            self.add(step, loss)

    @property
    def baseline(self) -> float:
        """Median loss, nats; NaN without losses."""
        return median(self._levels) if self._levels else nan

    @property
    def noise(self) -> float:
        """Standard deviation, nats; infinite until there are losses enough to tell."""
        if len(self._levels) < LEAST_LEVELS or len(self._changes) < LEAST_CHANGES:
            return inf
        return NORMAL_DEVIATION * median(self._changes) / sqrt(2)


@dataclass(frozen=True, slots=True)
class Rule:
    """The numbers of a rule."""

    def __str__(self) -> str:
        """Spell the rule as a table does."""
        return " ".join(f"{name}={value:g}" for name, value in asdict(self).items())


@dataclass(frozen=True, slots=True, kw_only=True)
class SpikeRule(Rule):
    """The numbers of the rule; all counts are of logged steps.

    Attributes
    ----------
    window, noise_window : calm losses behind the baseline, and behind its noise, which takes more of them
    deviations, least_height : the threshold, in standard deviations of the noise and in nats
    least_steps : least number of high steps in a row
    calm : steps in a row under half the threshold that end an excursion
    settled : steps after which a loss that stays up is the new baseline
    """

    window: int = 50
    noise_window: int = 200
    deviations: float = 6.0
    least_height: float = 0.25
    least_steps: int = 3
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


@dataclass(slots=True)
class _Excursion:
    """Places `first` … `last` of the curve: high ones, over half the threshold, and few between."""

    first: int
    last: int
    baseline: float
    threshold: float
    calm: int = 0
    settled: bool = False

    @property
    def level(self) -> float:
        return self.baseline + self.threshold / 2

    def take(self, place: int, loss: float) -> None:
        if isfinite(loss) and not loss > self.level:
            self.calm += 1
        else:
            self.last, self.calm = place, 0


def find_spikes(run: pd.DataFrame) -> list[Spike]:
    """Find the spikes of a loss curve.

    Parameters
    ----------
    run : columns `step`, in any order and at any distance, and `loss`, nats, finite or not

    Returns
    -------
    The spikes in the order of their onsets.

    Raises
    ------
    InputError
        When a step is no number.

    Notes
    -----
    20 000 steps take about 0.3 s.
    """
    curve = as_curve(run)
    steps, losses = curve["step"].to_numpy(np.float64), curve["loss"].to_numpy(np.float64)
    found = (_spike(excursion, steps, losses) for excursion in _excursions(steps, losses))
    return [spike for spike in found if spike is not None]


def _excursions(steps: np.ndarray, losses: np.ndarray) -> Iterator[_Excursion]:
    """Go through the curve once, step after step."""
    longest_gap = 10 * float(np.median(np.diff(steps))) if len(steps) > 1 else inf
    background, current = CalmLosses(RULE.window, RULE.noise_window, longest_gap), None
    for place, loss in enumerate(losses.tolist()):
        if current is None:
            current = _begun(place, loss, background)
            if current is None:
                background.add(steps[place], loss)
            continue
        current.take(place, loss)
        current.settled = place - current.first >= RULE.settled
        if current.calm == RULE.calm or current.settled:
            yield current
            if current.settled:
                background = CalmLosses(RULE.window, RULE.noise_window, longest_gap)
            behind = slice(place + 1 - (RULE.window if current.settled else RULE.calm), place + 1)
            pairs = zip(steps[behind], losses[behind].tolist(), strict=True)
            background.resume((step, loss) for step, loss in pairs if isfinite(loss))
            current = None
    if current is not None:
        yield current


def _begun(place: int, loss: float, background: CalmLosses) -> _Excursion | None:
    """Begin an excursion at a loss that is high, or not finite."""
    threshold = RULE.threshold(background)
    if isfinite(loss) and not loss > background.baseline + threshold / 2:
        return None
    return _Excursion(place, place, background.baseline, threshold)


def _spike(excursion: _Excursion, steps: np.ndarray, losses: np.ndarray) -> Spike | None:
    """Return the spike that an excursion is; None where it is too small or too short."""
    inside = losses[excursion.first : excursion.last + 1]
    lost = ~np.isfinite(inside)
    reaches = lost.any() or inside.max() > excursion.baseline + excursion.threshold
    high = groupby((lost | (inside > excursion.level)).tolist())
    if not reaches or max(len(list(row)) for is_high, row in high if is_high) < RULE.least_steps:
        return None
    peak = int(np.argmax(np.where(lost, np.inf, inside)))
    back = _recovery(excursion, losses)
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


def _recovery(excursion: _Excursion, losses: np.ndarray) -> int | None:
    """Place of the first of `calm` losses in a row that are back, fewer at the end of the curve."""
    back = losses[excursion.last + 1 :] <= excursion.level
    for place in np.flatnonzero(back):
        if back[place : place + RULE.calm].all():
            return excursion.last + 1 + int(place)
    return None
