"""Claims about what the geometry is good for: a warning before the loss blows up, dimensions to throw away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from math import isnan

from lmshape.claims.anisotropy import HABR
from lmshape.claims.claim import Bound, Claim, Evidence, Finding, missing, over, within
from lmshape.dynamics.alarms import RULE
from lmshape.site import middle_layer
from lmshape.tables.columns import Row, joined

RUNS = "unstable runs"
DIMENSIONS = {"id_twonn": "all", "id_twonn_types": "one_per_type"}  # series, and the rows that they are of
OFTEN = {"probe": "every few steps", "checkpoints": "checkpoints"}  # by the source of a series
NOTICEABLE = 1.0  # standard deviations of what quiet stretches do
CHANCE = 0.5
SMALL_LOSS = 0.1  # nats a token
NEEDS = f"needs {RULE.fewest_spikes} spikes in {RULE.fewest_runs} runs"
RISES, WARNS, WARNS_BETTER = over(NOTICEABLE, NEEDS), over(CHANCE, NEEDS), over(0, NEEDS)


def before_spikes(column: str, rule: Bound) -> Callable[[Evidence], Iterator[Finding]]:
    """Make the finder of a claim about a number of the table `warnings` for the dimension."""
    return lambda evidence: (_signed(finding, row, column, rule) for finding, row in _dimensions(evidence))


def better_than_baselines(evidence: Evidence) -> Iterator[Finding]:
    """Area under the ROC curve of an alarm on the dimension less that of the best baseline."""
    for finding, row in _dimensions(evidence):
        best = f"best without geometry: {row['best_baseline']}"
        yield _signed(replace(finding, p=row["p"]), row, "auc_gain", WARNS_BETTER, best)


def _dimensions(evidence: Evidence) -> Iterator[tuple[Finding, Row]]:
    """Yield the rows of `warnings` about the dimension of the middle block, of all rows and of one of each token id.

    One block, named beforehand: of all blocks the best would be right by luck more often than one.
    """
    for metric, rows in DIMENSIONS.items():
        for row in evidence.table("warnings", metric=metric).to_dict("records"):
            if row["layer"] == middle_layer(int(row["blocks"])):
                place = f"block {row['layer']:.0f} of {row['blocks']:.0f}, at {OFTEN[row['source']]}"
                yield Finding(model=RUNS, rows=rows, place=place, draws=int(row["runs"])), row


def _signed(finding: Finding, row: Row, column: str, rule: Bound, more: str = "") -> Finding:
    """Decide by an interval where there are spikes enough to count."""
    value, low, high = row[column], row[f"{column}_low"], row[f"{column}_high"]
    finding = replace(finding, number=value, ci_low=low, ci_high=high, threshold=rule.number)
    if isnan(low):
        return missing(finding, row["flag"] or "no interval")
    counted = f"{row['spikes']} spikes in {row['runs']} runs"
    return replace(finding, why=joined(counted, more), verdict=rule.verdict(low, high))


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
            number=row["rank"],
            ci_low=row["rank_low"],
            ci_high=row["rank_high"],
            draws=int(row["draws"]),
            threshold=row["id_twonn"],
        )
        if isnan(row["rank"]) or isnan(row["id_twonn"]):
            yield missing(finding, row["flag"] or "needs `id_twonn` of the same rows")
        else:
            verdict = within(row["rank_low"], row["rank_high"], most=row["id_twonn"])
            yield replace(finding, verdict=verdict)


CLAIMS = (
    Claim(
        slug="rises_before_a_spike",
        sentence="Shortly before the loss blows up the intrinsic dimension rises noticeably",
        source=HABR,
        source_kind="article",
        statistic="move of the TwoNN dimension of the middle block just before onset, in standard deviations of quiet "
        "steps: `warnings`",
        rule=RISES,
        find=before_spikes("move_before", RISES),
    ),
    Claim(
        slug="warns",
        sentence="A rise of the intrinsic dimension may serve as a warning before the loss blows up",
        source=HABR,
        source_kind="article",
        statistic="area under the ROC curve of an alarm on the TwoNN dimension of the middle block: `warnings`",
        rule=WARNS,
        find=before_spikes("auc", WARNS),
    ),
    Claim(
        slug="warns_better",
        sentence="The intrinsic dimension warns of a spike better than any series that needs no geometry",
        source="not in the article: what a warning is worth",
        source_kind="our addition",
        statistic="that area less the one of the best series without geometry: `warnings`",
        rule=WARNS_BETTER,
        find=better_than_baselines,
    ),
    Claim(
        slug="as_many_as_it_says",
        sentence="The residual stream needs no more directions than its intrinsic dimension says",
        source="not in the article: a reading of low_dimension",
        source_kind="our addition",
        statistic=f"least rank within {SMALL_LOSS} nat of the whole loss (`truncation_ranks`), beside TwoNN",
        rule="supported if its interval is up to the dimension; contradicted if over",
        find=as_many_as_it_says,
    ),
)
