"""Claims about the profile of anisotropy over training: all decoders come to one, which grows; OLMo-2 has none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations

import numpy as np

from lmshape.claims.anisotropy import FLAT, HABR, HALF, LONG_RUN, profiles, shapeless
from lmshape.claims.claim import ONE_DRAW, Claim, Finding, below, missing, undecided
from lmshape.claims.course import ROOM, Course
from lmshape.claims.evidence import Curves, Evidence, estimated
from lmshape.claims.published import published
from lmshape.dynamics.noise import size
from lmshape.dynamics.phases import FEWEST

SETTLED = 2000  # steps, after which the published runs are said to grow
PYTHIA = "gpt_neox"  # its architecture
GRID = np.linspace(0, 1, 21)


def same_profile(evidence: Evidence) -> Iterator[Finding]:
    """Root mean square difference of two decoders' final profiles over relative depth."""
    for finding, one, two in _pairs(evidence):
        if why := shapeless(one) or shapeless(two):
            yield missing(finding, why)
            continue
        yield below(finding, estimated(_distance(one, two, -1, -1)), FLAT)


def come_together(evidence: Evidence) -> Iterator[Finding]:
    """Difference of two decoders' profiles at the last step that both have, less that at the first one after step 0."""
    for finding, one, two in _pairs(evidence):
        steps = np.intersect1d(one.steps[one.steps > 0], two.steps[two.steps > 0])
        if len(steps) < 2 or len(one.layers) < 2 or len(two.layers) < 2:
            yield missing(finding, f"{len(steps)} steps after step 0 that both models have; needs 2")
            continue
        first, last = (
            _distance(one, two, *(int(np.searchsorted(curves.steps, step)) for curves in (one, two)))
            for step in (steps[0], steps[-1])
        )
        yield below(replace(finding, why=f"steps {steps[0]} and {steps[-1]}"), estimated(last - first), 0.0)


def _pairs(evidence: Evidence) -> Iterator[tuple[Finding, Curves, Curves]]:
    for rows in ("all", "no_sink"):
        pairs = combinations(list(profiles(evidence, "decoder", rows=(rows,))), 2)
        for (finding, one), (other, two) in pairs:
            yield replace(finding, place=f"to {other.model}"), one, two


def _distance(one: Curves, two: Curves, place: int, other: int) -> np.ndarray:
    """(K + 1,): root mean square difference over relative depth of two profiles, each of a step's place."""
    count = min(len(one.values), len(two.values))
    return size(_on_grid(one, place)[:count] - _on_grid(two, other)[:count])


def _on_grid(curves: Curves, place: int) -> np.ndarray:
    return np.array([np.interp(GRID, curves.depth, profile) for profile in curves.values[:, place]])


def grows(evidence: Evidence) -> Iterator[Finding]:
    """Course of the height of the profile, from step 1 on."""
    for finding, curves in profiles(evidence, "decoder"):
        yield _growth(finding, curves, curves.steps > 0)


def grows_when_settled(evidence: Evidence) -> Iterator[Finding]:
    """Course of the height of the profile, from step 2000 on."""
    for finding, curves in profiles(evidence, "decoder"):
        if curves.steps[-1] < LONG_RUN:
            yield missing(finding, f"the claim is about runs of over {LONG_RUN} steps")
        else:
            yield _growth(finding, curves, curves.steps >= SETTLED)


def _growth(finding: Finding, curves: Curves, chosen: np.ndarray) -> Finding:
    """Decide by the sure moves of the height; its change over the whole course is the number shown."""
    heights = curves.values.max(axis=2)[:, chosen]
    kept = np.isfinite(heights).all(axis=0)
    heights, steps = heights[:, kept], curves.steps[chosen][kept]
    if len(steps) < FEWEST:
        return missing(finding, f"{len(steps)} checkpoints; a course needs {FEWEST}")
    change = estimated(heights[:, -1] - heights[:, 0])
    course = Course.of_values(heights, steps)
    told = replace(
        finding, estimate=change.value, low=change.low, high=change.high, draws=curves.draws, why=course.words
    )
    if not course.sure:
        return undecided(told, ONE_DRAW)
    if "fall" in course.moves or (course.decided and not course.moves):
        return replace(told, verdict="contradicted", p=course.p_of_moves())
    if course.decided:
        return replace(told, verdict="supported", p=course.p_of_moves())
    return undecided(told, ROOM)


def none_before_a_thousand(evidence: Evidence) -> Iterator[Finding]:
    """Largest anisotropy of the middle half of the blocks at any step from 1 to 1000."""
    for finding, curves in profiles(evidence, "decoder"):
        if evidence.family(finding.model) != PYTHIA:
            continue
        early = (curves.steps > 0) & (curves.steps <= 1000)
        if curves.steps[-1] < LONG_RUN or not early.any():
            yield missing(finding, f"the claim is about step 1000 of runs of over {LONG_RUN} steps")
            continue
        middle = (curves.depth > 0.25) & (curves.depth <= 0.75)
        values = curves.values[:, early][:, :, middle].max(axis=(1, 2))
        yield below(finding, estimated(values), HALF)


def no_plateau(evidence: Evidence) -> Iterator[Finding]:
    """Height of the profile of OLMo-2 models."""
    for finding, curves in profiles(evidence, "decoder"):
        if evidence.family(finding.model) == "olmo2":
            finding = published(finding, "anisotropy of the middle layers")
            yield below(finding, estimated(curves.last.max(axis=1)), HALF)


CLAIMS = (
    Claim(
        name="one_profile",
        number="P4",
        statement="At the end of training all decoders have the same profile",
        source=f"{HABR}; AIRI blog",
        statistic="root mean square difference of two decoders' last profiles over relative depth",
        rule=f"supported if its interval is under {FLAT}; contradicted if over",
        find=same_profile,
    ),
    Claim(
        name="converge",
        number="P4",
        statement="Over training the profiles of decoders come closer to each other",
        source=f"{HABR}; AIRI blog",
        statistic="root mean square difference at the last step that both have, less that at the first after step 0",
        rule="supported if its interval is under 0; contradicted if over",
        find=come_together,
    ),
    Claim(
        name="grows",
        number="P4",
        statement="The largest anisotropy grows as training proceeds",
        source=f"{HABR}; AIRI blog",
        statistic="sure moves of the profile's height over log(1 + step), from step 1 on; shown: its whole change",
        rule="supported if it rises and does no other thing; contradicted if it falls for sure, or keeps its height",
        find=grows,
    ),
    Claim(
        name="grows_after_2000",
        number="3.12.2",
        statement="After about step 2000 the largest anisotropy only grows",
        source="Skean et al. 2025, arXiv 2502.02013, its published numbers",
        statistic="sure moves of the profile's height over log(1 + step), from step 2000 on; shown: its whole change",
        rule="supported if it rises and does no other thing; contradicted if it falls for sure, or keeps its height; "
        f"runs of {LONG_RUN} steps and more",
        find=grows_when_settled,
    ),
    Claim(
        name="none_before_1000",
        number="3.12.2",
        statement="There is no plateau in the middle layers of Pythia before about step 1000",
        source="Skean et al. 2025, arXiv 2502.02013, its published numbers",
        statistic="largest anisotropy of the middle half of the blocks at steps 1 to 1000",
        rule=f"supported if its interval is under {HALF}; contradicted if over; runs of {LONG_RUN} steps and more",
        find=none_before_a_thousand,
    ),
    Claim(
        name="no_plateau_in_olmo_2",
        number="3.12.3",
        statement="OLMo-2 has no plateau of anisotropy at all",
        source="fragmential/training-time-entropy-circuits, docs/final_report.md",
        statistic="largest anisotropy of a block, last checkpoint",
        rule=f"supported if its interval is under {HALF}; contradicted if over",
        find=no_plateau,
    ),
)
