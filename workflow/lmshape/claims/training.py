"""Claims about training: peaks and collapses of the effective rank, the bulk, cosines, linearity, and equal weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from lmshape.claims.anisotropy import PYTHIA
from lmshape.claims.claim import (
    LONG_RUN,
    ONE_DRAW,
    Claim,
    Curves,
    Evidence,
    Finding,
    Found,
    Verdict,
    each,
    estimated,
    missing,
    over,
    published,
    undecided,
    under,
    within,
)
from lmshape.claims.trajectory import SHAPED, Observed, of_shape, phase_rows
from lmshape.dynamics.phases import ENOUGH
from lmshape.tables.columns import Row

CIRCUITS = "fragmential/training-time-entropy-circuits"
LINEAR = 0.95
KEPT = 0.9  # of a peak
SMALL = 500e6  # parameters
ALIKE = 0.2  # mean cosine of rows that point everywhere
CLOSE = 2.0  # factor between two steps


def peak_of_rankme(evidence: Evidence) -> Iterator[Finding]:
    """Step of the peak of the effective rank in the last block beside the published one."""
    for finding, row, observed in phase_rows(evidence, "effective_rank", band="last"):
        finding = published(finding, "step of the peak of RankMe")
        if finding.published and finding.rows == "all":
            yield missing(finding, row["flag"]) if observed is None else _near(finding, row, observed)


def _near(finding: Finding, row: Row, observed: Observed) -> Finding:
    wanted = float(finding.published)
    low, high = row["peak_step_low"], row["peak_step_high"]
    finding = replace(
        finding, number=row["peak_step"], ci_low=low, ci_high=high, draws=int(row["draws"]), threshold=wanted
    )
    if observed.last_step < wanted:
        return missing(finding, f"this run ends at step {observed.last_step:.0f}")
    if not observed.sure or not np.isfinite([low, high]).all():
        return undecided(finding, ONE_DRAW)
    if "rise, fall" not in ", ".join(observed.segments):
        return undecided(finding, f"no significant peak: {observed.words}")
    return replace(finding, verdict=within(low, high, wanted / CLOSE, wanted * CLOSE))


def collapse_and_recovery(evidence: Evidence) -> Iterator[Finding]:
    """Whether the trajectory of the effective rank in the last block begins with a fall and a rise."""
    for finding, row, observed in phase_rows(evidence, "effective_rank", kind="decoder", band="last"):
        finding = published(finding, "early collapse of the last layers")
        yield missing(finding, row["flag"]) if observed is None else _collapse(finding, row, observed)


def _collapse(finding: Finding, row: Row, observed: Observed) -> Finding:
    finding = replace(finding, draws=int(row["draws"]), why=observed.words)
    if not observed.sure:
        return undecided(finding, ONE_DRAW)
    finding = replace(finding, p=observed.p_of_segments())
    if observed.segments[:2] == ("fall", "rise"):
        return _recovered(replace(finding, number=row["collapse_step"]), row, observed)
    if observed.segments[:1] == ("fall",) and observed.last_step < LONG_RUN:
        return undecided(finding, "a rise may come later")
    if observed.checkpoints < ENOUGH or not observed.decided:
        return undecided(finding, "an early fall may be hidden")
    return replace(finding, verdict="contradicted")


def _recovered(finding: Finding, row: Row, observed: Observed) -> Finding:
    lowest, half = f"at its lowest at step {row['collapse_step']:.0f}", row["recovery_step"]
    if not np.isnan(half):
        return replace(finding, verdict="supported", why=f"{lowest}, half recovered by step {half:.0f}")
    verdict: Verdict = "undecided" if observed.last_step < LONG_RUN else "contradicted"
    return replace(finding, verdict=verdict, why=f"{lowest}, under half recovered by the last")


def three_phases(evidence: Evidence) -> Iterator[Finding]:
    """Shape of the trajectory of the effective rank in the last block."""
    for finding, row, observed in phase_rows(evidence, "effective_rank", kind="decoder", band="last"):
        yield of_shape(finding, row, observed, ("fall", "rise", "fall"))


def bulk_does_not_fall(evidence: Evidence, finding: Finding, curves: Curves) -> Found:
    """effective_rank_bulk of the last block at the end over its greatest from a tenth of the run on."""
    finding = replace(finding, place="last block")
    trained = curves.steps >= curves.steps[-1] / 10
    if trained.sum() < 3:
        return missing(finding, f"{trained.sum()} checkpoints after a tenth of the run; a trajectory needs 3")
    last = curves.values[:, trained, -1]
    return finding, estimated(last[:, -1] / last[:, :-1].max(axis=1))


def nearly_linear(evidence: Evidence, finding: Finding, curves: Curves) -> Finding:
    """Mean over the blocks of their linearity on other draws than the map was fitted on, last checkpoint."""
    exception = published(finding, "exception to linear blocks")
    linearity = estimated(curves.last.mean(axis=1))
    if exception.published:
        return under(LINEAR).decided(exception, linearity)
    return over(LINEAR).decided(published(finding, "linearity of consecutive blocks"), linearity)


def cosine_rises_late(evidence: Evidence, finding: Finding, curves: Curves) -> Found | None:
    """Mean cosine of the last block at the end less that at the checkpoint nearest a tenth of the run."""
    if evidence.parameters(finding.model) > SMALL:
        return None
    finding = replace(finding, place="last block")
    if curves.steps[-1] < LONG_RUN or len(curves.steps) < 3:
        return missing(finding, f"the claim is about runs of over {LONG_RUN} steps; needs 3 checkpoints")
    tenth = int(np.abs(curves.steps - curves.steps[-1] / 10).argmin())
    return finding, estimated(curves.values[:, -1, -1] - curves.values[:, tenth, -1])


def isotropic_output(evidence: Evidence, finding: Finding, curves: Curves) -> Found | None:
    """Mean cosine of the last block of large Pythia models, last checkpoint."""
    if evidence.family(finding.model) != PYTHIA or evidence.parameters(finding.model) <= SMALL:
        return None
    return replace(finding, place="last block"), estimated(curves.last[:, -1])


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
        slug="peak_of_rankme",
        sentence="The effective rank before the final norm (that source's RankMe) peaks at the published step",
        source=f"{CIRCUITS}, docs/final_report.md",
        source_kind="later paper",
        statistic="step of the peak of the effective rank in the last block (table `phases`)",
        rule="supported if there is a significant peak whose interval is within a factor of 2 of the published step; "
        "contradicted if beyond",
        find=peak_of_rankme,
    ),
    Claim(
        slug="early_collapse",
        sentence="Early in training the last layers collapse, and then recover",
        source="Skean et al. 2025, arXiv 2502.02013, its published numbers",
        source_kind="later paper",
        statistic="first significant segments of the effective rank in the last block; shown: step of the collapse",
        rule="supported if they are a fall, then a rise by half of it; contradicted if not; undecided "
        "where these may be hidden, or to come",
        find=collapse_and_recovery,
    ),
    Claim(
        slug="three_phases",
        sentence="The representations of decoders collapse, expand and are compressed to the end",
        source="Li et al. 2025, arXiv 2509.23024",
        source_kind="later paper",
        statistic="shape of the trajectory of the effective rank in the last block (table `phases`)",
        rule=SHAPED.format("a fall, a rise and a fall"),
        find=three_phases,
    ),
    Claim(
        slug="bulk_expands",
        sentence="Without its 32 leading directions the effective rank does not fall in training",
        source=f"{CIRCUITS}, docs/final_report.md",
        source_kind="later paper",
        statistic="effective_rank_bulk of the last block at the end over its greatest from a tenth of the run on",
        rule=over(KEPT),
        find=each("effective_rank_bulk", bulk_does_not_fall, kind="decoder"),
    ),
    Claim(
        slug="linear_blocks",
        sentence="The blocks of decoders are nearly linear maps of their input, but for Pythia-70M",
        source="Razzhigaev et al. 2024, arXiv 2405.12250",
        source_kind="later paper",
        statistic="mean over the blocks of the held-out linearity, last checkpoint",
        rule=f"supported if its interval is over {LINEAR}; contradicted if under; for Pythia-70M the other way round",
        find=each("linearity_held_out", nearly_linear, kind="decoder", rows=["all"]),
    ),
    Claim(
        slug="late_cosine",
        sentence="In small models the mean cosine of the last layer rises late in training",
        source="Godey et al. 2024, arXiv 2404.07647",
        source_kind="later paper",
        statistic="mean_cosine of the last block at the end less that at a tenth of the run",
        rule=over(0, f"up to {SMALL / 1e6:.0f} M parameters"),
        find=each("mean_cosine", cosine_rises_late, kind="decoder", rows=["all"]),
    ),
    Claim(
        slug="isotropic_output",
        sentence="The output of large Pythia models is isotropic",
        source="Machina and Mercer 2024, Anisotropy is not inherent to transformers",
        source_kind="later paper",
        statistic="mean_cosine of the last block, last checkpoint",
        rule=under(ALIKE, f"over {SMALL / 1e6:.0f} M parameters"),
        find=each("mean_cosine", isotropic_output, kind="decoder", rows=["all"]),
    ),
    Claim(
        slug="equal_first_steps",
        sentence="Steps 0 and 1 of every Pythia run hold the same weights",
        source="EleutherAI/pythia: the learning rate of the first step is 0",
        source_kind="later paper",
        statistic="sha256 of the weights",
        rule="supported if they are equal; contradicted if not",
        find=same_first_weights,
    ),
)
