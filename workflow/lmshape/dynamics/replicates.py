"""From the numbers behind each estimate to curves with and without each draw.

Layers and checkpoints of a model see the same draws, so that a draw left out is left out of a whole curve at once:
what a draw adds to all of its numbers cancels in their differences.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from lmshape.dynamics.noise import Noise


@dataclass(frozen=True, slots=True)
class Replicated:
    """Numbers of a table, and what each is without one of its draws.

    Attributes
    ----------
    values : (rows,) float64
    left_out : (rows, K) float64: without each draw; (rows, 0) where there are under 2 draws, where rows have different
        numbers of draws, and in a table without replicates
    """

    values: np.ndarray
    left_out: np.ndarray

    @classmethod
    def of(cls, frame: pd.DataFrame) -> Replicated:
        """Read the columns value, interval and replicates."""
        values = frame["value"].to_numpy(dtype=np.float64)
        none = cls(values, np.empty((len(values), 0)))
        if not len(frame) or "replicates" not in frame:
            return none
        parts = [leave_one_out(*pair) for pair in zip(frame["interval"], frame["replicates"], strict=True)]
        return cls(values, np.array(parts)) if len({len(part) for part in parts}) == 1 else none

    @property
    def draws(self) -> int:
        """Draws behind each number; 0 where none can be left out."""
        return self.left_out.shape[1]

    def rows(self, chosen: np.ndarray) -> Replicated:
        """Keep some of the numbers."""
        return Replicated(self.values[chosen], self.left_out[chosen])

    def logarithms(self) -> Replicated:
        """Natural logarithms of all numbers, which are over 0."""
        return Replicated(np.log(self.values), np.log(self.left_out))

    def noise(self) -> Noise | None:
        """Error of the numbers as one curve; None where draws cannot tell."""
        known = self.draws >= 2 and np.isfinite(self.left_out).all()
        return Noise.of_draws(self.left_out.T) if known else None


def leave_one_out(interval: str, replicates: np.ndarray) -> np.ndarray:
    """Return a number without each of its K draws, (K,); empty where there are under 2.

    Parameters
    ----------
    interval : jackknife, draws or none
    replicates : K + 1 numbers, over all rows, then without each draw; for `draws` those of the K draws, whose mean the
        number is
    """
    numbers = np.asarray(replicates, dtype=np.float64)
    if interval == "draws" and len(numbers) > 1:
        return (numbers.sum() - numbers) / (len(numbers) - 1)
    return numbers[1:] if interval == "jackknife" and len(numbers) > 2 else np.empty(0)
