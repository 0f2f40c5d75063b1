"""The claims as a reader meets them: a sentence, the verdict in a few words, and the numbers behind it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from lmshape.claims.claim import VERDICTS
from lmshape.claims.multiplicity import ALL_MODELS
from lmshape.pages.overview import Cell, Table, interval, table

MOST_NUMBERS = 3  # beside a verdict; the table below has all
ROWS = {"all": "all rows", "no_sink": "without sinks", "one_per_type": "one row a token id", "": ""}


@dataclass(frozen=True, slots=True)
class Answer:
    """The verdict with one choice of rows, and on how many models it rests."""

    rows: str
    verdict: str
    why: str


@dataclass(frozen=True, slots=True)
class ClaimSummary:
    """One claim of the page."""

    name: str
    number: str
    statement: str
    source: str
    statistic: str
    rule: str
    answers: list[Answer]
    numbers: Table

    @property
    def measured(self) -> bool:
        """Whether this study says anything about it."""
        return any(answer.verdict != "not measurable" for answer in self.answers)


def summaries(claims: pd.DataFrame) -> list[ClaimSummary]:
    """Sum up the table `claims`, one entry a claim, in its order."""
    return [_summary(of_claim) for _, of_claim in claims.groupby("claim", sort=False)]


def counts(claims: pd.DataFrame) -> dict[str, int]:
    """Count the claims by their verdict: that of all rows where there is one, else of the first choice of rows."""
    first = [summary.answers[0].verdict for summary in summaries(claims)]
    return {verdict: first.count(verdict) for verdict in VERDICTS}


def _summary(of_claim: pd.DataFrame) -> ClaimSummary:
    first = of_claim.iloc[0]
    said = [str(first[name]) for name in ("claim", "number", "statement", "source", "statistic", "rule")]
    return ClaimSummary(*said, list(_answers(of_claim)), _numbers(of_claim))


def _answers(of_claim: pd.DataFrame) -> Iterator[Answer]:
    for rows, of_rows in of_claim.groupby("rows", sort=False):
        together = of_rows[of_rows["model"] == ALL_MODELS]
        single = of_rows[of_rows["model"] != ALL_MODELS]
        shown = together.iloc[0] if len(together) else _weakest(of_rows)
        told = list(_told(single[single["verdict"] != "not measurable"]))
        lone = [shown["why"]] if len(together) or not told else []
        why = ". ".join(filter(None, [*lone, *_corrected(single), "; ".join(told)]))
        yield Answer(ROWS.get(rows, rows), shown["verdict_adjusted"], why)


def _told(measured: pd.DataFrame) -> Iterator[str]:
    for _, row in measured.head(MOST_NUMBERS).iterrows():
        yield _numbered(row)
    if (more := len(measured) - MOST_NUMBERS) > 0:
        yield f"{more} more below"


def _corrected(single: pd.DataFrame) -> list[str]:
    """Say which verdicts the correction for many tests took back."""
    lost = single[single["verdict"] != single["verdict_adjusted"]]
    if lost.empty:
        return []
    alone = ", ".join(
        f"{verdict} in {count}" for verdict, count in lost["verdict"].value_counts(sort=False).items()
    )
    return [f"after correction for {single['p'].notna().sum()} tests undecided, each alone {alone}"]


def _weakest(of_rows: pd.DataFrame) -> pd.Series:
    """Of the places of a single model, one whose verdict is not the best: a claim holds where it holds everywhere."""
    order = ("contradicted", "undecided", "supported", "not measurable")
    ranks = of_rows["verdict_adjusted"].map(order.index)
    return of_rows.loc[ranks.idxmin()]


def _numbered(row: pd.Series) -> str:
    """Spell a finding: its number, or its words where the rule has no threshold to hold a number against."""
    place = f", {row['place']}" if row["place"] else ""
    told = row["why"] if pd.isna(row["threshold"]) and row["why"] else _value(row).text
    return f"{row['model']}{place}: {told}"


def _numbers(of_claim: pd.DataFrame) -> Table:
    single = of_claim[of_claim["model"] != ALL_MODELS]
    rows = single["rows"].map(lambda name: ROWS.get(name, name))
    shown = single[["model", "dataset"]].assign(rows=rows, place=single["place"])
    shown["statistic"] = [_value(row) for _, row in single.iterrows()]
    shown = shown.assign(threshold=single["threshold"], verdict=single["verdict"])
    shown["after correction"] = single["verdict_adjusted"]
    if (single["published"] != "").any():
        shown["published"] = [
            Cell(text, text, source)
            for text, source in zip(single["published"], single["published_source"], strict=True)
        ]
    return table(shown.assign(why=single["why"]))


def _value(row: pd.Series) -> Cell:
    cell = interval(row, "estimate", "low", "high", "why", apart_from=row["threshold"])
    return Cell(cell.text, cell.key)
