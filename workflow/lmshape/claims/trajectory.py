"""What a trajectory over training has to say of a claim: its significant segments against those that the claim names.

A trajectory is known at checkpoints, up to some last step. Whatever it does in between and after, the segments that
are seen are part of its own, in their order. So a claim is contradicted as soon as the significant segments are no part
of those that it names (a fall, then a rise are no part of a rise, then a fall). Fewer segments than it names contradict
it only where no others can hide: with checkpoints enough, in a run long enough.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import isnan, nan

import numpy as np

from lmshape.claims.claim import LONG_RUN, ONE_DRAW, Evidence, Finding, Verdict, missing, undecided
from lmshape.dynamics.noise import Replicated
from lmshape.dynamics.phases import ENOUGH, P_VALUES
from lmshape.dynamics.trajectories import UNDECIDED, shape_of
from lmshape.tables.columns import Row, joined

SHAPED = (
    "supported if the significant segments are {}, with room for no other; contradicted if they are no part of these, "
    f"or another shape in a run of {LONG_RUN} steps and more; else undecided"
)
ROOM = "the noise leaves room for another segment"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What is significant in a trajectory.

    Attributes
    ----------
    segments : significant rises and falls, in their order
    decided : whether the noise leaves no room for another one
    sure : whether the noise is known; with one draw it is not
    checkpoints, last_step : where it was looked at
    p : p-values of fewer segments than one, two, three
    """

    segments: tuple[str, ...]
    decided: bool
    sure: bool
    checkpoints: int
    last_step: float
    p: tuple[float, ...]

    @classmethod
    def of_row(cls, evidence: Evidence, row: Row) -> Observed | None:
        """Take it from a row of the table `phases`; None where the row has no shape."""
        if not row["shape"]:
            return None
        return cls(
            segments=tuple(filter(None, row["moves"].split(", "))),
            decided=row["shape"] != UNDECIDED,
            sure=not isnan(row["noise"]),
            checkpoints=int(row["checkpoints"]),
            last_step=evidence.last_step(row["model"]),
            p=tuple(float(row[name]) for name in P_VALUES),
        )

    @classmethod
    def of_values(cls, values: np.ndarray, steps: np.ndarray) -> Observed:
        """Judge positive values (K + 1, steps), with all draws and without each, by `lmshape.dynamics.trajectories`."""
        logarithms = Replicated(values[0], values[1:].T).logarithms()
        noise = logarithms.noise()
        shape = shape_of(logarithms.values, noise)
        return cls(
            segments=shape.segments.words,
            decided=shape.name != UNDECIDED,
            sure=noise is not None,
            checkpoints=len(steps),
            last_step=float(steps[-1]),
            p=shape.p,
        )

    @property
    def words(self) -> str:
        """Name the segments."""
        return ", then ".join(self.segments) or "no significant segment"

    def p_of_segments(self) -> float:
        """p-value of there being fewer segments than are significant; NaN without one."""
        return self.p[min(len(self.segments), len(self.p)) - 1] if self.segments else nan


def compared(finding: Finding, observed: Observed, wanted: tuple[str, ...]) -> Finding:
    """Compare a trajectory with the segments that a claim says are all of it."""
    finding = replace(finding, why=joined(observed.words, finding.why))
    if not observed.sure:
        return undecided(finding, ONE_DRAW)
    verdict, reason = _verdict(observed, wanted)
    return replace(finding, verdict=verdict, p=observed.p_of_segments(), why=joined(finding.why, reason))


def _verdict(observed: Observed, wanted: tuple[str, ...]) -> tuple[Verdict, str]:
    if not is_part(observed.segments, wanted):
        return "contradicted", ""
    if not observed.decided:
        return "undecided", ROOM
    if observed.segments == wanted:
        return "supported", ""
    if observed.last_step < LONG_RUN:
        return "undecided", f"the rest may lie beyond the last step, {observed.last_step:.0f}"
    if observed.checkpoints < ENOUGH:
        return "undecided", f"the rest may lie between the {observed.checkpoints} checkpoints"
    return "contradicted", ""


def is_part(segments: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    """Whether segments are found among others, in their order, with or without gaps."""
    rest = iter(wanted)
    return all(segment in rest for segment in segments)


def phase_rows(
    evidence: Evidence, metric: str, *, kind: str | None = None, band: str | None = None
) -> Iterator[tuple[Finding, Row, Observed | None]]:
    """Yield the rows of `phases` on each model's first dataset; None where there are too few checkpoints."""
    models = evidence.models(kind)
    for row in evidence.table("phases", metric=metric).to_dict("records"):
        model = row["model"]
        if model in models:
            wanted = row["dataset"] == evidence.datasets(model)[0]
        else:  # a recipe's row over its seeds
            wanted = kind in (None, row["kind"])
        if wanted and band in (None, row["band"]):
            yield finding_of(row), row, Observed.of_row(evidence, row)


def finding_of(row: Row) -> Finding:
    """Begin a finding about a row of `phases`."""
    return Finding(model=row["model"], dataset=row["dataset"], rows=row["rows"], place=f"{row['band']} block")


def of_shape(finding: Finding, row: Row, observed: Observed | None, wanted: tuple[str, ...]) -> Finding:
    """Compare a row of `phases` with the segments of a claim, and tell the step of its highest change point."""
    if observed is None:
        return missing(finding, row["flag"])
    finding = replace(
        finding,
        number=row["peak_step"],
        ci_low=row["peak_step_low"],
        ci_high=row["peak_step_high"],
        draws=int(row["draws"]),
        why=f"highest at {_peak(row)}",
    )
    return compared(finding, observed, wanted)


def _peak(row: Row) -> str:
    """Spell the step of the peak: step 4000 [2000, 8000]."""
    low, high = row["peak_step_low"], row["peak_step_high"]
    ends = "" if isnan(low) or isnan(high) else f" [{low:.0f}, {high:.0f}]"
    return f"step {row['peak_step']:.0f}{ends}"
