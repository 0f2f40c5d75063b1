"""A profile over the blocks as a dome: its peak over its higher edge, how wide and how level it is on top."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

import numpy as np

from lmshape.dynamics.best import may_be_largest
from lmshape.dynamics.noise import Noise, largest

LEVEL_TOP = 0.9  # share of the way from edge to peak that the top of a dome begins at
PLATEAU = 0.7  # `top_share` of a plateau: a parabola has 0.45, a bell 0.39, a tent 0.2, two cliffs 1
SEEN = 0.05  # of a dome that deserves the name
FEWEST_BLOCKS = 3  # of a profile with an inside


@dataclass(frozen=True, slots=True, kw_only=True)
class Dome:
    """What the numbers of a profile, one for each block, look like from the side.

    Attributes
    ----------
    peak, edge : places of the largest number and of the larger of the first and the last one
    index : the one less the other; 0 for a profile that is flat or monotone
    index_low, index_high : 95 % interval; NaN where draws cannot tell
    peak_low, peak_high : first and last place that cannot be told from the peak; `peak` where draws cannot tell
    null : index that a flat profile with this noise stays under in 95 of 100 samples; NaN where draws cannot tell
    width : relative depth over which the profile is over half the way from its higher edge to its peak; NaN without
        a peak inside
    top_share : relative depth over nine tenths of the way, over `width`
    """

    peak: int
    edge: int
    index: float
    index_low: float
    index_high: float
    peak_low: int
    peak_high: int
    null: float
    width: float
    top_share: float

    @property
    def kind(self) -> str:
        """Name it: dome, plateau, slight (under 0.05), none (a flat profile may read as much); empty without a null."""
        if np.isnan(self.null):
            return ""
        if self.index <= self.null:
            return "none"
        if self.index < SEEN:
            return "slight"
        return "plateau" if self.top_share >= PLATEAU else "dome"


def dome(values: np.ndarray, depth: np.ndarray, noise: Noise | None) -> Dome:
    """Describe a profile.

    Parameters
    ----------
    values, depth : (L,) numbers at the blocks and their relative depths, L ≥ 3
    noise : error of the values; None where draws cannot tell
    """
    ends = np.array([0, len(values) - 1])
    peak, edge = int(values.argmax()), int(ends[values[ends].argmax()])
    index = float(values[peak] - values[edge])
    tops, half, null = np.array([peak]), nan, nan
    if noise is not None:
        tops = may_be_largest(values, noise)
        edges = ends[may_be_largest(values[ends], noise.at(ends))]
        half = noise.times(_pairs(tops, edges, len(values))).bound(largest)
        null = noise.bound(excess)
    width = _depth_over(values, depth, values[edge] + index / 2) if index > 0 else nan
    top = _depth_over(values, depth, values[edge] + LEVEL_TOP * index) if index > 0 else nan
    return Dome(
        peak=peak,
        edge=edge,
        index=index,
        index_low=max(index - half, 0.0) if noise else nan,
        index_high=index + half,
        peak_low=int(tops[0]),
        peak_high=int(tops[-1]),
        null=null,
        width=width,
        top_share=top / width,
    )


def excess(profiles: np.ndarray) -> np.ndarray:
    """Largest number over the larger of the first and the last, (…, L) → (…)."""
    return profiles.max(axis=-1) - np.maximum(profiles[..., 0], profiles[..., -1])


def _pairs(tops: np.ndarray, edges: np.ndarray, count: int) -> np.ndarray:
    """Weights (count, pairs) of the differences of each top to each edge."""
    unit = np.eye(count)
    return (unit[:, tops][:, :, None] - unit[:, edges][:, None, :]).reshape(count, -1)


def _depth_over(values: np.ndarray, depth: np.ndarray, level: float) -> float:
    """Return the length of the axis over which the line through the values lies over a level."""
    low, high = np.minimum(values[1:], values[:-1]), np.maximum(values[1:], values[:-1])
    rise = np.where(high > low, high - low, 1.0)
    share = np.where(high > low, np.clip((high - level) / rise, 0.0, 1.0), high >= level)
    return float((share * np.diff(depth)).sum())
