"""The trajectories of metrics over training at the named blocks of each model, and of several seeds together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from math import inf, nan

import numpy as np
import pandas as pd

from lmshape.dynamics.noise import Noise, noise_of, replicated, spread
from lmshape.hub.integrity import DISTRUSTED
from lmshape.site import named_layers

Moves = tuple[str, ...]  # "rise" and "fall" in turn
_LINE = ("dataset", "rows", "metric", "layer")


LEAST_CHANGE = 0.1  # of the natural logarithm: a tenth of the value
LEAST_SHARE = 0.1  # of the trajectory's range


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """A metric of one block over the trusted checkpoints of a model, or of several seeds of it.

    Attributes
    ----------
    steps : (T,) rising
    numbers : (K + 1, T) with all draws, then without each; of several seeds their geometric mean
    seeds : (S, T) natural logarithms of each of several seeds; empty for one model
    cell : the columns study, model, kind, dataset, rows, metric, band and layer of its row
    left_aside : why checkpoints are not in it, with their number; empty where all are
    """

    steps: np.ndarray
    numbers: np.ndarray
    seeds: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    cell: Mapping[str, str | int] = field(default_factory=dict)
    left_aside: str = ""

    @property
    def logarithms(self) -> np.ndarray:
        """(T,): natural logarithms of the values, which are over 0."""
        return np.log(self.numbers)[0]

    @property
    def noise(self) -> Noise | None:
        """Error of the logarithms: that of the draws and, of several seeds, their spread; None where none can tell."""
        drawn = noise_of(np.log(self.numbers))
        if not len(self.seeds):
            return drawn
        seeds = Noise.of_copies(self.seeds)
        return seeds if drawn is None else seeds + drawn

    @property
    def bound(self) -> float:
        """Largest difference between two checkpoints that the noise explains, 95 %; infinite with one draw."""
        noise = self.noise
        return noise.bound(spread) if noise else inf

    @property
    def least(self) -> float:
        """Change of the logarithm that makes a rise or fall."""
        return least_change(self.logarithms)

    def moves(self, bound: float) -> Moves:
        """Rises and falls that exceed the least change by `bound`."""
        return segments(self.logarithms, self.least + bound).words


def least_change(logarithms: np.ndarray) -> float:
    """Return the change of the logarithm that makes a rise or fall."""
    return max(LEAST_CHANGE, LEAST_SHARE * float(np.ptp(logarithms)))


def trajectories_of(metrics: pd.DataFrame, groups: Mapping[str, str] | None = None) -> Iterator[Trajectory]:
    """Yield the trajectory of each model, dataset, choice of rows, metric and named block; then those of groups.

    Parameters
    ----------
    metrics : rows of the models' own tables, of the metrics that are followed
    groups : model → recipe: models that differ in their seed alone. Each with two models or more makes trajectories of
        its own, over the steps that all of them have, under the recipe's name
    """
    inside = metrics[metrics["site"] == "block"]
    found: dict[tuple[str, ...], list[Trajectory]] = {}
    for model, of_model in inside.groupby("model", sort=False):
        for one in _of_model(of_model):
            yield one
            key = (groups or {}).get(model, ""), *(str(one.cell[name]) for name in (*_LINE[:3], "band"))
            found.setdefault(key, []).append(one)
    for (group, *_), members in found.items():
        if group and len(members) > 1:
            yield together(group, members)


def _of_model(of_model: pd.DataFrame) -> Iterator[Trajectory]:
    bands = {layer: band for band, layer in named_layers(int(of_model["layer"].max())).items()}
    named = of_model[of_model["layer"].isin(bands)].sort_values("step", kind="stable")
    for (*_, layer), line in named.groupby(list(_LINE), sort=False):
        cell = {name: line[name].iloc[0] for name in ("study", "model", "kind", *_LINE[:3])}
        kept, left_aside = _trusted(line)
        yield Trajectory(
            steps=kept["step"].to_numpy(dtype=np.int64),
            numbers=replicated(kept),
            cell=cell | {"band": bands[layer], "layer": int(layer)},
            left_aside=left_aside,
        )


def _trusted(line: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Keep one checkpoint a step, of those that are what they are called and have a number."""
    reasons = {
        "distrusted": line["verdict"].isin(DISTRUSTED),
        "of unknown step": line["step"].fillna(-1) < 0,
        "without a number": ~np.isfinite(line["value"].to_numpy(dtype=np.float64)),
    }
    kept, told = pd.Series(True, index=line.index), []
    for name, chosen in reasons.items():
        if count := int((chosen & kept).sum()):
            told.append(f"{count} {name}")
        kept &= ~chosen
    left_aside = f"checkpoints left out: {', '.join(told)}" if told else ""
    return line[kept].drop_duplicates("step", keep="last"), left_aside


def together(group: str, members: list[Trajectory]) -> Trajectory:
    """Average seeds in the logarithm, at the steps that all of them have."""
    steps = reduce(np.intersect1d, [member.steps for member in members])
    curves = [_logarithms(member.numbers[:, np.searchsorted(member.steps, steps)]) for member in members]
    seeds = np.array([curve[0] for curve in curves])
    if len({len(curve) for curve in curves}) > 1:  # draws that do not pair
        curves = [curve[:1] for curve in curves]
    # turned, so that the draws of a number lie beside each other in memory, as `replicated` lays them
    mean = np.exp(np.mean([curve.T for curve in curves], axis=0)).T
    return Trajectory(steps=steps, numbers=mean, seeds=seeds, cell={**members[0].cell, "model": group})


def _logarithms(values: np.ndarray) -> np.ndarray:
    """Natural logarithms, NaN for what has none."""
    return np.log(np.where(values > 0, values, np.nan))


@dataclass(frozen=True, slots=True)
class Segments:
    """Alternating rises and falls of a curve.

    Attributes
    ----------
    ends : places where the segments begin and end, one more than there are segments; empty without a segment
    rises : whether the first segment is a rise
    """

    ends: tuple[int, ...] = ()
    rises: bool = False

    def __len__(self) -> int:
        """Count the segments."""
        return max(len(self.ends) - 1, 0)

    @property
    def words(self) -> Moves:
        """Name the segments in their order: rise or fall."""
        names = ("rise", "fall") if self.rises else ("fall", "rise")
        return tuple(names[place % 2] for place in range(len(self)))

    def change_points(self, *, top: bool) -> tuple[int, ...]:
        """Places inside the curve where a rise ends and a fall begins, or the other way round."""
        first = 1 if self.rises == top else 2
        return self.ends[first:-1:2]


def segments(values: np.ndarray, least: float) -> Segments:
    """Return the rises and falls by `least` or more; smaller ones in between are part of the segment around them.

    Of all alternating sequences of places, each differing from the one before by `least`, this is a longest one, with
    its change points at the extremes of the curve between them.

    Parameters
    ----------
    values : (T,) finite numbers
    least : over 0
    """
    low = high = direction = 0
    ends: list[int] = []
    for place, value in enumerate(values):
        if direction >= 0 and value > values[high]:
            high = place
        if direction <= 0 and value < values[low]:
            low = place
        if direction >= 0 and values[high] - value >= least:
            ends.append(high)
            low, direction = place, -1
        elif direction <= 0 and value - values[low] >= least:
            ends.append(low)
            high, direction = place, 1
    if not ends:
        return Segments()
    last = high if direction > 0 else low
    return Segments((*ends, last), rises=(direction > 0) == (len(ends) % 2 == 1))


def is_part(moves: Sequence[str], others: Sequence[str]) -> bool:
    """Whether rises and falls are found among others, in their order, with or without gaps."""
    rest = iter(others)
    return all(move in rest for move in moves)


def depth(values: np.ndarray, moves: Sequence[str]) -> float:
    """Return the largest change that each of some rises and falls has, in their order, somewhere on a curve."""
    low, high = 0.0, float(np.ptp(values)) + 1e-12
    for _ in range(40):
        middle = (low + high) / 2
        if is_part(moves, segments(values, middle).words):
            low = middle
        else:
            high = middle
    return low


def depths(values: np.ndarray) -> list[float]:
    """Return the largest `least` with which a curve has at least one segment, two, and three."""
    turns = ("rise", "fall") * 2
    return [max(depth(values, turns[first : first + count]) for first in (0, 1)) for count in (1, 2, 3)]


TOLERATED = 2.0  # × `least`: what a segment that is not named may have

UNDECIDED = "undecided"
SHAPES = {
    "flat": "no segment",
    "rise": "one segment, up",
    "fall": "one segment, down",
    "rise_fall": "up, then down",
    "fall_rise": "down, then up",
    "three_phase": "three segments: the column `moves` says which",
    "many_phase": "four segments or more",
    UNDECIDED: "the noise leaves room for another segment, or there is one draw alone",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What is significant in a trajectory.

    Attributes
    ----------
    name : one of `SHAPES`
    segments : those that are significant, or with one draw those that are seen
    least, noise : of the rule, differences of the natural logarithm; NaN for the noise of one draw
    p : p-values of the trajectory having no segment, under two, and under three; NaN with one draw
    """

    name: str
    segments: Segments
    least: float
    noise: float
    p: tuple[float, float, float]


def shape_of(logarithms: np.ndarray, noise: Noise | None) -> Shape:
    """Decide the shape of a trajectory.

    Parameters
    ----------
    logarithms : (T,) natural logarithms of the value at each checkpoint
    noise : their error; None with one draw
    """
    least = least_change(logarithms)
    if noise is None:
        seen = segments(logarithms, least)
        return Shape(name=UNDECIDED, segments=seen, least=least, noise=nan, p=(nan, nan, nan))
    bound = noise.bound(spread)
    significant = segments(logarithms, least + bound)
    room = TOLERATED * least - bound
    decided = room > 0 and len(segments(logarithms, room)) <= len(significant)
    one, two, three = (noise.p_value(spread, depth - least) for depth in depths(logarithms))
    shape = shape_name(significant) if decided else UNDECIDED
    return Shape(name=shape, segments=significant, least=least, noise=bound, p=(one, two, three))


def shape_name(found: Segments) -> str:
    """Name the shape that some segments make."""
    if not found:
        return "flat"
    if len(found) <= 2:
        return "_".join(found.words)
    return "three_phase" if len(found) == 3 else "many_phase"
