"""Baseline and noise of a loss curve as they are known at a step: of the calm losses before it, in time log(window)."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable
from math import inf, nan, sqrt

# Standard deviation of a normal variable over its median absolute deviation.
NORMAL_DEVIATION = 1.4826
LEAST_LEVELS, LEAST_CHANGES = (
    3,
    2,
)  # losses, and differences of successive ones, without which there is no noise


class RunningMedian:
    """Median of the last `size` numbers."""

    def __init__(self, size: int) -> None:
        """Begin without numbers."""
        self._recent: deque[float] = deque()
        self._sorted: list[float] = []
        self._size = size

    def add(self, value: float) -> None:
        """Take a finite number in, and the oldest out where there are more than `size`."""
        if len(self._recent) == self._size:
            del self._sorted[bisect_left(self._sorted, self._recent.popleft())]
        self._recent.append(value)
        insort(self._sorted, value)

    def __len__(self) -> int:
        """Count the numbers."""
        return len(self._recent)

    @property
    def value(self) -> float:
        """NaN where there is no number."""
        if not self._sorted:
            return nan
        middle = len(self._sorted) // 2
        if len(self._sorted) % 2:
            return self._sorted[middle]
        return (self._sorted[middle - 1] + self._sorted[middle]) / 2


class CalmLosses:
    """The median of the last `window` calm losses, and the noise of the last `noise_window`.

    The noise is read off the differences of successive losses: √2 standard deviations where there is no trend, and
    hardly more where there is one. Losses more than `longest_gap` steps apart are no successive ones: they differ by
    what was learned between them.
    """

    def __init__(self, window: int, noise_window: int, longest_gap: float) -> None:
        """Begin without losses."""
        self._longest_gap = longest_gap
        self._levels, self._changes = RunningMedian(window), RunningMedian(noise_window)
        self._last: tuple[float, float] | None = None

    def add(self, step: float, loss: float) -> None:
        """Take in the loss of the next calm step."""
        if self._last is not None and step - self._last[0] <= self._longest_gap:
            self._changes.add(abs(loss - self._last[1]))
        self._levels.add(loss)
        self._last = step, loss

    def resume(self, calm: Iterable[tuple[float, float]]) -> None:
        """Take in steps and losses behind an excursion: the first is no successor of the last one before it."""
        self._last = None
        for step, loss in calm:
            self.add(step, loss)

    @property
    def baseline(self) -> float:
        """Median loss, nats; NaN without losses."""
        return self._levels.value

    @property
    def noise(self) -> float:
        """Standard deviation, nats; infinite until there are losses enough to tell."""
        if len(self._levels) < LEAST_LEVELS or len(self._changes) < LEAST_CHANGES:
            return inf
        return NORMAL_DEVIATION * self._changes.value / sqrt(2)
