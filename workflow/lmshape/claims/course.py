"""Claims about courses over training: the sure rises and falls of a curve against those that a claim names.

A course is looked at from checkpoint to checkpoint, up to some last step. Whatever it does in between and after, the
moves that are seen are part of its own, in their order. So a claim is contradicted as soon as the sure moves are no
part of those that it names (a fall, then a rise are no part of a rise, then a fall). Fewer moves than it names
contradict it only where no others can hide: with checkpoints enough, in a run long enough.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import isnan, nan

import numpy as np

from lmshape.claims.anisotropy import LONG_RUN
from lmshape.claims.claim import ONE_DRAW, Evidence, Finding, Verdict, joined, missing, undecided
from lmshape.dynamics.noise import Replicated
from lmshape.dynamics.phases import ENOUGH
from lmshape.dynamics.trajectories import UNDECIDED, shape_of

Moves = tuple[str, ...]
ROOM = "the noise leaves room for another move"
P_OF_MOVES = ("p_monotone", "p_unimodal", "p_three_phase")  # of fewer moves than one, two, three


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What is sure of a course.

    Attributes
    ----------
    moves : rises and falls that are sure, in their order
    decided : whether the noise leaves no room for another one
    sure : whether there is noise to tell by; with one draw nothing is sure
    checkpoints, last_step : where it was looked at
    p : p-values of fewer moves than one, two, three
    """

    moves: Moves
    decided: bool
    sure: bool
    checkpoints: int
    last_step: float
    p: tuple[float, ...]

    @classmethod
    def of_row(cls, row: dict, last_step: float) -> Course:
        """Take it from a row of the table `phases` that has a shape."""
        return cls(
            moves=tuple(filter(None, row["moves"].split(", "))),
            decided=row["shape"] != UNDECIDED,
            sure=not isnan(row["noise"]),
            checkpoints=int(row["checkpoints"]),
            last_step=last_step,
            p=tuple(float(row[name]) for name in P_OF_MOVES),
        )

    @classmethod
    def of_values(cls, values: np.ndarray, steps: np.ndarray) -> Course:
        """Judge positive values (K + 1, steps), with all draws and without each, by `lmshape.dynamics.trajectories`."""
        logarithms = Replicated(values[0], values[1:].T).logarithms()
        noise = logarithms.noise()
        shape = shape_of(logarithms.values, noise)
        return cls(
            moves=shape.moves.words,
            decided=shape.name != UNDECIDED,
            sure=noise is not None,
            checkpoints=len(steps),
            last_step=float(steps[-1]),
            p=shape.p,
        )

    @property
    def words(self) -> str:
        """Name the moves."""
        return ", then ".join(self.moves) or "no sure move"

    def p_of_moves(self) -> float:
        """p-value of there being fewer moves than are sure; NaN without one."""
        return self.p[min(len(self.moves), len(self.p)) - 1] if self.moves else nan


def compared(finding: Finding, course: Course, wanted: Moves) -> Finding:
    """Compare a course with the moves that a claim says are all of it."""
    finding = replace(finding, why=joined(course.words, finding.why))
    if not course.sure:
        return undecided(finding, ONE_DRAW)
    verdict, reason = _verdict(course, wanted)
    return replace(finding, verdict=verdict, p=course.p_of_moves(), why=joined(finding.why, reason))


def _verdict(course: Course, wanted: Moves) -> tuple[Verdict, str]:
    if not is_part(course.moves, wanted):
        return "contradicted", ""
    if not course.decided:
        return "undecided", ROOM
    if course.moves == wanted:
        return "supported", ""
    if course.last_step < LONG_RUN:
        return "undecided", f"the rest may lie beyond the last step, {course.last_step:.0f}"
    if course.checkpoints < ENOUGH:
        return "undecided", f"the rest may lie between the {course.checkpoints} checkpoints"
    return "contradicted", ""


def is_part(moves: Moves, wanted: Moves) -> bool:
    """Whether moves are found among others, in their order, with or without gaps."""
    rest = iter(wanted)
    return all(move in rest for move in moves)


def phase_rows(
    evidence: Evidence, metric: str, *, kind: str | None = None, band: str | None = None
) -> Iterator[tuple[Finding, dict, Course | None]]:
    """Yield the rows of `phases` on each model's first dataset; no course where there are too few checkpoints."""
    models = evidence.models(kind)
    for row in evidence.table("phases", metric=metric).to_dict("records"):
        model = row["model"]
        if model in models:
            wanted = row["dataset"] == evidence.datasets(model)[0]
        else:  # a recipe's row over its seeds
            wanted = kind in (None, row["kind"])
        if wanted and band in (None, row["band"]):
            place = f"{row['band']} block"
            finding = Finding(model=model, dataset=row["dataset"], rows=row["rows"], place=place)
            yield finding, row, course_of(evidence, row)


def course_of(evidence: Evidence, row: dict) -> Course | None:
    """Return the course of a row of `phases`; None where it has no shape."""
    return Course.of_row(row, evidence.last_step(row["model"])) if row["shape"] else None


def of_shape(finding: Finding, row: dict, course: Course | None, wanted: Moves) -> Finding:
    """Compare a row of `phases` with the moves of a claim, and tell the step of its highest turn."""
    if course is None:
        return missing(finding, row["flag"])
    finding = replace(
        finding,
        estimate=row["peak_step"],
        low=row["peak_step_low"],
        high=row["peak_step_high"],
        draws=int(row["draws"]),
        why=f"highest at {step_with_interval(row, 'peak_step')}",
    )
    return compared(finding, course, wanted)


def step_with_interval(row: dict, name: str) -> str:
    """Spell a step of `phases`: step 4 000 [2 000, 8 000]."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    interval = "" if isnan(low) or isnan(high) else f" [{low:.0f}, {high:.0f}]"
    return f"step {row[name]:.0f}{interval}"
