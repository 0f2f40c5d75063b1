"""Phases of training: the shape of each trajectory over log(1 + step), its peak, straight pieces, an early collapse.

A row is a metric at a named block of a model, on one dataset with one choice of rows.
`lmshape.dynamics.trajectories` holds the rule of the shape, `lmshape.dynamics.noise` what its intervals and p-values
are made of; docs/dynamics.md says how often they are right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, combinations
from math import exp, nan

import numpy as np
import pandas as pd

from lmshape.dynamics.noise import Noise, around, may_be_largest, one_sided
from lmshape.dynamics.trajectories import SHAPES, Segments, Trajectory, shape_of, trajectories_of
from lmshape.tables.columns import Row, declare, integer, interval, interval_of, joined, real, shared, text

MOST_KNOTS = 36
MOST_PIECES = 4


@dataclass(frozen=True, slots=True)
class Fits:
    """Best fits of one number of pieces to some curves.

    Attributes
    ----------
    breaks : (pieces − 1, curves) places of the breaks on the axis
    slopes : (pieces, curves)
    misfit : (curves,) weighted root mean square of the residuals
    """

    breaks: np.ndarray
    slopes: np.ndarray
    misfit: np.ndarray


@dataclass(frozen=True, slots=True)
class _Design:
    """All choices of breaks: `breaks` (choices, p − 1), `basis` (choices, T, p + 1) orthonormal, `triangle` its R."""

    breaks: np.ndarray
    basis: np.ndarray
    triangle: np.ndarray


def most_pieces(count: int) -> int:
    """Return the most pieces that `count` checkpoints can show: two intervals between checkpoints for each."""
    return int(np.clip((count - 1) // 2, 1, MOST_PIECES))


def fit(axis: np.ndarray, curves: np.ndarray, pieces: int, *, mixed: np.ndarray | None = None) -> Fits:
    """Fit continuous straight pieces to curves.

    Parameters
    ----------
    axis : (T,) rising
    curves : (curves, T)
    pieces : at most `most_pieces(T)`
    mixed : (mixtures, curves) weights: fit these sums of the curves in the place of the curves, for the cost of a few
    """
    design = _design(tuple(axis), pieces)
    mixed = np.eye(len(curves)) if mixed is None else mixed
    weighted = (curves * np.sqrt(_weights(axis))).T
    shares = np.swapaxes(design.basis, 1, 2) @ weighted @ mixed.T
    explained = np.einsum("cpm,cpm->cm", shares, shares)
    best = explained.argmax(axis=0)
    columns = np.arange(len(mixed))
    coefficients = np.linalg.solve(design.triangle[best], shares[best, :, columns][..., None])[..., 0]
    total = np.einsum("tm,tm->m", weighted @ mixed.T, weighted @ mixed.T)
    misfit = np.sqrt(np.maximum(total - explained[best, columns], 0.0))
    return Fits(design.breaks[best].T, coefficients[:, 1:].cumsum(axis=1).T, misfit)


def knots(axis: np.ndarray) -> np.ndarray:
    """Return the places where a curve may break: inner checkpoints and the middles between, as many as spread evenly.

    In the middle of two checkpoints, since a break between them is no nearer to either.
    """
    inner = axis[1:-1]
    places = np.sort(np.concatenate([inner, (inner[1:] + inner[:-1]) / 2]))
    if len(places) <= MOST_KNOTS:
        return places
    wanted = np.linspace(axis[0], axis[-1], MOST_KNOTS + 2)[1:-1]
    return np.unique(places[np.abs(places[None, :] - wanted[:, None]).argmin(axis=1)])


def _weights(axis: np.ndarray) -> np.ndarray:
    """Share of the axis nearest to each place; they sum to 1."""
    ends = np.concatenate([axis[:1], (axis[1:] + axis[:-1]) / 2, axis[-1:]])
    return np.diff(ends) / (axis[-1] - axis[0])


@lru_cache(maxsize=8)
def _design(axis: tuple[float, ...], pieces: int) -> _Design:
    places = np.array(axis)
    chosen = list(combinations(knots(places), pieces - 1))
    breaks = np.array(chosen, dtype=np.float64).reshape(len(chosen), pieces - 1)
    halves = np.searchsorted(places, breaks) + np.searchsorted(places, breaks, side="right")
    breaks = breaks[(np.diff(halves, axis=1) >= 2).all(axis=1)]  # as far apart as two checkpoints
    hinges = np.maximum(places[None, :, None] - breaks[:, None, :], 0.0)
    ones = np.ones((len(breaks), len(places), 1))
    columns = np.concatenate([ones, ones * places[:, None], hinges], axis=2)
    basis, triangle = np.linalg.qr(columns * np.sqrt(_weights(places))[:, None])
    return _Design(breaks, basis, triangle)


PHASE_COLUMNS = declare(
    *shared("study"),
    text("model", "name of the model; of models that differ in their seed alone, the name of the recipe"),
    *shared("kind dataset rows metric"),
    text("band", "early, middle or last block: after a quarter, half and all of the blocks"),
    integer("layer", "that block"),
    integer("seeds", "training runs in the row: 1, or those of the recipe"),
    integer("checkpoints", "checkpoints in the trajectory: trusted, of a known step, with a number"),
    integer("draws", "number of independent draws of sequences behind the intervals"),
    text(
        "shape",
        "; ".join(f"{name}: {meaning}" for name, meaning in SHAPES.items()) + "; empty: not measurable",
    ),
    text("moves", "significant rises and falls, in their order: what the shape is made of"),
    real("least", "change of the natural logarithm of the value that makes a rise or fall"),
    real(
        "noise",
        "difference of the logarithm between two checkpoints that the draws explain, 95 % for all pairs at once",
    ),
    real("p_monotone", "p-value of the trajectory having no rise or fall of `least`"),
    real(
        "p_unimodal",
        "p-value of its having one at most, which is neither a rise and a fall nor a fall and a rise",
    ),
    real("p_three_phase", "p-value of its having two at most"),
    *interval(
        integer,
        "peak_step",
        "step of the highest change point from rise to fall; without one, of the largest value",
    ),
    *interval(
        integer,
        "trough_step",
        "step of the lowest change point from fall to rise; without one, of the least value",
    ),
    *interval(
        real, "collapse_depth", "share of the value lost in the first segment; empty if that is not a fall"
    ),
    integer("collapse_step", "step at which that fall ends"),
    integer(
        "recovery_step",
        "first step after it at which half of the fall, in the logarithm, is made good; empty if never",
    ),
    integer(
        "pieces", f"straight pieces of the logarithm over log(1 + step), as few as fit, {MOST_PIECES} at most"
    ),
    *chain.from_iterable(
        interval(integer, f"boundary_{place}_step", "step at which the slope changes; empty beyond the last")
        for place in range(1, MOST_PIECES)
    ),
    *chain.from_iterable(
        interval(
            real,
            f"slope_{place}",
            "change of the logarithm per decade of steps in that piece; empty beyond the last",
        )
        for place in range(1, MOST_PIECES + 1)
    ),
    text("flag", "the reason of an empty shape, or of a doubt about the trajectory; empty when fine"),
)

PHASED = ("anisotropy", "id_twonn", "id_gride_16", "effective_rank", "rankme", "participation_ratio")
FEWEST = 4  # checkpoints of a trajectory
ENOUGH = 9  # checkpoints that can show four pieces
STRAIGHT = 0.05  # of the range: misfit of pieces that are straight enough
SIMULATED = 200
P_VALUES = ("p_monotone", "p_unimodal", "p_three_phase")  # of fewer segments than one, two, three
TAILS = (0.025, 0.975)
SEED = 0


def phases(metrics: pd.DataFrame, groups: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Describe the trajectory of each followed metric over training.

    Parameters
    ----------
    metrics : rows of the models' own tables (`lmshape.tables.columns.MODEL_COLUMNS`)
    groups : model → recipe, for models that differ in their seed alone: `lmshape.dynamics.trajectories`

    Returns
    -------
    The columns of PHASE_COLUMNS; NaN with a flag where there are under 4 checkpoints or a value is not positive.
    """
    followed = metrics[metrics["metric"].isin(PHASED)]
    rows = [describe(one) for one in trajectories_of(followed, groups)]
    return pd.DataFrame(rows, columns=PHASE_COLUMNS.names)


def describe(trajectory: Trajectory) -> Row:
    """Return the row of one trajectory: the columns of PHASE_COLUMNS that it has."""
    steps, numbers = trajectory.steps, trajectory.numbers
    row = {
        **trajectory.cell,
        "seeds": max(len(trajectory.seeds), 1),
        "checkpoints": len(steps),
        "draws": max(len(numbers) - 1, 1),
        "shape": "",
    }
    why = ""
    if len(steps) < FEWEST:
        why = f"under {FEWEST} checkpoints of a known step: {len(steps)}"
    elif not (numbers > 0).all():
        why = "not positive: trajectories are compared in the logarithm"
    if why:
        return row | {"flag": joined(trajectory.left_aside, why)}
    logarithms, noise = trajectory.logarithms, trajectory.noise
    shape = shape_of(logarithms, noise)
    few = f"few checkpoints: {len(steps)}; a phase between two of them does not show"
    alone = "no interval: one draw, or not defined without one of them"
    return {
        **row,
        "shape": shape.name,
        "moves": ", ".join(shape.segments.words),
        "least": shape.least,
        "noise": shape.noise,
        **dict(zip(P_VALUES, shape.p, strict=True)),
        **_extremes(steps, logarithms, noise, shape.segments),
        **_collapse(steps, logarithms, noise, shape.segments),
        **_pieces(steps, logarithms, noise, len(shape.segments)),
        "flag": joined(trajectory.left_aside, few if len(steps) < ENOUGH else "", "" if noise else alone),
    }


def _extremes(steps: np.ndarray, logarithms: np.ndarray, noise: Noise | None, segments: Segments) -> Row:
    """Give the steps of peak and trough: at a change point if there is one, else at the extreme value."""
    row: Row = {}
    for name, sign in (("peak", 1.0), ("trough", -1.0)):
        place, domain = _extreme(sign * logarithms, segments, top=sign > 0)
        row |= _located(name, place, steps, _interval(sign * logarithms, noise, domain))
    return row


def _extreme(values: np.ndarray, segments: Segments, *, top: bool) -> tuple[int, np.ndarray]:
    """Place of the largest value among the change points, or of all; and the places between the ones beside it."""
    points = segments.change_points(top=top)
    if not points:
        return int(values.argmax()), np.arange(len(values))
    place = max(points, key=lambda point: values[point])
    ends = segments.ends
    order = ends.index(place)
    # the first segment may have begun before its first place, the last may end behind its last
    first = ends[order - 1] if order > 1 else 0
    last = ends[order + 1] if order + 2 < len(ends) else len(values) - 1
    return place, np.arange(first, last + 1)


def _interval(values: np.ndarray, noise: Noise | None, domain: np.ndarray) -> tuple[int, int] | None:
    if noise is None:
        return None
    places = domain[may_be_largest(values[domain], noise.at(domain))]
    return around(places, len(values))


def _located(name: str, place: int, steps: np.ndarray, interval: tuple[int, int] | None) -> Row:
    low, high = (int(steps[end]) for end in interval) if interval else (None, None)
    return interval_of(f"{name}_step", int(steps[place]), low, high)


def _collapse(steps: np.ndarray, logarithms: np.ndarray, noise: Noise | None, segments: Segments) -> Row:
    """Describe the first segment if it is a fall: how deep, where it ends, and when half of it is made good."""
    if not segments or segments.rises:
        return {}
    start, bottom = segments.ends[:2]
    change = logarithms[bottom] - logarithms[start]
    back = np.flatnonzero(logarithms[bottom:] >= logarithms[bottom] - change / 2)
    half = nan
    if noise:
        errors, freedom = noise.errors_of_differences()
        half = one_sided(freedom) * errors[start, bottom]
    return {
        **interval_of(
            "collapse_depth", 1 - exp(change), max(1 - exp(change + half), 0.0), 1 - exp(change - half)
        ),
        "collapse_step": int(steps[bottom]),
        "recovery_step": int(steps[bottom + back[0]]) if len(back) else None,
    }


def _pieces(steps: np.ndarray, logarithms: np.ndarray, noise: Noise | None, segments: int) -> Row:
    """Fit the fewest straight pieces that are straight enough; simulate the noise for their intervals."""
    axis = np.log10(1.0 + steps)
    curves, mixed = logarithms[None], None
    if noise is not None:
        curves = np.concatenate([curves, noise.rows()])
        weights = noise.weights(np.random.default_rng(SEED), SIMULATED)
        mixed = np.insert(np.pad(weights, ((1, 0), (0, 0))), 0, 1.0, axis=1)
    pieces = _fewest(axis, logarithms, segments)
    fits = fit(axis, curves, pieces, mixed=mixed)
    row: Row = {"pieces": pieces}
    for place, breaks in enumerate(fits.breaks, start=1):
        row |= _boundary(f"boundary_{place}", breaks, axis)
    for place, slopes in enumerate(fits.slopes, start=1):
        low, high = np.quantile(slopes[1:], TAILS) if noise else (nan, nan)
        row |= interval_of(f"slope_{place}", slopes[0], low, high)
    return row


def _boundary(name: str, breaks: np.ndarray, axis: np.ndarray) -> Row:
    """Give a break with its interval, which reaches to the knots beside: a break lies at one, the truth need not."""
    at = np.concatenate([axis[:1], knots(axis), axis[-1:]])
    steps = np.rint(10.0**at - 1)
    found = np.searchsorted(at, breaks)
    if len(found) == 1:
        return _located(name, int(found[0]), steps, None)
    ends = np.quantile(found[1:], TAILS, method="inverted_cdf").astype(int)
    return _located(name, int(found[0]), steps, around(ends, len(at)))


def _fewest(axis: np.ndarray, logarithms: np.ndarray, segments: int) -> int:
    most = most_pieces(len(axis))
    wanted = STRAIGHT * float(np.ptp(logarithms))
    for pieces in range(min(max(segments, 1), most), most):
        if fit(axis, logarithms[None], pieces).misfit[0] <= wanted:
            return pieces
    return most
