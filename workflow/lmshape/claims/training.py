"""Claims about training: peaks and collapses of the effective rank, the bulk, cosines, linearity, and equal weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from scipy.special import stdtr

from lmshape.claims.anisotropy import CIRCUITS, PYTHIA, SKEAN
from lmshape.claims.claim import (
    ONE_DRAW,
    About,
    Finding,
    Found,
    Judge,
    each,
    later_paper,
    missing,
    our_addition,
    over,
    published,
    statistic,
    undecided,
    under,
    within,
)
from lmshape.claims.course import RULE, STATISTIC, Course, judged
from lmshape.claims.evidence import Curves, Evidence, estimated
from lmshape.dynamics.noise import around, may_be_largest, one_sided
from lmshape.dynamics.phases import FEWEST

LINEAR = 0.95
KEPT = 0.9  # of a peak
SMALL = 500e6  # parameters
ALIKE = 0.2  # mean cosine of rows that point everywhere
RISEN = 0.05  # of a mean cosine
CLOSE = 4.0  # factor between two steps: twenty checkpoints of a long run lie a factor of 2 apart
EARLY = 4000  # steps: the published collapse is over by 2000
RANKS = About(kind="decoder", metrics=("effective_rank",), checkpoints=FEWEST)
COSINES = About(kind="decoder", metrics=("mean_cosine",))


def last_block(curves: Curves) -> np.ndarray:
    """(K + 1, steps): the curve of the last block."""
    return curves.values[:, :, -1]


def peak_of_rankme(evidence: Evidence, finding: Finding, curves: Curves) -> Finding:
    """Checkpoints at which the effective rank of the last block may be highest, beside the published step."""
    course, wanted = Course.of(last_block(curves), curves.steps), float(finding.published)
    finding = replace(finding, place="last block", threshold=wanted, draws=curves.draws)
    if course.few or course.steps[-1] < wanted * CLOSE:
        return missing(finding, course.few or f"needs checkpoints up to step {wanted * CLOSE:.0f}")
    finding = replace(finding, number=float(course.steps[course.values.argmax()]))
    if course.noise is None:
        return undecided(finding, ONE_DRAW)
    places = may_be_largest(course.values, course.noise)
    beside = around(places, len(course.steps))  # a peak between checkpoints lies there at most
    (low, high), ends = ([float(course.steps[place]) for place in two] for two in (places[[0, -1]], beside))
    verdict = within(low, high, wanted / CLOSE, wanted * CLOSE)
    if verdict == "contradicted":
        verdict = within(ends[0], ends[1], wanted / CLOSE, wanted * CLOSE)
    return replace(finding, ci_low=low, ci_high=high, verdict=verdict)


def in_order(*moves: str, last: float = np.inf) -> Judge:
    """Judge the rises and falls of the last block from step 1 to `last`."""

    def judge(evidence: Evidence, finding: Finding, curves: Curves) -> Finding:
        course = Course.of(last_block(curves), curves.steps, first=1, last=last)
        return judged(replace(finding, place="last block"), course, moves)

    return judge


def last_over_greatest(evidence: Evidence, finding: Finding, curves: Curves) -> Finding:
    """Last number of the last block over its greatest from a tenth of the run on, as the least ratio to any of these.

    The least is over a bound where each ratio is, and under it where one is: the lower end of the interval needs no
    correction for many ratios (an intersection-union test), the upper one Bonferroni's.
    """
    finding = replace(finding, place="last block")
    course = Course.of(last_block(curves), curves.steps)
    trained = np.flatnonzero(course.steps >= curves.steps[-1] / 10)
    if len(trained) < 3:
        return missing(
            finding, f"needs 3 checkpoints after a tenth of the run; there are {len(trained)} of known step"
        )
    before = trained[:-1]
    ratios = course.values[-1] - course.values[before]
    told = replace(finding, number=float(np.exp(ratios.min())), threshold=KEPT, draws=curves.draws)
    if course.noise is None:
        return undecided(told, ONE_DRAW)
    errors, freedom = course.noise.errors_of_differences()
    error, over_kept = errors[-1, before], ratios - np.log(KEPT)
    low = float(np.exp((ratios - one_sided(freedom) * error).min()))
    high = float(np.exp((ratios + one_sided(freedom, len(before)) * error).min()))
    tests = 1 if (over_kept > 0).all() else len(before)
    with np.errstate(divide="ignore", invalid="ignore"):  # of draws that are equal
        p = min(2 * tests * float(stdtr(freedom, -np.abs((over_kept / error).min()))), 1.0)
    return replace(told, ci_low=low, ci_high=high, p=p, verdict=over(KEPT).verdict(low, high))


def _nearly_linear(evidence: Evidence, finding: Finding, curves: Curves) -> Finding:
    exception = published(finding, "exception to linear blocks")
    linearity = estimated(curves.last.mean(axis=1))
    if exception.published:
        return under(LINEAR).decided(exception, linearity)
    return over(LINEAR).decided(published(finding, "linearity of consecutive blocks"), linearity)


def _cosine_rises_late(evidence: Evidence, finding: Finding, curves: Curves) -> Found:
    tenth = int(np.abs(curves.steps - curves.steps[-1] / 10).argmin())
    last = last_block(curves)
    return replace(finding, place="last block"), estimated(last[:, -1] - last[:, tenth])


def _same_first_weights(evidence: Evidence, about: About) -> Iterator[Finding]:
    for model in about.chosen(evidence):
        own = evidence.table("checkpoints", model=model)
        own = own[own["step"].isin([0, 1])].drop_duplicates("checkpoint")
        finding = Finding(model=model)
        if set(own["step"]) != {0, 1}:
            yield missing(finding, "needs the checkpoints of steps 0 and 1")
            continue
        alike = own["weights_sha256"].nunique() == 1
        yield replace(finding, verdict="supported" if alike else "contradicted", why="by the weights' sha256")


CLAIMS = (
    later_paper(
        slug="linear_blocks",
        sentence="The blocks of decoders are nearly linear maps of their input, but for Pythia-70M",
        source="Razzhigaev et al. 2024, arXiv 2405.12250",
        about=About(kind="decoder", metrics=("linearity_held_out",)),
        statistic="mean over the blocks of the held-out linearity, last checkpoint",
        rule=f"supported if its interval is over {LINEAR}; contradicted if under; for Pythia-70M the other way round",
        find=each("linearity_held_out", _nearly_linear, ["all"]),
    ),
    later_paper(
        slug="early_collapse",
        sentence="Early in training the last layers collapse, and then recover",
        source=SKEAN,
        about=RANKS,
        statistic=STATISTIC.format(
            f"a fall and a rise after it of the effective rank in the last block, steps 1 to {EARLY}",
            "a rise before a fall",
        ),
        rule=RULE.format("it falls, then rises", "a rise before a fall"),
        find=each(
            "effective_rank",
            in_order("fall", "rise", last=EARLY),
            quantity="early collapse of the last layers",
        ),
    ),
    later_paper(
        slug="three_phases",
        sentence="The representations of decoders collapse, expand and are compressed to the end",
        source="Li et al. 2025, arXiv 2509.23024",
        about=RANKS,
        statistic=STATISTIC.format(
            "a fall, a rise and a fall of the effective rank in the last block", "a rise, a fall and a rise"
        ),
        rule=RULE.format("it falls, rises and falls", "a rise, a fall and a rise"),
        find=each("effective_rank", in_order("fall", "rise", "fall")),
    ),
    later_paper(
        slug="peak_of_rankme",
        sentence="The effective rank before the final norm (that source's RankMe) peaks at the published step",
        source=f"{CIRCUITS}, docs/final_report.md",
        about=replace(RANKS, published="step of the peak of RankMe"),
        statistic="checkpoint at which the effective rank in the last block is highest; interval: those that may be",
        rule=f"supported if all of these are within a factor of {CLOSE:.0f} of the published step; contradicted if "
        "they and the ones beside them are beyond",
        find=each("effective_rank", peak_of_rankme, ["all"], "step of the peak of RankMe"),
    ),
    later_paper(
        slug="bulk_expands",
        sentence="Without its 32 leading directions the effective rank does not fall in training",
        source=f"{CIRCUITS}, docs/final_report.md",
        about=replace(RANKS, metrics=("effective_rank_bulk",)),
        statistic="effective_rank_bulk of the last block at the end over its greatest from a tenth of the run on",
        rule=over(KEPT),
        find=each("effective_rank_bulk", last_over_greatest),
    ),
    later_paper(
        slug="late_cosine",
        sentence="In small models the mean cosine of the last layer rises late in training",
        source="Godey et al. 2024, arXiv 2404.07647",
        about=replace(COSINES, least=1e7, most=SMALL, checkpoints=3),
        statistic="mean_cosine of the last block at the end less that at a tenth of the run",
        rule=over(RISEN),
        find=each("mean_cosine", _cosine_rises_late, ["all"]),
    ),
    later_paper(
        slug="isotropic_output",
        sentence="The output of large Pythia models is isotropic",
        source="Machina and Mercer 2024, Anisotropy is not inherent to transformers",
        about=replace(COSINES, family=PYTHIA, least=SMALL),
        statistic="mean_cosine of the last block, last checkpoint",
        rule=under(ALIKE),
        find=each("mean_cosine", statistic(lambda curves: curves.last[:, -1]), ["all"]),
    ),
    our_addition(
        slug="equal_first_steps",
        sentence="Steps 0 and 1 of every Pythia run hold the same weights",
        source="EleutherAI/pythia on GitHub: the learning rate of the first step is 0",
        about=About(name="pythia", least=0),
        statistic="sha256 of the weights",
        rule="supported if they are equal; contradicted if not",
        find=_same_first_weights,
    ),
)
