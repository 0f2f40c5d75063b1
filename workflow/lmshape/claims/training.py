"""Claims about training: peaks and collapses of the effective rank, the bulk, cosines, linearity, and equal weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations

import numpy as np

from lmshape.claims.anisotropy import FLAT, HABR, HALF, LONG_RUN, profiles, shapeless
from lmshape.claims.claim import (
    ONE_DRAW,
    Claim,
    Curves,
    Evidence,
    Finding,
    above,
    below,
    estimated,
    measured,
    missing,
    published,
    undecided,
)
from lmshape.claims.course import ROOM, Course, of_shape, phase_rows
from lmshape.dynamics.noise import size
from lmshape.dynamics.phases import ENOUGH, FEWEST

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


CLAIMS_CONVERGENCE = (
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


CIRCUITS = "fragmential/training-time-entropy-circuits"
LINEAR = 0.95
KEPT = 0.9  # of a peak
SMALL = 500e6  # parameters
ALIKE = 0.2  # mean cosine of rows that point everywhere
CLOSE = 2.0  # factor between two steps


def peak_of_rankme(evidence: Evidence) -> Iterator[Finding]:
    """Step of the peak of the effective rank in the last block beside the published one."""
    for finding, row, course in phase_rows(evidence, "effective_rank", band="last"):
        finding = published(finding, "step of the peak of RankMe")
        if finding.published and finding.rows == "all":
            yield missing(finding, row["flag"]) if course is None else _near(finding, row, course)


def _near(finding: Finding, row: dict, course: Course) -> Finding:
    wanted = float(finding.published)
    low, high = row["peak_step_low"], row["peak_step_high"]
    finding = replace(
        finding, estimate=row["peak_step"], low=low, high=high, draws=int(row["draws"]), threshold=wanted
    )
    if course.last_step < wanted:
        return missing(finding, f"this run ends at step {course.last_step:.0f}")
    if not course.sure or not np.isfinite([low, high]).all():
        return undecided(finding, ONE_DRAW)
    if "rise, fall" not in ", ".join(course.moves):
        return undecided(finding, f"no sure peak: {course.words}")
    if low >= wanted / CLOSE and high <= wanted * CLOSE:
        return replace(finding, verdict="supported")
    apart = high < wanted / CLOSE or low > wanted * CLOSE
    return replace(finding, verdict="contradicted" if apart else "undecided")


def collapse_and_recovery(evidence: Evidence) -> Iterator[Finding]:
    """Whether the course of the effective rank in the last block begins with a fall and a rise."""
    for finding, row, course in phase_rows(evidence, "effective_rank", kind="decoder", band="last"):
        finding = published(finding, "early collapse of the last layers")
        yield missing(finding, row["flag"]) if course is None else _collapse(finding, row, course)


def _collapse(finding: Finding, row: dict, course: Course) -> Finding:
    finding = replace(finding, draws=int(row["draws"]), why=course.words)
    if not course.sure:
        return undecided(finding, ONE_DRAW)
    finding = replace(finding, p=course.p_of_moves())
    if course.moves[:2] == ("fall", "rise"):
        return _recovered(replace(finding, estimate=row["collapse_step"]), row, course)
    if course.moves[:1] == ("fall",) and course.last_step < LONG_RUN:
        return undecided(finding, "a rise may come later")
    if course.checkpoints < ENOUGH or not course.decided:
        return undecided(finding, "an early fall may be hidden")
    return replace(finding, verdict="contradicted")


def _recovered(finding: Finding, row: dict, course: Course) -> Finding:
    lowest, half = f"at its lowest at step {row['collapse_step']:.0f}", row["recovery_step"]
    if not np.isnan(half):
        return replace(finding, verdict="supported", why=f"{lowest}, half made good by step {half:.0f}")
    verdict = "undecided" if course.last_step < LONG_RUN else "contradicted"
    return replace(finding, verdict=verdict, why=f"{lowest}, under half made good by the last")


def three_phases(evidence: Evidence) -> Iterator[Finding]:
    """Shape of the course of the effective rank in the last block."""
    for finding, row, course in phase_rows(evidence, "effective_rank", kind="decoder", band="last"):
        yield of_shape(finding, row, course, ("fall", "rise", "fall"))


def bulk_does_not_fall(evidence: Evidence) -> Iterator[Finding]:
    """effective_rank_bulk of the last block at the end over its greatest from a tenth of the run on."""
    for finding, curves in measured(evidence, "effective_rank_bulk", kind="decoder"):
        finding = replace(finding, place="last block")
        trained = curves.steps >= curves.steps[-1] / 10
        if trained.sum() < 3:
            yield missing(finding, f"{trained.sum()} checkpoints after a tenth of the run; a course needs 3")
            continue
        last = curves.values[:, trained, -1]
        yield above(finding, estimated(last[:, -1] / last[:, :-1].max(axis=1)), KEPT)


def nearly_linear(evidence: Evidence) -> Iterator[Finding]:
    """Mean over the blocks of their linearity on other draws than the map was fitted on, last checkpoint."""
    for finding, curves in measured(evidence, "linearity_held_out", kind="decoder", rows=["all"]):
        exception = published(finding, "exception to linear blocks")
        linearity = estimated(curves.last.mean(axis=1))
        if exception.published:
            yield below(exception, linearity, LINEAR)
        else:
            yield above(published(finding, "linearity of consecutive blocks"), linearity, LINEAR)


def cosine_rises_late(evidence: Evidence) -> Iterator[Finding]:
    """Mean cosine of the last block at the end less that at the checkpoint nearest a tenth of the run."""
    for finding, curves in measured(evidence, "mean_cosine", kind="decoder", rows=["all"]):
        if evidence.parameters(finding.model) > SMALL:
            continue
        finding = replace(finding, place="last block")
        if curves.steps[-1] < LONG_RUN or len(curves.steps) < 3:
            yield missing(finding, f"the claim is about runs of over {LONG_RUN} steps; needs 3 checkpoints")
            continue
        tenth = int(np.abs(curves.steps - curves.steps[-1] / 10).argmin())
        rise = curves.values[:, -1, -1] - curves.values[:, tenth, -1]
        yield above(finding, estimated(rise), 0.0)


def isotropic_output(evidence: Evidence) -> Iterator[Finding]:
    """Mean cosine of the last block of large Pythia models, last checkpoint."""
    for finding, curves in measured(evidence, "mean_cosine", kind="decoder", rows=["all"]):
        if evidence.family(finding.model) == PYTHIA and evidence.parameters(finding.model) > SMALL:
            yield below(replace(finding, place="last block"), estimated(curves.last[:, -1]), ALIKE)


def same_first_weights(evidence: Evidence) -> Iterator[Finding]:
    """Whether steps 0 and 1 of a Pythia run hold equal weights, by their fingerprints."""
    for model in evidence.models():
        if not model.startswith("pythia"):
            continue
        own = evidence.table("checkpoints", model=model)
        own = own[own["step"].isin([0, 1])].drop_duplicates("checkpoint")
        finding = Finding(model=model)
        if set(own["step"]) != {0, 1}:
            yield missing(finding, "needs the checkpoints of steps 0 and 1")
            continue
        alike = own["weights_sha256"].nunique() == 1
        yield replace(finding, verdict="supported" if alike else "contradicted", why="by the weights' sha256")


CLAIMS = (
    Claim(
        name="peak_of_rankme",
        number="3.12.5",
        statement="The effective rank before the final norm (that source's RankMe) peaks at the published step",
        source=f"{CIRCUITS}, docs/final_report.md",
        statistic="step of the peak of the effective rank in the last block (table `phases`)",
        rule="supported if there is a sure peak whose interval is within a factor of 2 of the published step; "
        "contradicted if beyond",
        find=peak_of_rankme,
    ),
    Claim(
        name="early_collapse",
        number="3.12.7",
        statement="Early in training the last layers collapse, and then recover",
        source="Skean et al. 2025, arXiv 2502.02013, its published numbers",
        statistic="first sure moves of the effective rank in the last block (`phases`); shown: step of the collapse",
        rule="supported if they are a fall, then a rise that makes half of it good; contradicted if not; undecided "
        "where these may be hidden, or to come",
        find=collapse_and_recovery,
    ),
    Claim(
        name="three_phases",
        number="3.12.7",
        statement="The representations of decoders collapse, expand and are compressed to the end",
        source="Li et al. 2025, arXiv 2509.23024",
        statistic="shape of the course of the effective rank in the last block (table `phases`)",
        rule="supported if it falls, rises and falls; contradicted if the sure moves are no part of these, or another "
        f"shape in a run of {LONG_RUN} steps and more; else undecided",
        find=three_phases,
    ),
    Claim(
        name="bulk_expands",
        number="3.12.8",
        statement="Without its 32 leading directions the effective rank does not fall in training",
        source=f"{CIRCUITS}, docs/final_report.md",
        statistic="effective_rank_bulk of the last block at the end over its greatest from a tenth of the run on",
        rule=f"supported if its interval is over {KEPT}; contradicted if under",
        find=bulk_does_not_fall,
    ),
    Claim(
        name="linear_blocks",
        number="3.12.10",
        statement="The blocks of decoders are nearly linear maps of their input, but for Pythia-70M",
        source="Razzhigaev et al. 2024, arXiv 2405.12250",
        statistic="mean over the blocks of the held-out linearity, last checkpoint",
        rule=f"supported if its interval is over {LINEAR}; contradicted if under; for Pythia-70M the other way round",
        find=nearly_linear,
    ),
    Claim(
        name="late_cosine",
        number="3.12.11",
        statement="In small models the mean cosine of the last layer rises late in training",
        source="Godey et al. 2024, arXiv 2404.07647",
        statistic="mean_cosine of the last block at the end less that at a tenth of the run",
        rule=f"supported if its interval is over 0; contradicted if under; up to {SMALL / 1e6:.0f} M parameters",
        find=cosine_rises_late,
    ),
    Claim(
        name="isotropic_output",
        number="3.12.11",
        statement="The output of large Pythia models is isotropic",
        source="Machina and Mercer 2024, Anisotropy is not inherent to transformers",
        statistic="mean_cosine of the last block, last checkpoint",
        rule=f"supported if its interval is under {ALIKE}; contradicted if over; over {SMALL / 1e6:.0f} M parameters",
        find=isotropic_output,
    ),
    Claim(
        name="equal_first_steps",
        number="3.12.13",
        statement="Steps 0 and 1 of every Pythia run hold the same weights",
        source="EleutherAI/pythia: the learning rate of the first step is 0",
        statistic="sha256 of the weights",
        rule="supported if they are equal; contradicted if not",
        find=same_first_weights,
    ),
)
