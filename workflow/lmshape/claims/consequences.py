"""Claims about what the geometry is good for: a warning before the loss blows up, dimensions to throw away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from math import isnan, nan

from lmshape.claims.anisotropy import HABR
from lmshape.claims.claim import (
    LEAST_PARAMETERS,
    About,
    Bound,
    Finding,
    amount,
    article,
    missing,
    our_addition,
    over,
    under,
)
from lmshape.claims.evidence import Evidence
from lmshape.dynamics.alarms import RULE
from lmshape.geometry.resample import Estimate
from lmshape.site import middle_layer
from lmshape.tables.columns import Row, joined

RUNS = "unstable runs"
DIMENSIONS = {"id_twonn": "all", "id_twonn_types": "one_per_type"}  # series, and the rows that they are of
OFTEN = {"probe": "every few steps", "checkpoints": "checkpoints"}  # by the source of a series
NOTICEABLE = 1.0  # standard deviations of what quiet stretches do
CHANCE = 0.5
GAIN = "auc_gain"  # over the best series without geometry; the column that has a p-value
SMALL_LOSS, MOST = 0.1, 0.5  # nats per token; share of the directions
NEEDS = f"needs {RULE.fewest_spikes} spikes in {RULE.fewest_runs} runs"
RISES, WARNS, WARNS_BETTER = over(NOTICEABLE, NEEDS), over(CHANCE, NEEDS), over(0, NEEDS)
FEW = under(MOST)
SPIKES = About(table="warnings", makes="runs with a loss log or a probe: `loss_logs`, `probe_every`")
TRUNCATED = About(kind="decoder", table="truncation_ranks", makes="a decoder, and `truncation`")


def before_spikes(column: str, rule: Bound) -> Callable[[Evidence, About], Iterator[Finding]]:
    """Make the finder of a claim about a number of the table `warnings`: of all rows and of one of each token id.

    Of the middle block, named beforehand: of all blocks the best would be right by luck more often than one.
    """

    def find(evidence: Evidence, about: About) -> Iterator[Finding]:
        largest, least = evidence.largest(), LEAST_PARAMETERS["decoder"]
        outside = (
            "" if largest >= least else f"{amount(largest)} parameters; it is about {amount(least)} or more"
        )
        for metric, rows in DIMENSIONS.items():
            for row in evidence.table("warnings", metric=metric).to_dict("records"):
                if row["layer"] == middle_layer(int(row["blocks"])):
                    place = f"block {row['layer']:.0f} of {row['blocks']:.0f}, at {OFTEN[row['source']]}"
                    runs = int(row["runs"])
                    finding = Finding(model=RUNS, rows=rows, place=place, draws=runs, outside=outside)
                    yield _signed(finding, row, column, rule)

    return find


def _signed(finding: Finding, row: Row, column: str, rule: Bound) -> Finding:
    """Decide by an interval where there are spikes enough to count."""
    value, low, high = row[column], row[f"{column}_low"], row[f"{column}_high"]
    finding = replace(finding, number=value, ci_low=low, ci_high=high, threshold=rule.number)
    if isnan(low):
        return missing(finding, row["flag"] or "no interval")
    best = f"best without geometry: {row['best_baseline']}" if column == GAIN else ""
    why = joined(f"{row['spikes']} spikes in {row['runs']} runs", best)
    return replace(finding, why=why, p=row["p"] if column == GAIN else nan, verdict=rule.verdict(low, high))


def _few_are_needed(evidence: Evidence, about: About) -> Iterator[Finding]:
    table = evidence.table("truncation_ranks")
    table = table[(table["tolerance"] == SMALL_LOSS) & table["model"].isin(about.chosen(evidence))]
    for row in table.to_dict("records"):
        middle = row["depth"] > 0 and row["layer"] == middle_layer(round(row["layer"] / row["depth"]))
        finding = Finding(
            model=row["model"],
            dataset=row["dataset"],
            rows=row["rows"],
            place=f"layer {row['layer']}",
            detail=not middle,
            why=row["flag"],
        )
        share, low, high = (row[name] / row["d"] for name in ("rank", "rank_low", "rank_high"))
        high = 1.0 if isnan(high) else high  # where no rank is significantly within, all of them are
        decided = FEW.decided(finding, Estimate(share, low, high, int(row["draws"])))
        yield replace(decided, p=nan)  # the ranks that were tried have no Student's t


CLAIMS = (
    article(
        slug="rises_before_a_spike",
        sentence="Shortly before the loss blows up the intrinsic dimension rises noticeably",
        source=HABR,
        about=SPIKES,
        statistic="move of the TwoNN dimension of the middle block just before onset, in standard deviations of quiet "
        "steps: `warnings`",
        rule=RISES,
        find=before_spikes("move_before", RISES),
    ),
    article(
        slug="warns",
        sentence="A rise of the intrinsic dimension may serve as a warning before the loss blows up",
        source=HABR,
        about=SPIKES,
        statistic="area under the ROC curve of an alarm on the TwoNN dimension of the middle block: `warnings`",
        rule=WARNS,
        find=before_spikes("auc", WARNS),
    ),
    our_addition(
        slug="warns_better",
        sentence="The intrinsic dimension warns of a spike better than any series that needs no geometry",
        source="not in the article: what a warning is worth",
        about=SPIKES,
        statistic="that area less the one of the best series without geometry: `warnings`",
        rule=WARNS_BETTER,
        find=before_spikes(GAIN, WARNS_BETTER),
    ),
    our_addition(
        slug="few_directions",
        sentence="Most directions of the residual stream are unused and can be thrown away",
        source="not in the article: a question that its low dimension raises",
        about=TRUNCATED,
        statistic=f"least share of leading directions within {SMALL_LOSS} nat of the whole loss (`truncation_ranks`); "
        "middle block, other layers as detail",
        rule=FEW,
        find=_few_are_needed,
    ),
)
