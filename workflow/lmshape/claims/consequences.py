"""Claims about what the geometry is good for: a warning before the loss blows up, dimensions to throw away."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import isnan, nan

from lmshape.claims.anisotropy import HABR
from lmshape.claims.claim import Claim, Finding, missing
from lmshape.claims.evidence import Evidence

RUNS = "unstable runs"
DIMENSIONS = {"id_twonn": "all", "id_twonn_types": "one_per_type"}  # series, and the rows that they are of
OFTEN = {"probe": "every few steps", "checkpoints": "checkpoints"}  # by the source of a series
FEWEST_SPIKES = 3
SMALL_LOSS = 0.1  # nats a token


def dimension_rises_before(evidence: Evidence) -> Iterator[Finding]:
    """Signed move of the dimension just before a spike's onset, in standard deviations of quiet steps, by layer."""
    for finding, row in _dimensions(evidence):
        yield _signed(replace(finding, p=nan), row, "move_before", 0.0)


def better_than_baselines(evidence: Evidence) -> Iterator[Finding]:
    """Area under the ROC curve of an alarm on the dimension less that of the best baseline, by layer."""
    for finding, row in _dimensions(evidence):
        yield _signed(finding, row, "auc_gain", 0.0)


def _dimensions(evidence: Evidence) -> Iterator[tuple[Finding, dict]]:
    """Yield the rows of `warnings` about the dimension, of all rows and of one row of each token id."""
    for metric, rows in DIMENSIONS.items():
        for row in evidence.table("warnings", metric=metric).to_dict("records"):
            place = f"block {row['layer']:.0f} of {row['blocks']:.0f}, at {OFTEN[row['source']]}"
            yield Finding(model=RUNS, rows=rows, place=place, draws=int(row["runs"]), p=row["p"]), row


def _signed(finding: Finding, row: dict, column: str, threshold: float) -> Finding:
    """Compare an interval with a threshold where there are spikes enough to count."""
    if row["spikes"] < FEWEST_SPIKES:
        return missing(finding, f"{row['spikes']} spikes in {row['runs']} runs; needs {FEWEST_SPIKES}")
    value, low, high = row[column], row[f"{column}_low"], row[f"{column}_high"]
    finding = replace(finding, estimate=value, low=low, high=high, threshold=threshold)
    if isnan(low):
        return missing(finding, row["flag"] or "no interval")
    finding = replace(
        finding, why=f"{row['spikes']} spikes in {row['runs']} runs; best without: {row['best_baseline']}"
    )
    if low > threshold:
        return replace(finding, verdict="supported")
    return replace(finding, verdict="contradicted" if high < threshold else "undecided")


def as_many_as_it_says(evidence: Evidence) -> Iterator[Finding]:
    """Least rank of the residual stream within 0.1 nat of the whole loss over the TwoNN dimension, by layer."""
    table = evidence.table("truncation_ranks")
    if table.empty:
        return
    for row in table[table["tolerance"] == SMALL_LOSS].to_dict("records"):
        finding = Finding(
            model=row["model"],
            dataset=row["dataset"],
            rows=row["rows"],
            place=f"layer {row['layer']}",
            estimate=row["rank"],
            low=row["rank_low"],
            high=row["rank_high"],
            draws=int(row["draws"]),
            threshold=row["id_twonn"],
        )
        if isnan(row["rank"]) or isnan(row["id_twonn"]):
            yield missing(finding, row["flag"] or "needs `id_twonn` of the same rows")
        elif row["rank_high"] <= row["id_twonn"]:
            yield replace(finding, verdict="supported")
        else:
            apart = row["rank_low"] > row["id_twonn"]
            yield replace(finding, verdict="contradicted" if apart else "undecided")


CLAIMS = (
    Claim(
        name="rises_before_a_spike",
        number="P7",
        statement="Shortly before the loss blows up the intrinsic dimension rises noticeably",
        source=HABR,
        statistic="move of the TwoNN dimension just before onset, in standard deviations of quiet steps: `warnings`",
        rule=f"supported if its interval is over 0; contradicted if under; needs {FEWEST_SPIKES} spikes",
        find=dimension_rises_before,
    ),
    Claim(
        name="warns",
        number="P7",
        statement="It warns of a spike better than what needs no geometry",
        source=f"{HABR}: a possible early warning",
        statistic="area under the ROC curve of an alarm on it less that of the best baseline: `warnings`",
        rule=f"supported if its interval is over 0; contradicted if under; needs {FEWEST_SPIKES} spikes",
        find=better_than_baselines,
    ),
    Claim(
        name="as_many_as_it_says",
        number="P5",
        statement="The residual stream needs no more directions than its intrinsic dimension says",
        source="a reading of P5, not a sentence of the article",
        statistic=f"least rank within {SMALL_LOSS} nat of the whole loss (`truncation_ranks`), beside TwoNN",
        rule="supported if its interval is up to the dimension; contradicted if over",
        find=as_many_as_it_says,
    ),
)
