"""The published claims as code: each tested on the study's own cells, with an interval and a verdict.

A claim stands in the module of its subject, as an entry of `CLAIMS`: what is claimed and where, the statistic, and the
rule of the verdict, which was written before any number was looked at. A new claim is one entry and one function.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import groupby
from pathlib import Path

import pandas as pd

from lmshape.claims import anisotropy, consequences, dimension, training
from lmshape.claims.claim import ALL_MODELS, VERDICTS, Claim, Evidence, Finding, adjusted_verdict, over_models
from lmshape.dynamics.contrasts import holm
from lmshape.tables.columns import Row, declare, integer, real, shared, text
from lmshape.tables.files import write_table

CLAIMS: tuple[Claim, ...] = (*anisotropy.CLAIMS, *dimension.CLAIMS, *training.CLAIMS, *consequences.CLAIMS)

CLAIM_COLUMNS = declare(
    *shared("study"),
    text("slug", "name of the claim, in tables and addresses"),
    text("sentence", "what is claimed"),
    text("source", "where it is claimed"),
    text("source_kind", "article: it and its authors' own texts about it; later paper; our addition"),
    text("part", "answer: the one row that answers the claim; detail: single models, other rows and places"),
    text(
        "model",
        f"model that it was tested on; {ALL_MODELS}: all that it is about, together; empty when none is",
    ),
    text("dataset", "dataset that it was tested on"),
    text("rows", "choice of rows: all, no_sink or one_per_type"),
    text("place", "layer, band of layers, or what it is compared with; empty when it is about all layers"),
    text("statistic", "what was computed"),
    real("number", "its value"),
    real("ci_low", "lower end of its 95 % interval"),
    real("ci_high", "upper end of its 95 % interval"),
    real("threshold", "what the interval is compared with; NaN where the rule has none"),
    integer("draws", "independent draws, or runs, behind the interval"),
    real("p", "two-sided p-value of the statistic being equal to the threshold; NaN where it is not tested"),
    real("p_adjusted", "p after Holm's correction for all tests of the claim with these rows"),
    text(
        "rule_says",
        "what the rule says of this row alone, whatever its scope and however many tests there are",
    ),
    text("verdict", "; ".join(f"{name}: {meaning}" for name, meaning in VERDICTS.items())),
    text("rule", "when the claim counts as supported and as contradicted, stated before looking"),
    text("published", "what a public source gives for the model; empty when nothing"),
    text("published_source", "that source"),
    text("why", "the reason of a missing number, and what else there is to say"),
)


def decide(evidence: Evidence, claims: Sequence[Claim] = CLAIMS) -> pd.DataFrame:
    """Test all claims.

    Returns
    -------
    The columns of CLAIM_COLUMNS but `study`, in the order of `claims`: a row for each model, dataset and choice of rows
    that a claim is about, and behind them one over all models where there are two or more.
    """
    rows = [row for claim in claims for row in _rows(claim, claim.findings(evidence))]
    return pd.DataFrame(rows).reindex(columns=[name for name in CLAIM_COLUMNS.names if name != "study"])


def _rows(claim: Claim, findings: Iterable[Finding]) -> list[Row]:
    rows: list[Row] = []
    findings = sorted(findings, key=lambda finding: finding.rows)  # stable: models keep their order
    for _, group in groupby(findings, key=lambda finding: finding.rows):
        of_rows = list(group)
        p = holm([finding.p for finding in of_rows])
        adjusted = [adjusted_verdict(finding, one) for finding, one in zip(of_rows, p, strict=True)]
        single = [_row(claim, *parts) for parts in zip(of_rows, p, adjusted, strict=True)]
        together = over_models(of_rows, adjusted)
        answer = _weakest(single)
        if together is not None:
            answer = _row(claim, replace(together, place=""), float("nan"), together.verdict)
            single.append(answer)
        if not rows:
            answer["part"] = "answer"
        rows += single
    return rows


def _weakest(rows: list[Row]) -> Row:
    """Of the places of one model the row with the worst verdict: a claim holds where it holds everywhere."""
    order = ("contradicted", "undecided", "supported", "out of scope", "not measurable")
    return min(rows, key=lambda row: order.index(row["verdict"]))


def _row(claim: Claim, finding: Finding, p_adjusted: float, verdict: str) -> Row:
    names = ("slug", "sentence", "source", "source_kind", "statistic", "rule")
    said = {name: str(getattr(claim, name)) for name in names}
    found = asdict(finding) | {"rule_says": finding.verdict, "verdict": verdict}
    return {"part": "detail", **said, **found, "p_adjusted": p_adjusted}


def decide_study(metric_files: Sequence[Path], tables_dir: Path, *, orders: Mapping[str, str]) -> None:
    """Write the table `claims` of a study as .parquet and .csv.

    Parameters
    ----------
    metric_files : what `gather` wrote, one file a model
    tables_dir : folder of the study's tables, where the new one goes as well
    orders : dataset → text, shuffled or random; in the study's order, its text first
    """
    evidence = Evidence.read(metric_files, tables_dir, orders=orders)
    study = str(evidence.metrics["study"].iloc[0])
    write_table(decide(evidence).assign(study=study), CLAIM_COLUMNS, Path(tables_dir) / "claims")
