"""What a published claim is as code: a sentence, what it is about, the statistic that decides it, and a rule."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf, isnan, nan
from typing import Any, Literal

import numpy as np
from scipy.special import stdtr

from lmshape.claims.evidence import Curves, Evidence, estimated
from lmshape.dynamics.noise import LEVEL, one_sided
from lmshape.geometry.resample import Estimate
from lmshape.tables.columns import joined

Verdict = Literal["supported", "contradicted", "undecided", "out of scope", "not measurable"]
VERDICTS: dict[Verdict, str] = {
    "supported": "the whole interval lies on the side that the claim names",
    "contradicted": "the whole interval lies on the other side",
    "undecided": "the interval holds the threshold, there is none, or it does not survive correction for many tests",
    "out of scope": "the claim is about other models, such as larger ones trained for longer; the number is shown, and "
    "`rule_says` has its side of the threshold",
    "not measurable": "the study has no cells that could tell; `why` names what is missing",
}
ONE_DRAW = "no interval: one draw"
LONG_RUN, MANY_TOKENS = 10_000, 1e9  # steps or tokens of a run that the claims speak of
LEAST_PARAMETERS = {"decoder": 5e7, "encoder": 1e7}  # Pythia-70M, ALBERT
LEARNED_NATS = 0.5  # nats under the entropy of the token frequencies


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a claim comes to for one model, dataset and choice of rows.

    Attributes
    ----------
    place : layer, band of layers or series that it is about; empty where it is about all
    threshold : what the interval is compared with; NaN where the rule has no threshold
    p : two-sided, of the statistic being the threshold; NaN where it is not tested
    published : the number that the source gives for this model, as text; empty where it gives none
    outside : why the claim is not about this model; empty where it is
    detail : whether it is shown and does not count
    """

    model: str
    dataset: str = ""
    rows: str = ""
    place: str = ""
    number: float = nan
    ci_low: float = nan
    ci_high: float = nan
    draws: int = 0
    threshold: float = nan
    p: float = nan
    verdict: Verdict = "not measurable"
    why: str = ""
    published: str = ""
    published_source: str = ""
    outside: str = ""
    detail: bool = False


def of_text(evidence: Evidence, model: str, rows: str, **more: Any) -> Finding:
    """Begin a finding about a model on its first dataset."""
    return Finding(model=model, dataset=evidence.known[model].datasets[0], rows=rows, **more)


def missing(finding: Finding, why: str) -> Finding:
    """Say why a claim cannot be decided."""
    return replace(finding, verdict="not measurable", why=why)


def undecided(finding: Finding, *why: str) -> Finding:
    """Leave a claim open, and say why beside what there is to say already."""
    return replace(finding, verdict="undecided", why=joined(finding.why, *why))


def within(low: float, high: float, least: float = -inf, most: float = inf) -> Verdict:
    """Decide a claim that a number lies between two others from the number's interval."""
    if least <= low and high <= most:
        return "supported"
    return "contradicted" if low > most or high < least else "undecided"


@dataclass(frozen=True, slots=True)
class Bound:
    """The rule that a statistic lies over a number (`sign` 1) or under it (−1); `more` is the rest of its sentence."""

    number: float
    sign: int
    more: str = ""

    def __str__(self) -> str:
        """Spell the rule."""
        sides = ("over", "under")[:: self.sign]
        stated = f"supported if its interval is {sides[0]} {self.number:g}; contradicted if {sides[1]}"
        return joined(stated, self.more)

    def verdict(self, low: float, high: float) -> Verdict:
        """Compare an interval with the number, which it must not touch."""
        near, far = sorted((self.sign * low, self.sign * high))
        if near > self.sign * self.number:
            return "supported"
        return "contradicted" if far < self.sign * self.number else "undecided"

    def decided(self, finding: Finding, estimate: Estimate) -> Finding:
        """Decide a claim by the interval of its statistic."""
        told = replace(finding, number=estimate.value, ci_low=estimate.low, ci_high=estimate.high,
                       draws=estimate.draws, threshold=self.number)  # fmt: skip
        if isnan(estimate.value):
            return missing(told, finding.why or "the statistic has no value here")
        if isnan(estimate.low):
            return undecided(told, ONE_DRAW if estimate.draws < 2 else "no interval")
        verdict = self.verdict(estimate.low, estimate.high)
        return replace(told, verdict=verdict, p=student_p(estimate, self.number))


def over(number: float, more: str = "") -> Bound:
    """Claim that the statistic exceeds a number."""
    return Bound(number, 1, more)


def under(number: float, more: str = "") -> Bound:
    """Claim that the statistic stays under a number."""
    return Bound(number, -1, more)


def student_p(estimate: Estimate, threshold: float) -> float:
    """Return the p-value of Student's t, on draws − 1 degrees of freedom, of the true value being `threshold`.

    The standard error is read off the interval's longer side: the other may be cut off at the metric's bound.
    """
    freedom = estimate.draws - 1
    half = max(estimate.value - estimate.low, estimate.high - estimate.value)
    distance = abs(estimate.value - threshold)
    if half == 0:
        return 1.0 if distance == 0 else 0.0
    t = distance / half * one_sided(freedom)
    return float(2 * stdtr(freedom, -t))


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """Which models a claim speaks of, and what a study needs to say anything of it.

    Attributes
    ----------
    kind, family, name : decoder or encoder, architecture, how the name begins; empty for all
    among : names of the only models; empty for all
    least, most : parameters; `least` is `LEAST_PARAMETERS` of the model's kind where none is given
    models : fewest of such models
    metrics : metrics that have to be measured
    checkpoints : fewest of a known step
    order : what the tokens of a dataset beside the text are: random or shuffled
    table : table of the study that has to have rows, and `makes` what gives it some
    """

    kind: str = ""
    family: str = ""
    name: str = ""
    among: Collection[str] = ()
    least: float = nan
    most: float = inf
    models: int = 1
    metrics: Sequence[str] = ()
    checkpoints: int = 0
    order: str = ""
    table: str = ""
    makes: str = ""

    def chosen(self, evidence: Evidence) -> list[str]:
        """Models of the study that it is about, whatever their size."""
        return [
            name
            for name, model in evidence.known.items()
            if self.kind in ("", model.kind)
            and self.family in ("", model.family)
            and name.startswith(self.name)
            and (not self.among or name in self.among)
        ]

    def lacks(self, evidence: Evidence) -> str:
        """Name what the study lacks to test the claim; empty where it has all."""
        if self.table:
            return "" if len(evidence.table(self.table)) else f"needs {self.makes}"
        models = self.chosen(evidence)
        known = [evidence.known[model] for model in models]
        measured = {name for model in evidence.known.values() for name in model.rows}
        unmeasured = [f"`{name}`" for name in self.metrics if name not in measured]
        orders = {evidence.orders[name] for model in known for name in model.datasets}
        most = max((model.checkpoints for model in known), default=0)
        reasons = {
            self._wanted(len(models)): len(models) < self.models,
            f"{', '.join(unmeasured)} among the metrics": bool(unmeasured),
            f"a dataset of {self.order} tokens": bool(self.order) and self.order not in orders,
            f"{self.checkpoints} checkpoints of a known step; there are {most}": bool(models)
            and most < self.checkpoints,
        }
        told = [reason for reason, holds in reasons.items() if holds]
        return f"needs {' and '.join(told)}" if told else ""

    def _wanted(self, there: int) -> str:
        """Name the models that are missing: a decoder, a second decoder, one of pythia-70m, pythia-160m."""
        if self.among:
            return f"one of {', '.join(self.among)}"
        called = " ".join(filter(None, (self.family, self.name.capitalize(), self.kind or "model")))
        if self.models - there > 1:
            return f"{self.models} {called}s"
        article = "an" if not there and called[0] in "aeio" else "a"
        return f"{article} {'second ' * there}{called}"

    def outside(self, evidence: Evidence, model: str) -> str:
        """Say why the claim is not about a model: its size, its training, its loss; empty where it is."""
        known = evidence.known[model]
        parameters, steps = known.parameters, known.steps
        least = LEAST_PARAMETERS[known.kind] if isnan(self.least) else self.least
        entropy, loss = evidence.entropies.get(model, inf), [-inf, *known.losses.values()][-1]
        reasons = []
        if parameters < least:
            reasons.append(f"{amount(parameters)} parameters; it is about {amount(least)} or more")
        if parameters > self.most:
            reasons.append(f"{amount(parameters)} parameters; it is about {amount(self.most)} or fewer")
        if steps < LONG_RUN and not known.tokens >= MANY_TOKENS:
            reasons.append(f"{steps:.0f} steps; it is about {LONG_RUN} or more, or a billion tokens")
        if not loss < entropy - LEARNED_NATS:
            reasons.append(
                f"a loss of {loss:.2f} nats, not {LEARNED_NATS} under the {entropy:.2f} of frequencies"
            )
        return joined(*reasons)

    def __str__(self) -> str:
        """Spell which models: decoders from 50 M parameters."""
        if self.table == "warnings":
            return "runs whose loss spikes"
        names = [self.kind] if self.kind else list(LEAST_PARAMETERS)
        sizes = {name: LEAST_PARAMETERS[name] if isnan(self.least) else self.least for name in names}
        told = [f"{name}s{f' of family {self.family}' * bool(self.family)} from {amount(size)} parameters"
                for name, size in sizes.items()]  # fmt: skip
        return " and ".join(told) + (f" to {amount(self.most)}" if self.most < inf else "")


def amount(number: float) -> str:
    """Write a number of parameters: 1.7 M, 50 M, 7 B."""
    scale, unit = (1e9, "B") if number >= 1e9 else (1e6, "M")
    return f"{number / scale:.3g} {unit}"


def plural(count: int, word: str) -> str:
    """Write a number of things: 1 model, 2 models."""
    return f"{count} {word}{'s' * (count != 1)}"


Found = Finding | tuple[Finding, Estimate]  # decided, or what the claim's `Bound` decides


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A claim of the literature: an entry of `claims.yaml`.

    Attributes
    ----------
    slug : name of the claim, in tables and addresses
    sentence : what is claimed
    source, source_kind : where it is claimed; article, later paper or our addition
    about : which models it speaks of, and what a study needs to test it
    statistic : what is computed, with its unit
    rule : when it is supported and when contradicted: a `Bound`, or the sentence of what `find` decides itself
    find : yields what is found for each of the models, dataset and choice of rows
    rows : choices of rows that it is tested with; empty for all that were measured
    moves : rises and falls that a trajectory has to have
    steps : the first and the last that it speaks of
    published : model → `value` and `source`, of what public sources give
    """

    slug: str
    sentence: str
    source: str
    source_kind: str
    about: About
    statistic: str
    rule: Bound | str
    find: Finder
    rows: Sequence[str] = ()
    moves: Sequence[str] = ()
    steps: Sequence[int] = ()
    published: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, slug: str, source_kind: str, entry: Mapping[str, Any], find: Finder) -> Claim:
        """Take it from an entry of `claims.yaml`."""
        rule = entry["rule"]
        if isinstance(rule, dict):
            number, sign = (rule["over"], 1) if "over" in rule else (rule["under"], -1)
            rule = Bound(number, sign, rule.get("more", ""))
        told = {**entry, "about": About(**entry["about"]), "rule": rule}
        return cls(slug=slug, source_kind=source_kind, find=find, **told)

    @property
    def bound(self) -> Bound:
        """The rule of a claim whose statistic is compared with a number."""
        assert isinstance(self.rule, Bound), f"`{self.slug}` leaves the verdict to a rule that has no bound"
        return self.rule

    def findings(self, evidence: Evidence) -> list[Finding]:
        """Test the claim; one finding that says so where the study has nothing that it is about."""
        if why := self.about.lacks(evidence):
            return [Finding(model="", why=why)]
        found = [self._scoped(evidence, one) for one in self.find(self, evidence)]
        return found or [Finding(model="", why="no model has all of this on the same rows and checkpoints")]

    def _scoped(self, evidence: Evidence, found: Found) -> Finding:
        finding = found if isinstance(found, Finding) else self.bound.decided(*found)
        known = finding.model in evidence.known
        return replace(finding, outside=self.about.outside(evidence, finding.model)) if known else finding

    def beside_published(self, finding: Finding) -> Finding:
        """Add what a source gives for the model; the finding as it is where none does."""
        entry = self.published.get(finding.model)
        if entry is None:
            return finding
        return replace(finding, published=str(entry["value"]), published_source=str(entry["source"]))


Finder = Callable[[Claim, Evidence], Iterator[Found]]
Judge = Callable[[Claim, Evidence, Finding, Curves], Found]


def each(judge: Judge) -> Finder:
    """Make the finder of a claim about the first of its metrics, on each model's first dataset and choice of rows.

    `judge` gets the claim, the evidence, a finding that has no more than what a source gives for the model, and the
    curves.
    """

    def find(claim: Claim, evidence: Evidence) -> Iterator[Found]:
        models = claim.about.chosen(evidence)
        for model, rows, curves in evidence.measured(claim.about.metrics[0], models, claim.rows):
            finding = claim.beside_published(of_text(evidence, model, rows))
            yield judge(claim, evidence, finding, curves)

    return find


def statistic(function: Callable[[Curves], np.ndarray]) -> Judge:
    """Make a judge that estimates a function of curves: (K + 1,), with all draws and without each."""
    return lambda claim, evidence, finding, curves: (finding, estimated(function(curves)))


ALL_MODELS = "all models"


def adjusted_verdict(finding: Finding, p: float) -> Verdict:
    """Return the verdict that scope and adjusted p-value leave; one that rests on no p-value stands."""
    if finding.verdict == "not measurable":
        return finding.verdict
    if finding.outside:
        return "out of scope"
    decided = finding.verdict in ("supported", "contradicted")
    return "undecided" if decided and not isnan(p) and p >= 1 - LEVEL else finding.verdict


def over_all(findings: Iterable[Finding], adjusted: Iterable[Verdict]) -> Finding | None:
    """Decide a claim from its verdicts on several models or places, of one choice of rows; None for a single one.

    Supported where each supports it: all must, so that no correction is due (an intersection-union test, Berger 1982).
    Contradicted where one contradicts it still after Holm's correction. Otherwise undecided. Models that are out of
    scope count where no other is measured.
    """
    pairs = [pair for pair in zip(findings, adjusted, strict=True) if pair[1] != "not measurable"]
    inside = [pair for pair in pairs if pair[1] != "out of scope"]
    counted = inside or pairs
    if len(counted) < 2:
        return None
    found = [finding for finding, _ in counted]
    verdict: Verdict = "undecided"
    if all(finding.verdict == "supported" for finding in found):
        verdict = "supported"
    elif any("contradicted" == (final if inside else finding.verdict) for finding, final in counted):
        verdict = "contradicted"
    models = {finding.model for finding in found}
    return Finding(
        model=ALL_MODELS if len(models) > 1 else found[0].model,
        dataset=found[0].dataset,
        rows=found[0].rows,
        verdict=verdict,
        outside="" if inside else f"{found[0].outside}; and so on" if len(models) > 1 else found[0].outside,
        why=joined(_counted(found), _range(found)),
    )


def _counted(findings: Sequence[Finding]) -> str:
    counts = [
        f"{word} in {number}"
        for word in ("supported", "contradicted", "undecided")
        if (number := sum(finding.verdict == word for finding in findings))
    ]
    models = len({finding.model for finding in findings})
    places = "" if models == len(findings) else f"{len(findings)} places of "
    return f"{', '.join(counts)} of {places}{plural(models, 'model')}"


def _range(findings: Sequence[Finding]) -> str:
    """Say from where to where the numbers of several models go."""
    numbers = [finding.number for finding in findings if not isnan(finding.number)]
    return f"from {min(numbers):.3g} to {max(numbers):.3g}" if len(numbers) > 1 else ""
