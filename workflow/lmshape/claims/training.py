"""Claims about training: effective rank, cosines, linearity, equal weights, and warnings before the loss blows up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import inf, isnan, nan

import numpy as np
from scipy.special import stdtr

from lmshape.claims.anisotropy import over_blocks
from lmshape.claims.claim import (
    LEAST_PARAMETERS,
    ONE_DRAW,
    Claim,
    Finder,
    Finding,
    Found,
    amount,
    each,
    missing,
    over,
    statistic,
    undecided,
    under,
    within,
)
from lmshape.claims.evidence import Curves, Evidence, estimated
from lmshape.claims.trajectories import few, judged, trajectory
from lmshape.dynamics.noise import around, may_be_largest, one_sided
from lmshape.site import middle_layer
from lmshape.tables.columns import joined

EXCEPTION = "pythia-70m"  # to nearly linear blocks
LINEAR = 0.95
CLOSE = 4.0  # factor between two steps: twenty checkpoints of a long run lie a factor of 2 apart


def last_block(curves: Curves) -> np.ndarray:
    """(K + 1, steps): the curve of the last block."""
    return curves.values[:, :, -1]


def peak(claim: Claim, evidence: Evidence, finding: Finding, curves: Curves) -> Finding:
    """Checkpoints at which the last block may be highest, beside the published step."""
    found, wanted = trajectory(last_block(curves), curves.steps), float(finding.published)
    finding = replace(finding, place="last block", threshold=wanted, draws=curves.draws)
    if why := few(found):
        return missing(finding, why)
    if found.steps[-1] < wanted * CLOSE:
        return missing(finding, f"needs checkpoints up to step {wanted * CLOSE:.0f}")
    finding, noise = replace(finding, number=float(found.steps[found.logarithms.argmax()])), found.noise
    if noise is None:
        return undecided(finding, ONE_DRAW)
    places = may_be_largest(found.logarithms, noise)
    beside = around(places, len(found.steps))  # a peak between checkpoints lies there at most
    (low, high), ends = ([float(found.steps[place]) for place in two] for two in (places[[0, -1]], beside))
    verdict = within(low, high, wanted / CLOSE, wanted * CLOSE)
    if verdict == "contradicted":
        verdict = within(ends[0], ends[1], wanted / CLOSE, wanted * CLOSE)
    return replace(finding, ci_low=low, ci_high=high, verdict=verdict)


def moves(claim: Claim, evidence: Evidence, finding: Finding, curves: Curves) -> Finding:
    """Rises and falls of the last block, from step 1 on if the claim says no steps."""
    first, last = claim.steps or (1, inf)
    found = trajectory(last_block(curves), curves.steps, first=first, last=last)
    return judged(replace(finding, place="last block"), found, claim.moves)


def last_over_greatest(claim: Claim, evidence: Evidence, finding: Finding, curves: Curves) -> Finding:
    """Last number of the last block over its greatest from a tenth of the run on, as the least ratio to any of these.

    The least is over a bound where each ratio is, and under it where one is: the lower end of the interval needs no
    correction for many ratios (an intersection-union test), the upper one Bonferroni's.
    """
    finding, kept = replace(finding, place="last block"), claim.bound.number
    found = trajectory(last_block(curves), curves.steps)
    trained = np.flatnonzero(found.steps >= curves.steps[-1] / 10)
    if len(trained) < 3:
        why = f"needs 3 checkpoints after a tenth of the run; there are {len(trained)} of known step"
        return missing(finding, why)
    before = trained[:-1]
    ratios = found.logarithms[-1] - found.logarithms[before]
    told = replace(finding, number=float(np.exp(ratios.min())), threshold=kept, draws=curves.draws)
    if found.noise is None:
        return undecided(told, ONE_DRAW)
    errors, freedom = found.noise.errors_of_differences()
    error, over_kept = errors[-1, before], ratios - np.log(kept)
    low = float(np.exp((ratios - one_sided(freedom) * error).min()))
    high = float(np.exp((ratios + one_sided(freedom, len(before)) * error).min()))
    tests = 1 if (over_kept > 0).all() else len(before)
    with np.errstate(divide="ignore", invalid="ignore"):  # of draws that are equal
        p = min(2 * tests * float(stdtr(freedom, -np.abs((over_kept / error).min()))), 1.0)
    return replace(told, ci_low=low, ci_high=high, p=p, verdict=claim.bound.verdict(low, high))


def nearly_linear(claim: Claim, evidence: Evidence, finding: Finding, curves: Curves) -> Finding:
    """Mean linearity of the blocks; under the bound for the exception."""
    rule = under(LINEAR) if finding.model == EXCEPTION else over(LINEAR)
    return rule.decided(finding, estimated(over_blocks(curves)))


def late_rise(claim: Claim, evidence: Evidence, finding: Finding, curves: Curves) -> Found:
    """Last number of the last block less that at a tenth of the run."""
    tenth = int(np.abs(curves.steps - curves.steps[-1] / 10).argmin())
    last = last_block(curves)
    return replace(finding, place="last block"), estimated(last[:, -1] - last[:, tenth])


def same_first_weights(claim: Claim, evidence: Evidence) -> Iterator[Finding]:
    """Whether steps 0 and 1 have the same weights."""
    for model in claim.about.chosen(evidence):
        own = evidence.table("checkpoints", model=model)
        own = own[own["step"].isin([0, 1])].drop_duplicates("checkpoint")
        finding = Finding(model=model)
        if set(own["step"]) != {0, 1}:
            yield missing(finding, "needs the checkpoints of steps 0 and 1")
            continue
        alike = own["weights_sha256"].nunique() == 1
        yield replace(finding, verdict="supported" if alike else "contradicted", why="by the weights' sha256")


RUNS = "unstable runs"
DIMENSIONS = {"id_twonn": "all", "id_twonn_types": "one_per_type"}  # series, and the rows that they are of
OFTEN = {"probe": "every few steps", "checkpoints": "checkpoints"}  # by the source of a series
GAIN = "auc_gain"  # over the best series without geometry; the column that has a p-value


def before_spikes(column: str) -> Finder:
    """Make the finder of a claim about a number of the table `warnings`: of all rows and of one of each token id.

    Of the middle block, named beforehand: of all blocks the best would be right by luck more often than one.
    """

    def find(claim: Claim, evidence: Evidence) -> Iterator[Finding]:
        largest, least = evidence.largest, LEAST_PARAMETERS["decoder"]
        outside = (
            f"{amount(largest)} parameters; it is about {amount(least)} or more" if largest < least else ""
        )
        for metric, rows in DIMENSIONS.items():
            for row in evidence.table("warnings", metric=metric).to_dict("records"):
                if row["layer"] != middle_layer(int(row["blocks"])):
                    continue
                value, low, high = row[column], row[f"{column}_low"], row[f"{column}_high"]
                best = f"best without geometry: {row['best_baseline']}" if column == GAIN else ""
                finding = Finding(
                    model=RUNS,
                    rows=rows,
                    place=f"block {row['layer']:.0f} of {row['blocks']:.0f}, at {OFTEN[row['source']]}",
                    number=value,
                    ci_low=low,
                    ci_high=high,
                    draws=int(row["runs"]),
                    threshold=claim.bound.number,
                    p=row["p"] if column == GAIN else nan,
                    verdict=claim.bound.verdict(low, high),
                    why=joined(f"{row['spikes']} spikes in {row['runs']} runs", best),
                    outside=outside,
                )
                # an interval needs spikes enough to count
                yield (
                    missing(replace(finding, p=nan), row["flag"] or "no interval") if isnan(low) else finding
                )

    return find


FINDERS = {
    "linear_blocks": each(nearly_linear),
    "early_collapse": each(moves),
    "three_phases": each(moves),
    "peak_of_rankme": each(peak),
    "bulk_expands": each(last_over_greatest),
    "late_cosine": each(late_rise),
    "isotropic_output": each(statistic(lambda curves: curves.last[:, -1])),
    "equal_first_steps": same_first_weights,
    "rises_before_a_spike": before_spikes("move_before"),
    "warns": before_spikes("auc"),
    "warns_better": before_spikes(GAIN),
}
