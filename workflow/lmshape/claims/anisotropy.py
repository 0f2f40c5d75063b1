"""Claims about anisotropy: the dome of decoders, the flat profile of encoders, and what the sinks do to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

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
    two_sided,
    undecided,
)
from lmshape.dynamics.profiles import FEWEST_BLOCKS, SEEN
from lmshape.geometry.resample import Estimate

ARTICLE = "Razzhigaev et al. 2024, arXiv 2311.05928"
HABR = "the authors' article on Habr"
NEAR_ONE = 0.95
HALF = 0.5
FLAT = 0.1
EXPLAINED = 0.95
LONG_RUN = 10_000  # steps; what happens at step 1000 of the published runs says nothing about shorter ones


def profiles(
    evidence: Evidence, kind: str | None, *, rows: tuple[str, ...] = ("all", "no_sink")
) -> Iterator[tuple[Finding, Curves]]:
    """Yield the anisotropy of each model of a kind by layer and step, on its first dataset, with and without sinks."""
    yield from measured(evidence, "anisotropy", kind=kind, rows=rows)


def shapeless(curves: Curves) -> str:
    """Say why a profile has no shape; empty where it has one."""
    if len(curves.layers) < FEWEST_BLOCKS:
        return f"{len(curves.layers)} blocks; a profile needs {FEWEST_BLOCKS}"
    return "" if curves.whole() else "a layer of the last checkpoint has no anisotropy"


def edges(profile: np.ndarray) -> np.ndarray:
    """Return the larger of the values after the first and after the last block; profile: (..., layers)."""
    return np.maximum(profile[..., 0], profile[..., -1])


def inside(profile: np.ndarray) -> np.ndarray:
    """Return the largest value of the blocks between the first and the last; profile: (..., layers)."""
    return profile[..., 1:-1].max(axis=-1)


def peaks_inside(evidence: Evidence) -> Iterator[Finding]:
    """Dome index of the last checkpoint against what a flat profile of this noise reads."""
    for finding, curves in profiles(evidence, "decoder"):
        if why := shapeless(curves):
            yield missing(finding, why)
            continue
        if (found := dome_index(evidence, finding, curves)) is None:
            yield missing(finding, "needs the row of `profiles` of the last checkpoint")
            continue
        dome = _dome(finding, *found)
        if not np.isnan(dome.p):
            # the index ends at 0, so that its interval may have no length; this goes on below
            rise = estimated(inside(curves.last) - edges(curves.last))
            dome = replace(dome, p=two_sided(rise, dome.threshold))
        yield replace(dome, place=f"block {curves.layers[curves.last[0].argmax()]}")


def _dome(finding: Finding, index: Estimate, null: float) -> Finding:
    """Decide: a dome has to exceed what noise alone makes; there is none where the index stays under `SEEN`."""
    dome = above(finding, index, max(SEEN, null))
    if dome.verdict != "contradicted" or null <= SEEN:
        return dome
    none = above(finding, index, SEEN)
    if none.verdict == "contradicted":
        return none
    return undecided(dome, f"noise alone reads up to {null:.2f}")


def dome_index(evidence: Evidence, finding: Finding, curves: Curves) -> tuple[Estimate, float] | None:
    """Return the dome index of the last checkpoint with its interval from `profiles`, and a flat profile's index.

    That interval counts each block that may be the highest one, where the jackknife of a largest value knows one alone.
    """
    cell = {"model": finding.model, "dataset": finding.dataset, "rows": finding.rows}
    own = evidence.table("profiles", metric="anisotropy", step=int(curves.steps[-1]), **cell)
    if own.empty:
        return None
    row = own.iloc[-1]
    found = Estimate(row["dome_index"], row["dome_index_low"], row["dome_index_high"], curves.draws)
    return found, 0.0 if np.isnan(row["dome_index_null"]) else float(row["dome_index_null"])


def falls_at_the_ends(evidence: Evidence) -> Iterator[Finding]:
    """Higher edge over the highest block between the edges, at the last checkpoint."""
    for finding, curves in profiles(evidence, "decoder"):
        why = shapeless(curves)
        ratio = edges(curves.last) / inside(curves.last) if not why else None
        yield missing(finding, why) if why else below(finding, estimated(ratio), HALF)


def nearly_a_line(evidence: Evidence) -> Iterator[Finding]:
    """Largest anisotropy of the middle half of the blocks, at the last checkpoint."""
    for finding, curves in profiles(evidence, "decoder"):
        if why := shapeless(curves):
            yield missing(finding, why)
            continue
        middle = (curves.depth > 0.25) & (curves.depth <= 0.75)
        finding = published(finding, "anisotropy of the middle layers")
        yield above(finding, estimated(curves.last[:, middle].max(axis=1)), NEAR_ONE)


def onset(evidence: Evidence) -> Iterator[Finding]:
    """First block whose anisotropy is over 0.95, beside the published one."""
    for finding, curves in profiles(evidence, "decoder", rows=("all",)):
        finding = published(finding, "onset layer")
        if finding.published:
            yield _onset(finding, curves)


def _onset(finding: Finding, curves: Curves) -> Finding:
    if why := shapeless(curves):
        return missing(finding, why)
    if curves.draws < 2:
        return undecided(finding, ONE_DRAW)
    over = curves.last > NEAR_ONE
    if not over.any(axis=1).all():
        sure = "contradicted" if not over.any() else "undecided"
        return replace(
            finding, verdict=sure, why="no block is over 0.95, with all draws or without one of them"
        )
    first = curves.layers[over.argmax(axis=1)].astype(float)
    near = np.abs(first - float(finding.published)) <= 1
    return replace(
        finding,
        estimate=first[0],
        low=first.min(),
        high=first.max(),
        draws=len(first) - 1,
        threshold=float(finding.published),
        verdict="supported" if near.all() else "undecided" if near.any() else "contradicted",
        why="from the least to the greatest without a draw",
    )


def sinks_explain_it(evidence: Evidence) -> Iterator[Finding]:
    """Share of the excess of anisotropy over its null that goes with the sinks, at the block where it is largest."""
    for finding, curves in profiles(evidence, "decoder", rows=("all",)):
        without = evidence.curves(finding.model, "anisotropy", rows="no_sink")
        null = evidence.curves(finding.model, "anisotropy_null")
        if without is None or null is None:
            yield missing(finding, "needs anisotropy of `no_sink` rows and `anisotropy_null`")
            continue
        peak = int(curves.last[0].argmax())
        finding = replace(finding, place=f"block {curves.layers[peak]}")
        if not curves.last[0, peak] > HALF:
            yield missing(
                finding, f"anisotropy is {curves.last[0, peak]:.2f} at most; there is no plateau to explain"
            )
            continue
        floor = null.last[:, peak]
        share = 1 - (without.last[:, peak] - floor) / (curves.last[:, peak] - floor)
        yield above(finding, estimated(share), EXPLAINED)


CLAIMS = (
    Claim(
        name="dome",
        number="P1",
        statement="In decoders anisotropy over the layers has the shape of a bell, highest in the middle",
        source=f"{ARTICLE}, abstract",
        statistic="dome index, last checkpoint (`profiles`): largest anisotropy of a block less the higher edge's",
        rule=f"supported if its interval is over {SEEN} and dome_index_null, a flat profile's; contradicted if under"
        f" {SEEN}",
        find=peaks_inside,
    ),
    Claim(
        name="isotropic_ends",
        number="P1",
        statement="The first and the last layers of decoders are much more isotropic than the middle",
        source=f"{ARTICLE}, abstract; {HABR}",
        statistic="anisotropy of the higher of the first and the last block over the highest between, last checkpoint",
        rule=f"supported if its interval is under {HALF}; contradicted if over",
        find=falls_at_the_ends,
    ),
    Claim(
        name="nearly_a_line",
        number="P2, 3.12.1",
        statement="In the middle layers of decoders anisotropy is practically 1, even after centering",
        source=f"{HABR}; AIRI blog",
        statistic="largest anisotropy of the middle half of the blocks, last checkpoint",
        rule=f"supported if its interval is over {NEAR_ONE}; contradicted if under",
        find=nearly_a_line,
    ),
    Claim(
        name="plateau_onset",
        number="3.12.1",
        statement="The plateau of Pythia begins at the block that public measurements give",
        source="Skean et al. 2025, arXiv 2502.02013, its published numbers; fragmential/training-time-entropy-circuits",
        statistic=f"first block with anisotropy over {NEAR_ONE}, last checkpoint; interval: without a draw",
        rule="supported if it is the published block or one beside it, without any draw; contradicted if never",
        find=onset,
    ),
    Claim(
        name="sinks",
        number="3.12.4",
        statement="The plateau is the doing of sink rows: without position 0 and rows of huge norm it collapses",
        source="fragmential/training-time-entropy-circuits, docs/dig_findings.md",
        statistic="share of the excess of anisotropy over its null that goes with the sinks, block of the peak",
        rule=f"supported if its interval is over {EXPLAINED}; contradicted if under; needs a peak over {HALF}",
        find=sinks_explain_it,
    ),
)


LOW = 0.2


def uniform(evidence: Evidence) -> Iterator[Finding]:
    """Range of anisotropy over the blocks of encoders, at the last checkpoint."""
    for finding, curves in profiles(evidence, "encoder"):
        why = shapeless(curves)
        yield missing(finding, why) if why else below(finding, estimated(np.ptp(curves.last, axis=1)), FLAT)


def locally_isotropic(evidence: Evidence) -> Iterator[Finding]:
    """Mean anisotropy over the blocks of encoders, centered as it always is, at the last checkpoint."""
    for finding, curves in profiles(evidence, "encoder"):
        yield below(finding, estimated(curves.last.mean(axis=1)), LOW)


def decoders_above_encoders(evidence: Evidence) -> Iterator[Finding]:
    """Height of each decoder's profile over that of each encoder, at their last checkpoints."""
    decoders, encoders = dict(_heights(evidence, "decoder")), dict(_heights(evidence, "encoder"))
    for (_, rows), (height, finding) in decoders.items():
        for (encoder, choice), (other, _) in encoders.items():
            if choice == rows:
                yield above(replace(finding, place=f"over {encoder}"), _independent(height, other), 0.0)


def _heights(evidence: Evidence, kind: str) -> Iterator[tuple[tuple[str, str], tuple[Estimate, Finding]]]:
    for finding, curves in profiles(evidence, kind):
        yield (finding.model, finding.rows), (estimated(curves.last.max(axis=1)), finding)


def _independent(one: Estimate, other: Estimate) -> Estimate:
    """Difference of two estimates from tokens of their own: another tokenizer cuts other sequences."""
    half = np.hypot(one.high - one.low, other.high - other.low) / 2
    value = one.value - other.value
    return Estimate(value, value - half, value + half, min(one.draws, other.draws))


CLAIMS_ENCODERS = (
    Claim(
        name="uniform_encoders",
        number="P3, 3.12.9",
        statement="In encoders anisotropy is roughly uniform over the layers",
        source=f"{ARTICLE}, abstract; {HABR}",
        statistic="largest less smallest anisotropy of a block, last checkpoint",
        rule=f"supported if its interval is under {FLAT}; contradicted if over",
        find=uniform,
    ),
    Claim(
        name="isotropic_encoders",
        number="P3, 3.12.9",
        statement="After subtracting the mean, encoders are quite isotropic",
        source=HABR,
        statistic="mean anisotropy of the blocks, last checkpoint",
        rule=f"supported if its interval is under {LOW}; contradicted if over",
        find=locally_isotropic,
    ),
    Claim(
        name="decoders_over_encoders",
        number="P1, P3",
        statement="Decoders are more anisotropic than encoders",
        source=f"{ARTICLE}, abstract",
        statistic="largest anisotropy of a block of the decoder less that of the encoder, last checkpoints",
        rule="supported if its interval is over 0; contradicted if under",
        find=decoders_above_encoders,
    ),
)
