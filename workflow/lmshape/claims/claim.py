"""What a published claim is as code: a statement, the statistic that decides it, and a rule stated before looking."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from math import inf, isnan, nan
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import yaml
from scipy.special import stdtr, stdtrit

from lmshape.dynamics.noise import leave_one_out
from lmshape.geometry.resample import Estimate, jackknife
from lmshape.tables.columns import joined
from lmshape.tables.files import read_table
from lmshape.tables.rows import final_checkpoints, in_order, trajectories

Verdict = Literal["supported", "contradicted", "undecided", "out of scope", "not measurable"]
SourceKind = Literal["article", "later paper", "our addition"]
VERDICTS: dict[Verdict, str] = {
    "supported": "the whole interval lies on the side that the claim names",
    "contradicted": "the whole interval lies on the other side",
    "undecided": "the interval holds the threshold, there is none, or it does not survive correction for many tests",
    "out of scope": "the claim is about larger or longer trained models; the column `rule_says` has what it reads here",
    "not measurable": "the study has no cells that could tell; the reason stands beside it",
}
ONE_DRAW = "no interval: one draw"
LONG_RUN = 10_000  # steps; what happens at step 1000 of the published runs says nothing about shorter ones
LEVEL = 0.05  # of a test, two-sided: that of the 95 % intervals


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a claim comes to for one model, dataset and choice of rows.

    Attributes
    ----------
    place : layer, band of layers or series that it is about; empty where it is about all
    threshold : what the interval is compared with; NaN where the rule has no threshold
    p : two-sided, of the statistic being the threshold; NaN where it is not tested
    published : the number that the source gives for this model, as text; empty where it gives none
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
        return "; ".join(filter(None, [stated, self.more]))

    def verdict(self, low: float, high: float) -> Verdict:
        """Compare an interval with the number, which it must not touch."""
        near, far = sorted((self.sign * low, self.sign * high))
        if near > self.sign * self.number:
            return "supported"
        return "contradicted" if far < self.sign * self.number else "undecided"

    def decided(self, finding: Finding, estimate: Estimate) -> Finding:
        """Decide a claim by the interval of its statistic."""
        told = replace(told_by(finding, estimate), threshold=self.number)
        if isnan(estimate.value):
            return missing(told, finding.why or "the statistic has no value here")
        if isnan(estimate.low):
            return undecided(told, ONE_DRAW)
        verdict = self.verdict(estimate.low, estimate.high)
        return replace(told, verdict=verdict, p=two_sided(estimate, self.number))


def over(number: float, more: str = "") -> Bound:
    """Claim that the statistic exceeds a number."""
    return Bound(number, 1, more)


def under(number: float, more: str = "") -> Bound:
    """Claim that the statistic stays under a number."""
    return Bound(number, -1, more)


Found = Finding | tuple[Finding, Estimate]  # decided, or what the claim's `Bound` decides


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A claim of the literature.

    Attributes
    ----------
    slug : name of the claim, in tables and addresses
    sentence : what is claimed
    source, source_kind : where it is claimed; the article and its authors, a later paper, or an addition of ours
    statistic : what is computed, with its unit
    rule : when it is supported and when contradicted: a `Bound`, or the sentence of what `find` decides itself
    find : yields what is found for each model, dataset and choice of rows that the claim is about
    """

    slug: str
    sentence: str
    source: str
    source_kind: SourceKind
    statistic: str
    rule: Bound | str
    find: Callable[[Evidence], Iterator[Found]]

    def findings(self, evidence: Evidence) -> list[Finding]:
        """Test the claim; one finding that says so where the study has nothing that it is about."""
        found = [self._decided(one) for one in self.find(evidence)]
        return found or [Finding(model="", why="no model of this study is of the kind it is about")]

    def _decided(self, found: Found) -> Finding:
        if isinstance(found, Finding):
            return found
        assert isinstance(self.rule, Bound), f"`{self.slug}` leaves the verdict to a rule that has no bound"
        return self.rule.decided(*found)


def told_by(finding: Finding, estimate: Estimate) -> Finding:
    """Show an estimate in a finding."""
    return replace(
        finding, number=estimate.value, ci_low=estimate.low, ci_high=estimate.high, draws=estimate.draws
    )


def missing(finding: Finding, why: str) -> Finding:
    """Say why a claim cannot be decided."""
    return replace(finding, verdict="not measurable", why=why)


def undecided(finding: Finding, *why: str) -> Finding:
    """Leave a claim open, and say why beside what there is to say already."""
    return replace(finding, verdict="undecided", why=joined(finding.why, *why))


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


METRICS = (
    "anisotropy",
    "anisotropy_null",
    "id_twonn",
    "id_twonn_surrogate",
    "id_mle",
    "id_gride_16",
    "effective_rank_bulk",
    "mean_cosine",
    "mean_cosine_centered",
    "linearity_held_out",
)
TABLES = ("profiles", "phases", "checkpoints", "warnings", "truncation_ranks")
_COLUMNS = (
    "study model family kind parameters checkpoint step dataset site layer depth rows metric value d flag "
    "verdict interval replicates"
).split()


@dataclass(frozen=True, slots=True)
class Curves:
    """A metric over the blocks and the steps of a model, as it is and with each draw left out.

    Attributes
    ----------
    values : (K + 1, steps, layers) float64: with all K draws, then without each; NaN where there is no number
    steps : (steps,) training steps, rising; −1 for a single checkpoint of unknown step
    layers, depth : (layers,) of the blocks, rising
    width : dimension of the residual stream
    """

    values: np.ndarray
    steps: np.ndarray
    layers: np.ndarray
    depth: np.ndarray
    width: int

    @property
    def last(self) -> np.ndarray:
        """(K + 1, layers): the last step."""
        return self.values[:, -1]

    @property
    def draws(self) -> int:
        """Draws behind each number."""
        return max(len(self.values) - 1, 1)


def estimated(statistic: np.ndarray) -> Estimate:
    """Estimate a statistic from its K + 1 values: with all draws, then without each (delete-one-draw jackknife)."""
    statistic = np.asarray(statistic, dtype=np.float64)
    if len(statistic) < 3 or not np.isfinite(statistic).all():
        return Estimate(float(statistic[0]), np.nan, np.nan, max(len(statistic) - 1, 1))
    return jackknife(statistic[0], statistic[1:])


@dataclass(frozen=True, slots=True)
class Evidence:
    """The tables of a study that claims are decided from.

    Attributes
    ----------
    metrics : rows of the models' own tables, with `interval` and `replicates`
    tables : name → table of the study
    orders : dataset → text, shuffled or random; in the study's order, its text first
    """

    metrics: pd.DataFrame
    tables: Mapping[str, pd.DataFrame]
    orders: Mapping[str, str]
    _curves: dict[tuple[str, ...], Curves | None] = field(default_factory=dict)

    @classmethod
    def read(cls, metric_files: Sequence[Path], tables_dir: Path, *, orders: Mapping[str, str]) -> Evidence:
        """Read the models' own tables, of the metrics that claims need, and the study's `TABLES`."""
        parts = [read_table(Path(path), METRICS, columns=_COLUMNS) for path in metric_files]
        tables = {name: read_table(Path(tables_dir) / f"{name}.parquet") for name in TABLES}
        return cls(pd.concat(parts, ignore_index=True), tables, orders)

    def models(self, kind: str | None = None) -> list[str]:
        """Models in the study's order, of one kind or all."""
        chosen = self.metrics if kind is None else self.metrics[self.metrics["kind"] == kind]
        return in_order(chosen["model"])

    def family(self, model: str) -> str:
        """Architecture of a model."""
        return str(self._of(model)["family"].iloc[0])

    def parameters(self, model: str) -> float:
        """Parameters of a model."""
        return float(self._of(model)["parameters"].iloc[0])

    def last_step(self, model: str) -> float:
        """Last trusted step of a model; 0 for the name of a recipe."""
        steps = trajectories(self._of(model))["step"]
        return float(steps.max()) if len(steps) else 0.0

    def datasets(self, model: str) -> list[str]:
        """Datasets of a model in the study's order: its text first."""
        own = set(self._of(model)["dataset"])
        return [name for name in self.orders if name in own]

    def rows(self, model: str, metric: str) -> list[str]:
        """Choices of rows that a metric was measured with."""
        of_model = self._of(model)
        return in_order(of_model.loc[of_model["metric"] == metric, "rows"])

    def curves(
        self, model: str, metric: str, *, rows: str = "all", dataset: str | None = None
    ) -> Curves | None:
        """Return a metric over blocks and trusted steps; None where it was not measured."""
        key = (model, metric, rows, dataset or self.datasets(model)[0])
        if key not in self._curves:
            self._curves[key] = self._make(*key)
        return self._curves[key]

    def table(self, name: str, **values: str | int) -> pd.DataFrame:
        """Rows of one of the study's tables whose columns have these values; empty where there is no such table."""
        frame = self.tables.get(name, pd.DataFrame(columns=list(values)))
        for column, value in values.items():
            frame = frame[frame[column] == value]
        return frame

    def _of(self, model: str) -> pd.DataFrame:
        return self.metrics[self.metrics["model"] == model]

    def _make(self, model: str, metric: str, rows: str, dataset: str) -> Curves | None:
        frame = self._of(model)
        frame = frame[(frame["metric"] == metric) & (frame["rows"] == rows) & (frame["dataset"] == dataset)]
        frame = frame[frame["site"] == "block"]
        followed = trajectories(frame)
        frame = followed if len(followed) else final_checkpoints(frame)
        if frame.empty:
            return None
        steps, layers = np.unique(frame["step"]), np.unique(frame["layer"])
        left_out = [leave_one_out(*pair) for pair in zip(frame["interval"], frame["replicates"], strict=True)]
        values = np.full((1 + max(map(len, left_out)), len(steps), len(layers)), np.nan)
        place = np.searchsorted(steps, frame["step"]), np.searchsorted(layers, frame["layer"])
        values[0][place] = frame["value"]
        for step, layer, numbers in zip(*place, left_out, strict=True):
            values[1 : 1 + len(numbers), step, layer] = numbers
        depth = frame.drop_duplicates("layer").sort_values("layer")["depth"].to_numpy()
        return Curves(values, steps, layers, depth, int(frame["d"].max()))


def measured(
    evidence: Evidence, metric: str, *, kind: str | None = None, rows: Sequence[str] | None = None
) -> Iterator[tuple[Finding, Curves]]:
    """Yield a metric of each model on its first dataset, for each choice of rows or those given, where there is one."""
    for model in evidence.models(kind):
        for choice in evidence.rows(model, metric) if rows is None else rows:
            curves = evidence.curves(model, metric, rows=choice)
            if curves is not None:
                yield Finding(model=model, dataset=evidence.datasets(model)[0], rows=choice), curves


Judge = Callable[[Evidence, Finding, Curves], Found | None]


def each(
    metric: str, judge: Judge, *, kind: str | None = None, rows: Sequence[str] | None = None
) -> Callable[[Evidence], Iterator[Found]]:
    """Make the finder of a claim about one metric of each model and choice of rows.

    `judge` gets the evidence, an empty finding and the curves; it returns None where the claim is not about the model.
    """

    def find(evidence: Evidence) -> Iterator[Found]:
        for finding, curves in measured(evidence, metric, kind=kind, rows=rows):
            found = judge(evidence, finding, curves)
            if found is not None:
                yield found

    return find


def statistic(function: Callable[[Curves], np.ndarray]) -> Judge:
    """Make a judge that estimates a function of curves: (K + 1,), with all draws and without each."""
    return lambda evidence, finding, curves: (finding, estimated(function(curves)))


def published(finding: Finding, quantity: str) -> Finding:
    """Add what a source gives for the model's `quantity`; the finding as it is where none does."""
    entry = _numbers()[quantity].get(finding.model)
    if entry is None:
        return finding
    return replace(finding, published=str(entry["value"]), published_source=str(entry["source"]))


@cache
def _numbers() -> dict[str, dict[str, dict[str, str | int]]]:
    return yaml.safe_load(Path(__file__).with_name("published.yaml").read_text(encoding="utf-8"))


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
