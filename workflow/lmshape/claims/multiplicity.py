"""From verdicts on single models to one over all of them, with many tests not taken for one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isnan

from lmshape.claims.claim import LEVEL, Finding, Verdict

ALL_MODELS = "all models"


def adjusted_verdict(finding: Finding, p: float) -> Verdict:
    """Return the verdict that the adjusted p-value leaves; one that rests on no p-value stands."""
    decided = finding.verdict in ("supported", "contradicted")
    return "undecided" if decided and not isnan(p) and p >= LEVEL else finding.verdict


def over_models(findings: Iterable[Finding], adjusted: Iterable[Verdict]) -> Finding | None:
    """Decide a claim about all models from its verdicts on each, of one choice of rows; None for a single model.

    Supported where each model supports it: all must, so that no correction is due (an intersection-union test, Berger
    1982). Contradicted where one contradicts it still after Holm's correction. Otherwise undecided.
    """
    pairs = [
        (finding, verdict)
        for finding, verdict in zip(findings, adjusted, strict=True)
        if finding.verdict != "not measurable"
    ]
    if len({finding.model for finding, _ in pairs}) < 2:
        return None
    verdict: Verdict = "undecided"
    if all(finding.verdict == "supported" for finding, _ in pairs):
        verdict = "supported"
    elif any(corrected == "contradicted" for _, corrected in pairs):
        verdict = "contradicted"
    first = pairs[0][0]
    return Finding(
        model=ALL_MODELS,
        dataset=first.dataset,
        rows=first.rows,
        place=first.place,
        verdict=verdict,
        why=_counted([finding for finding, _ in pairs]),
    )


def _counted(findings: Sequence[Finding]) -> str:
    counts = [
        f"{word} in {number}"
        for word in ("supported", "contradicted", "undecided")
        if (number := sum(finding.verdict == word for finding in findings))
    ]
    models = len({finding.model for finding in findings})
    of = f"{models} models" if models == len(findings) else f"{len(findings)} places of {models} models"
    return f"{', '.join(counts)} of {of}"
