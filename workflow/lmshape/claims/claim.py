"""What a published claim is as code: a statement, the statistic that decides it, and a rule stated before looking."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import isnan, nan
from typing import TYPE_CHECKING, Literal

from scipy.special import stdtr, stdtrit

from lmshape.geometry.resample import Estimate

if TYPE_CHECKING:
    from lmshape.claims.evidence import Evidence

Verdict = Literal["supported", "contradicted", "undecided", "not measurable"]
VERDICTS: dict[Verdict, str] = {
    "supported": "the whole interval lies on the side that the claim names",
    "contradicted": "the whole interval lies on the other side",
    "undecided": "the interval holds the threshold, there is none, or it does not survive correction for many tests",
    "not measurable": "the study has no cells that could tell; the reason stands beside it",
}
ONE_DRAW = "no interval: one draw"
LEVEL = 0.05  # of a test, two-sided: that of the 95 % intervals


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a claim comes to for one model, dataset and choice of rows.

    Attributes
    ----------
    place : layer, band of layers or series that it is about; empty where it is about all
    threshold : what the interval is compared with; NaN where the rule is none of a threshold
    p : two-sided, of the statistic being the threshold; NaN where it is not tested
    published : the number that the source gives for this model, as text; empty where it gives none
    """

    model: str
    dataset: str = ""
    rows: str = ""
    place: str = ""
    estimate: float = nan
    low: float = nan
    high: float = nan
    draws: int = 0
    threshold: float = nan
    p: float = nan
    verdict: Verdict = "not measurable"
    why: str = ""
    published: str = ""
    published_source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A claim of the literature.

    Attributes
    ----------
    name : of the claim, as tables spell it
    number : of the list that it stands in
    statement : what is claimed, in a sentence
    source : where it is claimed
    statistic : what is computed, with its unit
    rule : when it is supported and when contradicted
    find : yields a finding for each model, dataset and choice of rows that the claim is about
    """

    name: str
    number: str
    statement: str
    source: str
    statistic: str
    rule: str
    find: Callable[[Evidence], Iterator[Finding]]

    def findings(self, evidence: Evidence) -> list[Finding]:
        """Test the claim; one finding that says so where the study has nothing that it is about."""
        return list(self.find(evidence)) or [
            Finding(model="", why="no model of this study is of the kind it is about")
        ]


def above(finding: Finding, estimate: Estimate, threshold: float) -> Finding:
    """Decide a claim that the statistic exceeds `threshold`."""
    return _decided(finding, estimate, threshold, sign=1)


def below(finding: Finding, estimate: Estimate, threshold: float) -> Finding:
    """Decide a claim that the statistic stays under `threshold`."""
    return _decided(finding, estimate, threshold, sign=-1)


def missing(finding: Finding, why: str) -> Finding:
    """Say why a claim cannot be decided."""
    return replace(finding, verdict="not measurable", why=why)


def undecided(finding: Finding, *why: str) -> Finding:
    """Leave a claim open, and say why beside what there is to say already."""
    return replace(finding, verdict="undecided", why=joined(finding.why, *why))


def _decided(finding: Finding, estimate: Estimate, threshold: float, *, sign: int) -> Finding:
    told = replace(
        finding,
        estimate=estimate.value,
        low=estimate.low,
        high=estimate.high,
        draws=estimate.draws,
        threshold=threshold,
    )
    if isnan(estimate.value):
        return missing(told, finding.why or "the statistic has no value here")
    if isnan(estimate.low):
        return undecided(told, ONE_DRAW)
    near, far = (estimate.low, estimate.high) if sign > 0 else (-estimate.high, -estimate.low)
    verdict: Verdict = "undecided"
    if near > sign * threshold:
        verdict = "supported"
    elif far < sign * threshold:
        verdict = "contradicted"
    return replace(told, verdict=verdict, p=two_sided(estimate, threshold))


def two_sided(estimate: Estimate, threshold: float) -> float:
    """Return the p-value of Student's t, on draws − 1 degrees of freedom, of the true value being `threshold`.

    The standard error is read off the interval's longer side: the other may be cut off at the metric's bound.
    """
    freedom = estimate.draws - 1
    half = max(estimate.value - estimate.low, estimate.high - estimate.value)
    distance = abs(estimate.value - threshold)
    if half == 0:
        return 1.0 if distance == 0 else 0.0
    t = distance / half * stdtrit(freedom, 1 - LEVEL / 2)
    return float(2 * stdtr(freedom, -t))


def joined(*texts: str) -> str:
    """Write what is not empty one behind the other."""
    return "; ".join(filter(None, texts))
