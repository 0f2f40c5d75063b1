"""The trajectories of metrics over training at the named blocks of each model, and of several seeds together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import nan

import numpy as np
import pandas as pd

from lmshape.dynamics.noise import Noise, Replicated, spread
from lmshape.hub.integrity import DISTRUSTED
from lmshape.site import named_layers

Moves = tuple[str, ...]  # "rise" and "fall" in turn
_LINE = ("dataset", "rows", "metric", "layer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """A metric of one block over the trusted checkpoints of a model, or of several seeds of it.

    Attributes
    ----------
    cell : the columns study, model, kind, dataset, rows, metric, band and layer of its row
    steps : (T,) rising
    values : T numbers with what each is without a draw; of several seeds their geometric mean
    copies : (S, T) natural logarithms of each seed; (1, T) for one model
    left_aside : why checkpoints are not in it, with their number; empty where all are
    """

    cell: Mapping[str, str | int]
    steps: np.ndarray
    values: Replicated
    copies: np.ndarray
    left_aside: str = ""

    def noise(self) -> Noise | None:
        """Error of the logarithms: that of the draws and, of several seeds, their spread."""
        drawn = self.values.logarithms().noise()
        if len(self.copies) < 2:
            return drawn
        seeds = Noise.of_copies(self.copies)
        return seeds if drawn is None else seeds + drawn


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
    for (dataset, rows, metric, layer), line in named.groupby(list(_LINE), sort=False):
        first = line.iloc[0]
        cell = {name: first[name] for name in ("study", "model", "kind")}
        place = {
            "dataset": dataset,
            "rows": rows,
            "metric": metric,
            "band": bands[layer],
            "layer": int(layer),
        }
        kept, left_aside = _trusted(line)
        values = Replicated.of(kept)
        yield Trajectory(
            cell=cell | place,
            steps=kept["step"].to_numpy(dtype=np.int64),
            values=values,
            copies=_logarithms(values.values)[None],
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
    steps = members[0].steps
    for member in members[1:]:
        steps = np.intersect1d(steps, member.steps)
    values = [member.values.rows(np.searchsorted(member.steps, steps)) for member in members]
    copies = np.array([_logarithms(one.values) for one in values])
    paired = len({one.draws for one in values}) == 1 and values[0].draws >= 2
    left_out = np.exp(np.mean([_logarithms(one.left_out) for one in values], axis=0)) if paired else None
    together = Replicated(
        np.exp(copies.mean(axis=0)), np.empty((len(steps), 0)) if left_out is None else left_out
    )
    cell = dict(members[0].cell) | {"model": group}
    return replace(members[0], cell=cell, steps=steps, values=together, copies=copies, left_aside="")


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


def is_part(moves: Moves, others: Moves) -> bool:
    """Whether rises and falls are found among others, in their order, with or without gaps."""
    rest = iter(others)
    return all(move in rest for move in moves)


def depth(values: np.ndarray, moves: Moves) -> float:
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


LEAST_CHANGE = 0.1  # of the natural logarithm: a tenth of the value
LEAST_SHARE = 0.1  # of the trajectory's range
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
    least = max(LEAST_CHANGE, LEAST_SHARE * float(np.ptp(logarithms)))
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
