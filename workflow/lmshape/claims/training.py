"""Claims about training: peaks and collapses of the effective rank, the bulk, cosines, linearity, and equal weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from lmshape.claims.anisotropy import LONG_RUN
from lmshape.claims.claim import Claim, Finding, above, missing
from lmshape.claims.dimension import courses
from lmshape.claims.evidence import Evidence, estimated, measured
from lmshape.claims.published import published

CIRCUITS = "fragmential/training-time-entropy-circuits"
LINEAR = 0.95
KEPT = 0.98  # of a peak
SMALL = 500e6  # parameters
CLOSE = 2.0  # factor between two steps


def peak_of_rankme(evidence: Evidence) -> Iterator[Finding]:
    """Step of the peak of RankMe in the last block beside the published one."""
    for row in evidence.table("phases", metric="rankme", band="last").to_dict("records"):
        finding = Finding(model=row["model"], dataset=row["dataset"], rows=row["rows"], place="last block")
        finding = published(finding, "step of the peak of RankMe")
        if finding.published and row["rows"] == "all":
            yield _near(finding, row)


def _near(finding: Finding, row: dict) -> Finding:
    told, wanted = finding.published, float(finding.published)
    low, high = row["peak_step_low"], row["peak_step_high"]
    if not np.isfinite([low, high]).all():
        return missing(finding, row["flag"] or "no peak with an interval")
    finding = replace(
        finding, estimate=row["peak_step"], low=low, high=high, draws=int(row["draws"]), threshold=wanted
    )
    if low >= wanted / CLOSE and high <= wanted * CLOSE:
        return replace(finding, verdict="supported")
    apart = high < wanted / CLOSE or low > wanted * CLOSE
    return replace(finding, verdict="contradicted" if apart else "undecided", why=f"published: step {told}")


def collapse_then_expansion(evidence: Evidence) -> Iterator[Finding]:
    """Shape of the course of the effective rank in the last block."""
    for finding in courses(evidence, "effective_rank", wanted="fall, rise, fall"):
        if finding.place == "last block":
            yield published(finding, "early collapse of the last layers")


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
    """Mean over the blocks of their linearity, last checkpoint."""
    for finding, curves in measured(evidence, "linearity", kind="decoder", rows=["all"]):
        finding = published(finding, "linearity of consecutive blocks")
        yield above(finding, estimated(curves.last.mean(axis=1)), LINEAR)


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
        statement="RankMe before the final norm peaks at the step that was published for the model",
        source=f"{CIRCUITS}, docs/final_report.md",
        statistic="step of the peak of RankMe in the last block (table `phases`)",
        rule="supported if its interval is within a factor of 2 of the published step; contradicted if beyond",
        find=peak_of_rankme,
    ),
    Claim(
        name="early_collapse",
        number="3.12.7",
        statement="The last layers collapse early, expand again, and are compressed to the end",
        source="Li et al. 2025, arXiv 2509.23024; Skean et al. 2025, arXiv 2502.02013",
        statistic="shape of the course of the effective rank in the last block (table `phases`)",
        rule="supported if it falls, rises and falls; contradicted if it has another shape",
        find=collapse_then_expansion,
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
        statement="The blocks of decoders are nearly linear maps of their input",
        source="Razzhigaev et al. 2024, arXiv 2405.12250",
        statistic="mean linearity of the blocks, last checkpoint",
        rule=f"supported if its interval is over {LINEAR}; contradicted if under",
        find=nearly_linear,
    ),
    Claim(
        name="late_cosine",
        number="3.12.11",
        statement="In small models the mean cosine of the last layer rises late in training",
        source="Godey et al. 2024, arXiv 2404.07647",
        statistic="mean_cosine of the last block at the end less that at a tenth of the run",
        rule=f"supported if its interval is over 0; contradicted if under; up to {SMALL:.0e} parameters",
        find=cosine_rises_late,
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
