"""Claims about anisotropy: the dome of decoders, the flat profile of encoders, sinks, and what training does to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import combinations
from math import isnan, log, nan

import numpy as np

from lmshape.claims.claim import (
    ALL_MODELS,
    LEAST_PARAMETERS,
    About,
    Finding,
    Found,
    Judge,
    article,
    each,
    later_paper,
    missing,
    of_text,
    over,
    plural,
    statistic,
    undecided,
    under,
)
from lmshape.claims.course import RULE, STATISTIC, Course, judged
from lmshape.claims.evidence import Curves, Evidence, estimated, measured
from lmshape.dynamics.contrasts import between
from lmshape.dynamics.noise import Replicated, size, spread
from lmshape.dynamics.phases import FEWEST
from lmshape.dynamics.profiles import FEWEST_BLOCKS, SEEN
from lmshape.geometry.resample import Estimate

ARTICLE = "Razzhigaev et al. 2024, arXiv 2311.05928"
HABR = "the authors' article on Habr"
AIRI = "the authors' institute's blog (AIRI)"
SKEAN = "Skean et al. 2025, arXiv 2502.02013, its published numbers"
CIRCUITS = "fragmential/training-time-entropy-circuits on GitHub"
NEAR_ONE, HALF, FLAT, LOW = 0.95, 0.5, 0.1, 0.2
FACTOR = log(1.5)  # between two profiles that are called the same
LESS = 0.9  # of what is said to shrink: a tenth less
SETTLED = 2000  # steps, after which the published runs are said to grow
BEFORE = 1000
PYTHIA, OLMO_2 = "gpt_neox", "olmo2"
GRID = np.linspace(0, 1, 21)
HEIGHT = "anisotropy of the middle layers"  # what public sources give of it
ROWS = ("all", "no_sink")

DECODERS = About(kind="decoder", metrics=("anisotropy",))
ENCODERS = About(kind="encoder", metrics=("anisotropy",))
FOLLOWED = replace(DECODERS, checkpoints=FEWEST)
TWO_DECODERS = replace(DECODERS, models=2)


def profile(function: Judge) -> Judge:
    """Judge profiles that have a shape, and say of others why they have none."""

    def judge(evidence: Evidence, finding: Finding, curves: Curves) -> Found:
        why = shapeless(curves)
        return missing(finding, why) if why else function(evidence, finding, curves)

    return judge


def shapeless(curves: Curves) -> str:
    """Say why a profile has no shape; empty where it has one."""
    if len(curves.layers) < FEWEST_BLOCKS:
        return f"{len(curves.layers)} blocks; a profile needs {FEWEST_BLOCKS}"
    return "" if np.isfinite(curves.last[0]).all() else "a layer of the last checkpoint has no anisotropy"


def edges(curves: Curves) -> np.ndarray:
    """Return the larger of the values after the first and after the last block, (K + 1,)."""
    return np.maximum(curves.last[:, 0], curves.last[:, -1])


def in_the_middle(curves: Curves) -> np.ndarray:
    """Return the mean of the middle half of the blocks, (K + 1,): linear, so that noise does not raise it."""
    return curves.last[:, curves.middle].mean(axis=1)


def in_the_middle_at_most(curves: Curves) -> np.ndarray:
    """Return the largest value of the middle half of the blocks, (K + 1,)."""
    return curves.last[:, curves.middle].max(axis=1)


def flatness(evidence: Evidence, finding: Finding, curves: Curves) -> Found:
    """Largest less smallest value of a block, without what the noise may add to it or hide of it."""
    observed = float(np.ptp(curves.last[0]))
    noise = Replicated(curves.last[0], curves.last[1:].T).noise()
    if noise is None:
        return finding, Estimate(observed, nan, nan, curves.draws)
    bound = noise.bound(spread)
    return finding, Estimate(observed, max(observed - bound, 0.0), observed + bound, curves.draws)


def onset(evidence: Evidence, finding: Finding, curves: Curves) -> Finding:
    """First block whose anisotropy is significantly over 0.95, beside the published one."""
    found = [estimated(values) for values in curves.last.T]
    finding = replace(finding, draws=curves.draws, threshold=float(finding.published))
    if isnan(found[0].low):
        return undecided(finding, "no interval: one draw")
    layers = curves.layers
    sure = layers[[one.low > NEAR_ONE for one in found]]
    maybe = layers[[one.high > NEAR_ONE for one in found]]
    first, earliest = (int(places.min()) if len(places) else int(layers[-1]) + 1 for places in (sure, maybe))
    finding = replace(finding, number=float(first), ci_low=float(earliest), ci_high=float(first))
    if first > layers[-1]:
        finding = replace(finding, why="no block is significantly over 0.95")
    wanted = int(finding.threshold)
    if wanted - 1 <= earliest and first <= wanted + 1:
        return replace(finding, verdict="supported")
    apart = first < wanted - 1 or earliest > wanted + 1
    return replace(finding, verdict="contradicted" if apart else "undecided")


def _sinks_explain_it(evidence: Evidence, finding: Finding, curves: Curves) -> Found:
    without = evidence.curves(finding.model, "anisotropy", rows="no_sink")
    null = evidence.curves(finding.model, "anisotropy_null")
    if without is None or null is None:
        return missing(finding, "needs anisotropy of `no_sink` rows and `anisotropy_null`")
    peak = int(curves.last[0].argmax())
    finding, most = replace(finding, place=f"block {curves.layers[peak]}"), curves.last[0, peak]
    if not most > HALF:
        return missing(finding, f"anisotropy is {most:.2f} at most; there is no plateau to explain")
    floor = null.last[:, peak]
    share = 1 - (without.last[:, peak] - floor) / (curves.last[:, peak] - floor)
    return finding, estimated(share)


def decoders_above_encoders(evidence: Evidence, about: About) -> Iterator[Finding]:
    """Mean height of the profiles of decoders less that of encoders, with the spread over models as its error."""
    for rows in ROWS:
        heights = {
            model: curves.last[0].max()
            for model, _, curves in measured(evidence, "anisotropy", evidence.models(), [rows])
        }
        inside = {model: height for model, height in heights.items() if not about.outside(evidence, model)}
        sides, outside = _by_kind(evidence, inside), ""
        if not all(map(len, sides)):
            sides = _by_kind(evidence, heights)
            outside = "decoders or encoders of a size and training that it is about are missing"
        if all(map(len, sides)):
            told = f"{plural(len(sides[0]), 'decoder')}, {plural(len(sides[1]), 'encoder')}"
            finding = replace(of_text(evidence, next(iter(heights)), rows), model=ALL_MODELS)
            yield _over_kinds(replace(finding, outside=outside, why=told), *sides)
        elif heights:
            absent = "a decoder" if len(sides[1]) else "an encoder"
            yield Finding(model="", rows=rows, why=f"needs {absent} with `anisotropy`")


def _by_kind(evidence: Evidence, heights: Mapping[str, float]) -> list[np.ndarray]:
    """Heights of decoders, and of encoders."""
    kinds = {model: evidence.known[model].kind for model in heights}
    return [
        np.array([height for model, height in heights.items() if kinds[model] == kind])
        for kind in LEAST_PARAMETERS
    ]


def _over_kinds(finding: Finding, one: np.ndarray, two: np.ndarray) -> Finding:
    draws = min(len(one), len(two))
    finding = replace(finding, number=float(one.mean() - two.mean()), threshold=SEEN, draws=draws)
    if draws < 2:
        return undecided(finding, "a spread between models needs two on each side")
    low, high, _ = between(one, two)
    return replace(finding, ci_low=low, ci_high=high, verdict=over(SEEN).verdict(low, high))


def _shaped(evidence: Evidence, about: About) -> Iterator[tuple[str, dict[str, Curves]]]:
    """Yield each choice of rows with the models whose profile has a shape."""
    for rows in ROWS:
        found = measured(evidence, "anisotropy", about.chosen(evidence), [rows])
        yield rows, {model: curves for model, _, curves in found if not shapeless(curves)}


def _same_profile(evidence: Evidence, about: About) -> Iterator[Found]:
    for rows, models in _shaped(evidence, about):
        for model, other in combinations(models, 2):
            finding = of_text(evidence, model, rows, place=f"to {other}")
            yield finding, estimated(_apart(_on_grid(models[model], -1), _on_grid(models[other], -1)))


def come_together(evidence: Evidence, about: About) -> Iterator[Found]:
    """Distance of a decoder's profile to the others' common last one, at the last step over that at the first.

    The others' alone: a profile comes close to any mean that it is itself part of.
    """
    for rows, models in _shaped(evidence, about):
        for model, curves in models.items():
            finding = of_text(evidence, model, rows)
            places = np.flatnonzero(curves.steps >= evidence.known[model].begin)
            others = [_on_grid(other, -1) for name, other in models.items() if name != model]
            if len(places) < 2 or not others:
                yield missing(finding, "needs two checkpoints of known step, and a second decoder")
                continue
            count = min(len(curves.values), *map(len, others))
            common = np.exp(np.mean([np.log(other[:count]) for other in others], axis=0))
            first, last = (_apart(_on_grid(curves, place), common) for place in places[[0, -1]])
            steps = f"step {curves.steps[places[-1]]} over step {curves.steps[places[0]]}"
            yield replace(finding, place=steps), estimated(last / first)


def _on_grid(curves: Curves, place: int) -> np.ndarray:
    """(K + 1, depths): the profile of a step at evenly spread relative depths."""
    return np.array([np.interp(GRID, curves.depth, values) for values in curves.values[:, place]])


def _apart(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """(K + 1,): root mean square over depth of the logarithm of the ratio of two profiles."""
    count = min(len(one), len(two))
    return size(np.log(one[:count]) - np.log(two[:count]))


def grows(first: float = nan) -> Judge:
    """Judge the course of the largest value of a block, from a step on; by default from where training has begun."""

    def judge(evidence: Evidence, finding: Finding, curves: Curves) -> Finding:
        begin = evidence.known[finding.model].begin if isnan(first) else first
        course = Course.of(curves.values.max(axis=2), curves.steps, first=begin)
        return judged(replace(finding, place=f"from step {begin:.0f}"), course, ("rise",))

    return judge


def _none_before_a_thousand(evidence: Evidence, finding: Finding, curves: Curves) -> Found:
    early = (curves.steps > 0) & (curves.steps <= BEFORE)
    if not early.any():
        return missing(finding, f"needs checkpoints of steps 1 to {BEFORE}")
    return finding, estimated(curves.values[:, early][:, :, curves.middle].max(axis=(1, 2)))


CLAIMS = (
    article(
        slug="dome",
        sentence="In decoders anisotropy over the layers has the shape of a bell, highest in the middle",
        source=f"{ARTICLE}, abstract",
        about=DECODERS,
        statistic="mean anisotropy of the middle half of the blocks less that of the first or last, whichever is more",
        rule=over(SEEN),
        find=each("anisotropy", profile(statistic(lambda curves: in_the_middle(curves) - edges(curves))), ROWS),
    ),
    article(
        slug="isotropic_ends",
        sentence="The first and the last layers of decoders are much more isotropic than the middle",
        source=f"{ARTICLE}, abstract; {HABR}",
        about=DECODERS,
        statistic="anisotropy of the higher of the first and the last block over the mean of the middle half",
        rule=under(HALF),
        find=each("anisotropy", profile(statistic(lambda curves: edges(curves) / in_the_middle(curves))), ROWS),
    ),
    article(
        slug="nearly_a_line",
        sentence="In the middle layers of decoders anisotropy is practically 1, even after centering",
        source=f"{HABR}; {AIRI}",
        about=DECODERS,
        statistic="largest anisotropy of the middle half of the blocks, last checkpoint",
        rule=over(NEAR_ONE),
        find=each("anisotropy", profile(statistic(in_the_middle_at_most)), ROWS, HEIGHT),
    ),
    article(
        slug="decoders_over_encoders",
        sentence="Decoders are more anisotropic than encoders",
        source=f"{ARTICLE}, abstract",
        about=About(metrics=("anisotropy",)),
        statistic="mean over decoders of the largest anisotropy of a block, less that over encoders, last checkpoints",
        rule=f"supported if its interval over models (Welch) is over {SEEN}; contradicted if under; undecided with "
        "fewer than two models on a side",
        find=decoders_above_encoders,
    ),
    article(
        slug="uniform_encoders",
        sentence="In encoders anisotropy is roughly uniform over the layers",
        source=f"{ARTICLE}, abstract; {HABR}",
        about=ENCODERS,
        statistic="largest less smallest anisotropy of a block, last checkpoint",
        rule=under(FLAT),
        find=each("anisotropy", profile(flatness), ROWS),
    ),
    article(
        slug="high_raw_cosines",
        sentence="Cosines between an encoder's raw representations are very high",
        source=HABR,
        about=About(kind="encoder", metrics=("mean_cosine",)),
        statistic="mean over the blocks of the mean cosine of rows that are not centered, last checkpoint",
        rule=over(HALF),
        find=each("mean_cosine", statistic(lambda curves: curves.last.mean(axis=1)), ["all"]),
    ),
    article(
        slug="isotropic_encoders",
        sentence="After subtracting the mean, encoders are quite isotropic",
        source=HABR,
        about=ENCODERS,
        statistic="mean anisotropy of the blocks, last checkpoint",
        rule=under(LOW),
        find=each("anisotropy", profile(statistic(lambda curves: curves.last.mean(axis=1))), ROWS),
    ),
    article(
        slug="one_profile",
        sentence="At the end of training all decoders have the same profile",
        source=f"{HABR}; {AIRI}",
        about=TWO_DECODERS,
        statistic="root mean square over relative depth of the logarithm of the ratio of two decoders' last profiles",
        rule=under(FACTOR, "a factor of 1.5"),
        find=_same_profile,
    ),
    article(
        slug="converge",
        sentence="Over training the profiles of decoders converge to a common one",
        source=f"{HABR}; {AIRI}",
        about=replace(TWO_DECODERS, checkpoints=2),
        statistic="distance of a decoder's profile to the mean of the other decoders' last ones, as in one_profile, at "
        "the last step over that at the step where training has begun",
        rule=under(LESS),
        find=come_together,
    ),
    article(
        slug="grows",
        sentence="The largest anisotropy grows as training proceeds",
        source=f"{HABR}; {AIRI}",
        about=FOLLOWED,
        statistic=STATISTIC.format("a rise of the largest anisotropy of a block", "a fall"),
        rule=RULE.format("it rises", "a fall"),
        find=each("anisotropy", grows(), ROWS),
    ),
    later_paper(
        slug="grows_after_2000",
        sentence="After about step 2000 the largest anisotropy only grows",
        source=SKEAN,
        about=FOLLOWED,
        statistic=STATISTIC.format("a rise of the largest anisotropy of a block from step 2000 on", "a fall"),
        rule=RULE.format("it rises", "a fall"),
        find=each("anisotropy", grows(SETTLED), ROWS),
    ),
    later_paper(
        slug="none_before_1000",
        sentence="There is no plateau in the middle layers of Pythia before about step 1000",
        source=SKEAN,
        about=replace(DECODERS, family=PYTHIA, checkpoints=1),
        statistic="largest anisotropy of the middle half of the blocks at steps 1 to 1000",
        rule=under(HALF),
        find=each("anisotropy", _none_before_a_thousand, ROWS),
    ),
    later_paper(
        slug="plateau_onset",
        sentence="The plateau of Pythia begins at the block that public measurements give",
        source=f"{SKEAN}; {CIRCUITS}",
        about=replace(DECODERS, published="onset layer", least=0),
        statistic=f"first block with anisotropy significantly over {NEAR_ONE}, last checkpoint; interval: from the "
        "first that may be",
        rule="supported if both are the published block or one beside it; contradicted if neither is",
        find=each("anisotropy", profile(onset), ["all"], "onset layer"),
    ),
    later_paper(
        slug="sinks",
        sentence="Sink rows cause the plateau: without position 0 and rows of huge norm it collapses",
        source=f"{CIRCUITS}, docs/dig_findings.md",
        about=replace(DECODERS, metrics=("anisotropy", "anisotropy_null")),
        statistic="share of the excess of anisotropy over its null that goes with the sinks, block of the peak",
        rule=over(HALF, f"needs a peak over {HALF}"),
        find=each("anisotropy", profile(_sinks_explain_it), ["all"]),
    ),
    later_paper(
        slug="no_plateau_in_olmo_2",
        sentence="OLMo-2 has no plateau of anisotropy at all",
        source=f"{CIRCUITS}, docs/final_report.md",
        about=replace(DECODERS, family=OLMO_2),
        statistic="largest anisotropy of the middle half of the blocks, last checkpoint",
        rule=under(HALF),
        find=each("anisotropy", profile(statistic(in_the_middle_at_most)), ROWS, HEIGHT),
    ),
)  # fmt: skip
