"""Claims about anisotropy: the dome of decoders, the flat profile of encoders, sinks, and what training does to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import combinations
from math import isnan, nan

import numpy as np

from lmshape.claims.claim import (
    ALL_MODELS,
    LEAST_PARAMETERS,
    Claim,
    Finder,
    Finding,
    Found,
    Judge,
    each,
    missing,
    of_text,
    over,
    plural,
    statistic,
    undecided,
)
from lmshape.claims.evidence import Curves, Evidence, estimated
from lmshape.claims.trajectories import judged, trajectory
from lmshape.dynamics.contrasts import between
from lmshape.dynamics.noise import noise_of, size, spread
from lmshape.dynamics.profiles import FEWEST_BLOCKS, SEEN
from lmshape.geometry.resample import Estimate

NEAR_ONE = 0.95  # anisotropy of a plateau
NO_PLATEAU = 0.5  # largest anisotropy of a profile without one
GRID = np.linspace(0, 1, 21)


def profile(judge: Judge) -> Finder:
    """Judge profiles that have a shape, and say of others why they have none."""

    def shaped(claim: Claim, evidence: Evidence, finding: Finding, curves: Curves) -> Found:
        why = shapeless(curves)
        return missing(finding, why) if why else judge(claim, evidence, finding, curves)

    return each(shaped)


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


def over_blocks(curves: Curves) -> np.ndarray:
    """Return the mean over the blocks, (K + 1,)."""
    return curves.last.mean(axis=1)


def flatness(claim: Claim, evidence: Evidence, finding: Finding, curves: Curves) -> Found:
    """Largest less smallest value of a block, without what the noise may add to it or hide of it."""
    observed = float(np.ptp(curves.last[0]))
    noise = noise_of(curves.last)
    bound = noise.bound(spread) if noise else nan
    return finding, Estimate(observed, max(observed - bound, 0.0), observed + bound, curves.draws)


def onset(claim: Claim, evidence: Evidence, finding: Finding, curves: Curves) -> Finding:
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


def due_to_sinks(claim: Claim, evidence: Evidence, finding: Finding, curves: Curves) -> Found:
    """Share of the excess of anisotropy over its null, at its peak, that goes with the sinks."""
    without = evidence.curves(finding.model, "anisotropy", rows="no_sink")
    null = evidence.curves(finding.model, "anisotropy_null")
    if without is None or null is None:
        return missing(finding, "needs anisotropy of `no_sink` rows and `anisotropy_null`")
    peak = int(curves.last[0].argmax())
    finding, most = replace(finding, place=f"block {curves.layers[peak]}"), curves.last[0, peak]
    if not most > NO_PLATEAU:
        return missing(finding, f"anisotropy is {most:.2f} at most; there is no plateau to explain")
    floor = null.last[:, peak]
    share = 1 - (without.last[:, peak] - floor) / (curves.last[:, peak] - floor)
    return finding, estimated(share)


def decoders_above_encoders(claim: Claim, evidence: Evidence) -> Iterator[Finding]:
    """Mean height of the profiles of decoders less that of encoders, with the spread over models as its error."""
    for rows in claim.rows:
        measured = evidence.measured("anisotropy", evidence.known, [rows])
        heights = {model: curves.last[0].max() for model, _, curves in measured}
        inside = {
            model: height for model, height in heights.items() if not claim.about.outside(evidence, model)
        }
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


def _shaped(claim: Claim, evidence: Evidence) -> Iterator[tuple[str, dict[str, Curves]]]:
    """Yield each choice of rows with the models whose profile has a shape."""
    for rows in claim.rows:
        found = evidence.measured("anisotropy", claim.about.chosen(evidence), [rows])
        yield rows, {model: curves for model, _, curves in found if not shapeless(curves)}


def two_alike(claim: Claim, evidence: Evidence) -> Iterator[Found]:
    """Distance between the last profiles of any two decoders."""
    for rows, models in _shaped(claim, evidence):
        for model, other in combinations(models, 2):
            finding = of_text(evidence, model, rows, place=f"to {other}")
            yield finding, estimated(_apart(_on_grid(models[model], -1), _on_grid(models[other], -1)))


def come_together(claim: Claim, evidence: Evidence) -> Iterator[Found]:
    """Distance of a decoder's profile to the others' common last one, at the last step over that at the first.

    The others' alone: a profile comes close to any mean that it is itself part of.
    """
    for rows, models in _shaped(claim, evidence):
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


def highest_block(claim: Claim, evidence: Evidence, finding: Finding, curves: Curves) -> Finding:
    """Rises and falls of the largest value of a block, from where the claim or else training begins."""
    begin = claim.steps[0] if claim.steps else evidence.known[finding.model].begin
    found = trajectory(curves.values.max(axis=2), curves.steps, first=begin)
    return judged(replace(finding, place=f"from step {begin:.0f}"), found, claim.moves)


def early_in_the_middle(claim: Claim, evidence: Evidence, finding: Finding, curves: Curves) -> Found:
    """Largest value of the middle half of the blocks at the steps of the claim."""
    first, last = claim.steps
    early = (curves.steps >= first) & (curves.steps <= last)
    if not early.any():
        return missing(finding, f"needs checkpoints of steps {first} to {last}")
    if not curves.middle.any():
        return missing(finding, shapeless(curves))
    return finding, estimated(curves.values[:, early][:, :, curves.middle].max(axis=(1, 2)))


FINDERS = {
    "dome": profile(statistic(lambda curves: in_the_middle(curves) - edges(curves))),
    "isotropic_ends": profile(statistic(lambda curves: edges(curves) / in_the_middle(curves))),
    "nearly_a_line": profile(statistic(in_the_middle_at_most)),
    "decoders_over_encoders": decoders_above_encoders,
    "uniform_encoders": profile(flatness),
    "high_raw_cosines": each(statistic(over_blocks)),
    "isotropic_encoders": profile(statistic(over_blocks)),
    "one_profile": two_alike,
    "converge": come_together,
    "grows": each(highest_block),
    "grows_after_2000": each(highest_block),
    "none_before_1000": each(early_in_the_middle),
    "plateau_onset": profile(onset),
    "sinks": profile(due_to_sinks),
    "no_plateau_in_olmo_2": profile(statistic(in_the_middle_at_most)),
}
