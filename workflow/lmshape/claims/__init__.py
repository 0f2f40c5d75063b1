"""The published claims as code: each tested on the study's own cells, with an interval and a verdict.

`claims.yaml` says what is claimed and where, of which models, and the rule of the verdict, which was written before any
number was looked at. The module of its subject has the function that computes the statistic.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from math import nan
from operator import attrgetter
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import entropy

from lmshape.claims import anisotropy, dimension, training
from lmshape.claims.claim import ALL_MODELS, VERDICTS, Claim, Finding, adjusted_verdict, over_all
from lmshape.claims.evidence import Evidence
from lmshape.dynamics.contrasts import holm
from lmshape.schema import read_yaml
from lmshape.store.tokens import read_tokens
from lmshape.tables.columns import Row, declare, integer, joined, read_table, real, shared, text, write_table

CLAIMS_FILE = Path(__file__).with_name("claims.yaml")
FINDERS = anisotropy.FINDERS | dimension.FINDERS | training.FINDERS
CLAIMS: tuple[Claim, ...] = tuple(
    Claim.of(slug, source_kind, entry, FINDERS[slug])
    for source_kind, entries in read_yaml(CLAIMS_FILE).items()
    for slug, entry in entries.items()
)
# What claims are decided from: metrics, columns of the models' own tables, and tables of the study.
METRICS = ("loss", *sorted({metric for claim in CLAIMS for metric in claim.about.metrics}))
COLUMNS = (
    "study model family kind parameters checkpoint step tokens_seen dataset site layer depth rows metric value d flag "
    "verdict interval replicates"
).split()
TABLES = ("phases", "checkpoints", "warnings", "truncation_ranks")

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
    rows = [row for claim in claims for row in rows_of(claim, evidence)]
    return pd.DataFrame(rows).reindex(columns=[name for name in CLAIM_COLUMNS.names if name != "study"])


def rows_of(claim: Claim, evidence: Evidence) -> list[Row]:
    """Test one claim: its rows of the table, one of which has the part `answer`."""
    choice = attrgetter("rows")
    findings = sorted(claim.findings(evidence), key=choice)  # stable: models keep their order
    groups = [_of_choice(claim, list(group)) for _, group in groupby(findings, key=choice)]
    rows = [row for _, own in groups for row in own]
    answer = next((answer for answer, _ in groups if answer), None)
    if answer is None:
        answer = _row(claim, Finding(model="", why="measured of other models and places alone"), nan)
        rows = [answer, *rows]
    answer["part"] = "answer"
    return rows


def _of_choice(claim: Claim, findings: Sequence[Finding]) -> tuple[Row | None, list[Row]]:
    """Return the rows of one choice of rows, and which of them answers the claim; None if all are details."""
    counted = [finding for finding in findings if not finding.detail]
    p = holm([nan if finding.outside else finding.p for finding in counted])
    rows = [_row(claim, *pair) for pair in zip(counted, p, strict=True)]
    whole = over_all(counted, [row["verdict"] for row in rows])
    if whole is not None:
        rows.append(_row(claim, whole, nan))
    last = {"out of scope": 1, "not measurable": 2}
    answer = rows[-1] if whole else min(rows, key=lambda row: last.get(row["verdict"], 0), default=None)
    return answer, rows + [_row(claim, finding, nan) for finding in findings if finding.detail]


def _row(claim: Claim, finding: Finding, p_adjusted: float) -> Row:
    names = ("slug", "sentence", "source", "source_kind", "statistic", "rule")
    said = {name: str(getattr(claim, name)) for name in names}
    found = asdict(finding) | {"rule_says": finding.verdict, "verdict": adjusted_verdict(finding, p_adjusted)}
    why = joined(found["why"], finding.outside if found["verdict"] == "out of scope" else "")
    return {"part": "detail", **said, **found, "p_adjusted": p_adjusted, "why": why}


def entropy_of_tokens(tokens_file: Path) -> float:
    """Entropy of the frequencies of a text's tokens in nats: the loss of a model that knows nothing else.

    It is that of the sample, which is less than that of the language, and so the stricter standard.
    """
    tokens = read_tokens(tokens_file)
    _, counts = np.unique(tokens.ids[~tokens.special], return_counts=True)
    return float(entropy(counts))


def decide_study(
    metric_files: Sequence[Path],
    tables_dir: Path,
    *,
    orders: Mapping[str, str],
    token_files: Mapping[str, Path],
    unstable: Collection[str] = (),
) -> None:
    """Write the table `claims` of a study as .parquet and .csv.

    Parameters
    ----------
    metric_files : what `gather` wrote, one file per model
    tables_dir : folder of the study's tables, where the new one goes as well
    orders : dataset → text, shuffled or random; in the study's order, its text first
    token_files : model → file of the tokens of its first dataset
    unstable : models that were trained to fail, and stand for no kind
    """
    files = [read_table(Path(path), METRICS, columns=COLUMNS) for path in metric_files]
    metrics = pd.concat(files, ignore_index=True)
    evidence = Evidence.of(
        metrics,
        tables={name: read_table(Path(tables_dir) / f"{name}.parquet") for name in TABLES},
        orders=orders,
        unstable=unstable,
        entropies={model: entropy_of_tokens(file) for model, file in token_files.items()},
    )
    found = decide(evidence).assign(study=metrics["study"].iloc[0])
    write_table(found, CLAIM_COLUMNS, Path(tables_dir) / "claims")
