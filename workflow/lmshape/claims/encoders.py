"""Claims about encoders: flat and low profiles of anisotropy, under those of decoders."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from lmshape.claims.anisotropy import ARTICLE, FLAT, HABR, profiles, shapeless
from lmshape.claims.claim import Claim, Finding, above, below, missing
from lmshape.claims.evidence import Evidence, estimated
from lmshape.geometry.resample import Estimate

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


CLAIMS = (
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
