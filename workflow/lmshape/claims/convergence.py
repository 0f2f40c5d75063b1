"""Claims about the profile of anisotropy over training: all decoders come to one, which grows; OLMo-2 has none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations

import numpy as np

from lmshape.claims.anisotropy import FLAT, HABR, HALF, LONG_RUN, profiles, shapeless
from lmshape.claims.claim import Claim, Finding, above, below, missing
from lmshape.claims.evidence import Curves, Evidence, estimated
from lmshape.claims.published import published

NOT_FALLEN = -0.02
GRID = np.linspace(0, 1, 21)


def same_profile(evidence: Evidence) -> Iterator[Finding]:
    """Root mean square difference of two decoders' final profiles over relative depth."""
    for rows in ("all", "no_sink"):
        pairs = combinations(list(profiles(evidence, "decoder", rows=(rows,))), 2)
        for (finding, one), (other, two) in pairs:
            if why := shapeless(one) or shapeless(two):
                yield missing(finding, why)
                continue
            count = min(len(one.values), len(two.values))
            difference = _on_grid(one)[:count] - _on_grid(two)[:count]
            distance = np.sqrt((difference**2).mean(axis=1))
            yield below(replace(finding, place=f"to {other.model}"), estimated(distance), FLAT)


def _on_grid(curves: Curves) -> np.ndarray:
    return np.array([np.interp(GRID, curves.depth, profile) for profile in curves.last])


def ends_at_its_highest(evidence: Evidence) -> Iterator[Finding]:
    """Height of the last checkpoint less the greatest height of any before, from step 1 on."""
    for finding, curves in profiles(evidence, "decoder"):
        heights = curves.values.max(axis=2)[:, curves.steps > 0]
        if heights.shape[1] < 3:
            yield missing(finding, f"{heights.shape[1]} checkpoints after step 0; a course needs 3")
            continue
        yield above(finding, estimated(heights[:, -1] - heights[:, :-1].max(axis=1)), NOT_FALLEN)


def none_before_a_thousand(evidence: Evidence) -> Iterator[Finding]:
    """Largest anisotropy of the middle half of the blocks at any step from 1 to 1000."""
    for finding, curves in profiles(evidence, "decoder"):
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
        statement="Over training all decoders converge to the same profile",
        source=f"{HABR}; AIRI blog",
        statistic="root mean square difference of two decoders' last profiles over relative depth",
        rule=f"supported if its interval is under {FLAT}; contradicted if over",
        find=same_profile,
    ),
    Claim(
        name="grows",
        number="P4, 3.12.2",
        statement="The largest anisotropy grows as training proceeds",
        source=f"{HABR}; AIRI blog",
        statistic="height of the last checkpoint's profile less the greatest height before it, from step 1 on",
        rule=f"supported if its interval is over {NOT_FALLEN}; contradicted if under: then it has fallen from a peak",
        find=ends_at_its_highest,
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
