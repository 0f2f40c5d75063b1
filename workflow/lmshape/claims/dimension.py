"""Claims about the dimension: how low it is, its trajectory, random tokens, and directions to spare."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from math import isnan, nan

import numpy as np

from lmshape.claims.claim import (
    ALL_MODELS,
    Claim,
    Finding,
    Found,
    Verdict,
    each,
    missing,
    of_text,
    under,
    within,
)
from lmshape.claims.evidence import Curves, Evidence, estimated
from lmshape.claims.trajectories import alike, few, judged, significant, trajectory
from lmshape.dynamics.noise import size
from lmshape.dynamics.phases import FEWEST, MOST_PIECES
from lmshape.dynamics.trajectories import Trajectory
from lmshape.geometry.resample import Estimate
from lmshape.site import middle_layer, named_layers

LOW_SHARE, LOW = 0.1, 50.0  # of the width, and at all
RANDOM, SHUFFLED = "random", "shuffled"  # what the tokens of a dataset are, beside text
DIMENSION = "id_twonn"
SMALL_LOSS = 0.1  # nats per token


def low(claim: Claim, evidence: Evidence, finding: Finding, curves: Curves) -> Finding:
    """Largest dimension of a block."""
    return under(min(LOW_SHARE * curves.width, LOW)).decided(finding, estimated(curves.last.max(axis=1)))


def beyond_the_spectrum(claim: Claim, evidence: Evidence, finding: Finding, curves: Curves) -> Found:
    """Mean ratio to the dimension of a Gaussian of the same covariance."""
    surrogate = evidence.curves(finding.model, "id_twonn_surrogate", rows=finding.rows)
    if surrogate is None or surrogate.values.shape != curves.values.shape:
        return missing(finding, "needs `id_twonn_surrogate` of the same rows")
    return finding, estimated((curves.last / surrogate.last).mean(axis=1))


def trajectories(
    evidence: Evidence, model: str, rows: str, dataset: str | None = None
) -> dict[str, tuple[Trajectory, Finding]]:
    """Trajectories of the dimension at the named blocks, from where training has begun, each with an empty finding."""
    curves = evidence.curves(model, DIMENSION, rows=rows, dataset=dataset)
    if curves is None:
        return {}
    first, found = evidence.known[model].begin, {}
    for band, layer in named_layers(int(curves.layers[-1])).items():
        if layer in curves.layers:
            place = f"{band} block, from step {first:.0f}"
            finding = of_text(evidence, model, rows, place=place, detail=band != "middle")
            values = curves.values[:, :, curves.layers == layer][..., 0]
            found[band] = trajectory(values, curves.steps, first=first), finding
    return found


def rises_then_falls(claim: Claim, evidence: Evidence) -> Iterator[Finding]:
    """Rises and falls of the dimension at the named blocks of all models; decoders' middle blocks count."""
    for model in evidence.known:
        decoder = evidence.known[model].kind == "decoder"
        for rows in evidence.rows(model, DIMENSION):
            for found, finding in trajectories(evidence, model, rows).values():
                finding = replace(finding, detail=finding.detail or not decoder)
                highest = (
                    f"highest at step {found.steps[found.logarithms.argmax()]}" if len(found.steps) else ""
                )
                yield judged(finding, found, claim.moves, highest)


def all_alike(claim: Claim, evidence: Evidence) -> Iterator[Finding]:
    """Compare the trajectories of all models that the claim is about at the middle block, each with each."""
    models = list(evidence.known)
    inside = [model for model in models if not claim.about.outside(evidence, model)]
    outside = "" if len(inside) > 1 else "fewer than two models of a size and training that it is about"
    for rows in claim.rows:
        found = [
            trajectories(evidence, model, rows).get("middle") for model in (models if outside else inside)
        ]
        known = [one[0] for one in found if one is not None and not few(one[0])]
        if len(known) < 2:
            why = f"needs two models with {FEWEST} checkpoints from where a course begins"
            yield Finding(model="", rows=rows, why=why)
            continue
        finding = replace(
            of_text(evidence, models[0], rows), model=ALL_MODELS, place="middle block", outside=outside
        )
        told = [significant(one) for one in known]
        why = "; ".join(f"{moves} in {told.count(moves)}" for moves in dict.fromkeys(told))
        verdicts = {alike(one, two) for place, one in enumerate(known) for two in known[:place]}
        yield replace(finding, verdict=_first(verdicts, "contradicted", "undecided", "supported"), why=why)


def changes_in_time(claim: Claim, evidence: Evidence) -> Iterator[Finding]:
    """Whether the slope of the dimension changes at the steps of the claim, at the middle block."""
    for model in claim.about.chosen(evidence):
        dataset = evidence.known[model].datasets[0]
        own = evidence.table("phases", metric=DIMENSION, model=model, dataset=dataset, band="middle")
        for row in own.to_dict("records"):
            finding = of_text(evidence, model, row["rows"], place="middle block")
            if not row["shape"]:
                yield missing(finding, row["flag"])
                continue
            ends = [
                [row[f"boundary_{i}_step_{end}"] for end in ("low", "high")] for i in range(1, MOST_PIECES)
            ]
            breaks = [pair for pair in ends if np.isfinite(pair).all()]
            told = ", ".join(f"[{first:.0f}, {last:.0f}]" for first, last in breaks)
            verdicts = {within(*pair, *claim.steps) for pair in breaks} or {"undecided"}
            verdict = _first(verdicts, "supported", "undecided", "contradicted")
            why = f"its slope changes at steps {told or 'unknown'}"
            yield replace(finding, verdict=verdict, draws=int(row["draws"]), why=why)


def _first(verdicts: Collection[Verdict], *order: Verdict) -> Verdict:
    return next(one for one in order if one in verdicts)


def alike_on_random_tokens(claim: Claim, evidence: Evidence) -> Iterator[Finding]:
    """Compare the trajectories of the dimension on text and on random tokens."""
    for finding, _, _ in _pairs(evidence, DIMENSION):
        on_text = trajectories(evidence, finding.model, finding.rows)
        on_random = trajectories(evidence, finding.model, finding.rows, finding.dataset)
        for band in (band for band in on_text if band in on_random):
            (text, _), (random, place) = on_text[band], on_random[band]
            place = replace(place, dataset=finding.dataset)
            if why := few(text) or few(random):
                yield missing(place, why)
                continue
            why = f"text: {significant(text)}; random tokens: {significant(random)}"
            yield replace(place, verdict=alike(text, random), why=why)


def profile_on_random_tokens(claim: Claim, evidence: Evidence) -> Iterator[Found]:
    """Distance of the last profiles of anisotropy on text and on random tokens."""
    for finding, text, random in _pairs(evidence, "anisotropy"):
        yield finding, estimated(size(np.log(text.last) - np.log(random.last)))


def peak_without_order(claim: Claim, evidence: Evidence) -> Iterator[Found]:
    """Largest dimension of a block on shuffled or random tokens over that on text."""
    for finding, text, random in _pairs(evidence, DIMENSION, (RANDOM, SHUFFLED)):
        yield finding, estimated(random.last.max(axis=1) / text.last.max(axis=1))


def _pairs(
    evidence: Evidence, metric: str, orders: tuple[str, ...] = (RANDOM,)
) -> Iterator[tuple[Finding, Curves, Curves]]:
    """Yield each model's curves on text and on tokens in other orders, as far as draws pair."""
    for model in evidence.known:
        first, *others = evidence.known[model].datasets
        for other in others:
            for rows in evidence.rows(model, metric) if evidence.orders[other] in orders else ():
                text = evidence.curves(model, metric, rows=rows)
                random = evidence.curves(model, metric, rows=rows, dataset=other)
                if text and random and text.last.shape == random.last.shape:
                    finding = Finding(model=model, dataset=other, rows=rows, place=f"{other} beside {first}")
                    yield finding, text, random


def few_are_needed(claim: Claim, evidence: Evidence) -> Iterator[Finding]:
    """Share of the leading directions that keep the loss; middle blocks count."""
    table = evidence.table("truncation_ranks", tolerance=SMALL_LOSS)
    for row in table[table["model"].isin(claim.about.chosen(evidence))].to_dict("records"):
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
        decided = claim.bound.decided(finding, Estimate(share, low, high, int(row["draws"])))
        yield replace(decided, p=nan)  # the ranks that were tried have no Student's t


FINDERS = {
    "low_dimension": each(low),
    "rise_then_fall": rises_then_falls,
    "one_course": all_alike,
    "random_tokens": profile_on_random_tokens,
    "random_trajectory": alike_on_random_tokens,
    "random_dimension": peak_without_order,
    "transition_near_1000": changes_in_time,
    "under_its_gaussian": each(beyond_the_spectrum),
    "few_directions": few_are_needed,
}
