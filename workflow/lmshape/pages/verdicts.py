"""The claims as the page shows them: sentence, verdict, number and picture; what the study cannot speak about apart."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import pandas as pd

from lmshape.claims.claim import ALL_MODELS, VERDICTS
from lmshape.figures.selection import VARIANT_NAMES
from lmshape.pages.numbers import Cell, Table, interval, table

SOURCES = {
    "article": "The article and its authors",
    "later paper": "Later papers",
    "our addition": "Our additions",
}
OUTSIDE = ("out of scope", "not measurable")
# The figure beside a claim: the first of these that the study draws.
PICTURES = {
    "dome": ("anisotropy_by_layer",),
    "isotropic_ends": ("anisotropy_by_layer",),
    "nearly_a_line": ("anisotropy_by_layer",),
    "plateau_onset": ("anisotropy_by_layer",),
    "sinks": ("sinks", "anisotropy_by_layer"),
    "uniform_encoders": ("anisotropy_by_layer",),
    "high_raw_cosines": ("cone",),
    "isotropic_encoders": ("cone", "anisotropy_by_layer"),
    "decoders_over_encoders": ("anisotropy_by_layer",),
    "one_profile": ("anisotropy_by_layer",),
    "converge": ("anisotropy_over_training",),
    "grows": ("anisotropy_over_training",),
    "grows_after_2000": ("anisotropy_over_training",),
    "none_before_1000": ("anisotropy_over_training",),
    "no_plateau_in_olmo_2": ("anisotropy_by_layer",),
    "rises_before_a_spike": ("warnings", "losses"),
    "warns": ("warnings", "losses"),
    "warns_better": ("warnings", "losses"),
    "low_dimension": ("dimension_by_layer",),
    "under_its_gaussian": ("dimension_by_layer",),
    "rise_then_fall": ("dimension_over_training",),
    "one_course": ("dimension_over_training",),
    "transition_near_1000": ("phases", "dimension_over_training"),
    "random_tokens": ("controls",),
    "random_trajectory": ("controls", "dimension_over_training"),
    "random_dimension": ("controls",),
    "linear_blocks": ("linearity_by_layer",),
    "isotropic_output": ("anisotropy_by_layer",),
    "early_collapse": ("phases",),
    "three_phases": ("phases",),
    "peak_of_rankme": ("phases",),
    "few_directions": ("truncation",),
}


@dataclass(frozen=True, slots=True)
class ClaimRow:
    """A claim of the page.

    Attributes
    ----------
    slug, sentence, source, kind, statistic, rule : as the table `claims` has them
    verdict, rule_says, why : of the row that answers the claim
    number : that row's number with its interval and model; of several models the range of theirs
    figure : name of the figure beside it; empty where the study draws none
    details : the numbers of all models, rows and places
    """

    slug: str
    sentence: str
    source: str
    kind: str
    statistic: str
    rule: str
    verdict: str
    rule_says: str
    why: str
    number: str
    figure: str
    details: Table

    @property
    def decided(self) -> bool:
        """Whether the study can speak about it."""
        return self.verdict not in OUTSIDE


def claim_rows(claims: pd.DataFrame, *, figures: Collection[str]) -> list[ClaimRow]:
    """Sum up the table `claims`, one entry per claim, in its order.

    Parameters
    ----------
    claims : table `claims` of the study
    figures : names of the figures that the page holds
    """
    return [_claim_row(of_claim, figures) for _, of_claim in claims.groupby("slug", sort=False)]


def counted(claims: Iterable[ClaimRow]) -> list[tuple[str, dict[str, int]]]:
    """Count the verdicts of the claims of each kind of source, in the order of `SOURCES`."""
    claims = list(claims)
    of_kinds = {kind: [claim.verdict for claim in claims if claim.kind == kind] for kind in SOURCES}
    return [
        (SOURCES[kind], {verdict: said.count(verdict) for verdict in VERDICTS if verdict in said})
        for kind, said in of_kinds.items()
        if said
    ]


def _claim_row(of_claim: pd.DataFrame, figures: Collection[str]) -> ClaimRow:
    answer = of_claim[of_claim["part"] == "answer"].iloc[0]
    single = of_claim[of_claim["model"] != ALL_MODELS]
    drawn = [name for name in PICTURES.get(answer["slug"], ()) if name in figures]
    return ClaimRow(
        **{
            name: str(answer[name])
            for name in ("slug", "sentence", "source", "statistic", "rule", "verdict", "rule_says", "why")
        },
        kind=str(answer["source_kind"]),
        number=_number(answer, single[single["rows"] == answer["rows"]]),
        figure=drawn[0] if drawn else "",
        details=_details(single),
    )


def _number(answer: pd.Series, single: pd.DataFrame) -> str:
    if pd.notna(answer["number"]):
        place = f", {answer['place']}" if answer["place"] else ""
        return f"{answer['model']}{place}: {_value(answer).text}"
    numbers = single["number"].dropna()
    if numbers.empty:
        return ""
    low, high = (_value(single.loc[end]).text.split(" [")[0] for end in (numbers.idxmin(), numbers.idxmax()))
    models = single["model"].nunique()
    return (
        f"{models} models: {low} to {high}" if models > 1 else f"{single['model'].iloc[0]}: {low} to {high}"
    )


def _details(single: pd.DataFrame) -> Table:
    """Lay out the numbers of a claim; columns that say nothing here are left out."""
    shown = single[["model", "dataset"]].assign(
        rows=single["rows"].map(lambda name: VARIANT_NAMES.get(name, name))
    )
    shown["place"] = single["place"]
    shown["number"] = [_value(row) for _, row in single.iterrows()]
    shown["compared with"] = single["threshold"]
    shown["the rule says"] = single["rule_says"]
    shown["published"] = [
        Cell(text, text, source)
        for text, source in zip(single["published"], single["published_source"], strict=True)
    ]
    shown["why"] = single["why"]
    empty = [name for name in shown if all(cell.text in ("", "–") for [cell] in table(shown[[name]]).rows)]
    return table(shown.drop(columns=empty))


def _value(row: pd.Series) -> Cell:
    cell = interval(row, "number", "ci_low", "ci_high", "why", apart_from=row["threshold"])
    return Cell(cell.text, cell.key)
