"""Claims about the intrinsic dimension, and what remains of the curves on random tokens and by other estimators."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from scipy.stats import rankdata

from lmshape.claims.anisotropy import ARTICLE, FLAT, HABR
from lmshape.claims.claim import Claim, Finding, above, below, missing
from lmshape.claims.evidence import Curves, Evidence, estimated, measured
from lmshape.claims.published import published

LOW_SHARE = 0.1
AGREE = 0.8
RANDOM = "random"
FEWEST_PLACES = 8  # layers and steps of a rank correlation
P_OF_MOVES = ("p_monotone", "p_unimodal", "p_three_phase")  # of fewer moves than one, two, three
METHODS = {
    "anisotropy": ("mean_cosine", "mean_cosine_centered"),
    "id_twonn": ("id_mle", "id_gride_16"),
}


def low(evidence: Evidence) -> Iterator[Finding]:
    """Largest dimension of a block, as a share of the width, at the last checkpoint."""
    for finding, curves in measured(evidence, "id_twonn"):
        finding = published(finding, "intrinsic dimension of the blocks")
        yield below(finding, estimated(curves.last.max(axis=1) / curves.width), LOW_SHARE)


def low_beyond_the_spectrum(evidence: Evidence) -> Iterator[Finding]:
    """Largest ratio over the blocks of the dimension to that of a Gaussian with the same covariance."""
    for finding, curves in measured(evidence, "id_twonn"):
        surrogate = evidence.curves(finding.model, "id_twonn_surrogate", rows=finding.rows)
        if surrogate is None or surrogate.values.shape != curves.values.shape:
            yield missing(finding, "needs `id_twonn_surrogate` of the same rows")
            continue
        yield below(finding, estimated((curves.last / surrogate.last).max(axis=1)), 1.0)


def rises_then_falls(evidence: Evidence) -> Iterator[Finding]:
    """Shape of the course of the dimension over training, by band of layers."""
    yield from courses(evidence, "id_twonn", wanted="rise, fall")


def courses(evidence: Evidence, metric: str, *, wanted: str) -> Iterator[Finding]:
    """Compare the moves of a metric's course over training with the `wanted` ones, in each band of each model."""
    first = {model: evidence.datasets(model)[0] for model in evidence.models()}
    for row in evidence.table("phases", metric=metric).to_dict("records"):
        if row["dataset"] != first.get(row["model"], row["dataset"]):
            continue
        finding = Finding(
            model=row["model"], dataset=row["dataset"], rows=row["rows"], place=f"{row['band']} block"
        )
        yield _of_shape(finding, row, wanted)


def _of_shape(finding: Finding, row: dict, wanted: str) -> Finding:
    if not row["shape"]:
        return missing(finding, row["flag"])
    moves = row["moves"].replace(", ", ", then ") or "level"
    told = replace(
        finding,
        estimate=row["peak_step"],
        low=row["peak_step_low"],
        high=row["peak_step_high"],
        draws=int(row["draws"]),
        why=f"the course: {moves}; the numbers are the step of its peak",
    )
    if row["shape"] == "undecided":
        return replace(told, verdict="undecided", why=f"the course: {moves}, and no shape is sure")
    if row["moves"] == wanted:
        return replace(told, verdict="supported", p=row[P_OF_MOVES[wanted.count(",")]])
    return replace(told, verdict="contradicted")


def repeats_on_random_tokens(evidence: Evidence) -> Iterator[Finding]:
    """Root mean square difference over the blocks of anisotropy on random tokens from that on text, last checkpoint."""
    for finding, text, random in _pairs(evidence, "anisotropy"):
        distance = np.sqrt(((text.last - random.last) ** 2).mean(axis=1))
        yield below(finding, estimated(distance), FLAT)


def peak_shrinks(evidence: Evidence) -> Iterator[Finding]:
    """Largest dimension of a block on random tokens over that on text, last checkpoint."""
    for finding, text, random in _pairs(evidence, "id_twonn"):
        yield below(finding, estimated(random.last.max(axis=1) / text.last.max(axis=1)), 1.0)


def _pairs(evidence: Evidence, metric: str) -> Iterator[tuple[Finding, Curves, Curves]]:
    """Yield each model's curves on text and on random tokens, as far as draws pair."""
    for model in evidence.models():
        first, *others = evidence.datasets(model)
        for other in others:
            for rows in evidence.rows(model, metric) if evidence.orders[other] == RANDOM else ():
                text = evidence.curves(model, metric, rows=rows)
                random = evidence.curves(model, metric, rows=rows, dataset=other)
                if text and random and text.last.shape == random.last.shape:
                    yield (
                        Finding(model=model, dataset=other, rows=rows, place=f"beside {first}"),
                        text,
                        random,
                    )


def methods_agree(evidence: Evidence) -> Iterator[Finding]:
    """Rank correlation, over the blocks and steps of a model, of a quantity with other measures of it."""
    for model in evidence.models():
        for metric, others in METHODS.items():
            for other in others:
                one, two = evidence.curves(model, metric), evidence.curves(model, other)
                if one is not None and two is not None and one.values.shape == two.values.shape:
                    finding = Finding(model=model, dataset=evidence.datasets(model)[0], rows="all")
                    yield _agreement(replace(finding, place=f"{metric}, {other}"), one, two)


def _agreement(finding: Finding, one: Curves, two: Curves) -> Finding:
    pairs = [(a.ravel(), b.ravel()) for a, b in zip(one.values, two.values, strict=True)]
    measured = np.isfinite(pairs[0]).all(axis=0)
    if measured.sum() < FEWEST_PLACES:
        return missing(
            finding, f"{measured.sum()} layers and steps; a rank correlation needs {FEWEST_PLACES}"
        )
    correlations = [np.corrcoef(rankdata(a[measured]), rankdata(b[measured]))[0, 1] for a, b in pairs]
    return above(finding, estimated(np.array(correlations)), AGREE)


CLAIMS = (
    Claim(
        name="low_dimension",
        number="P5",
        statement="The intrinsic dimension of a layer is low beside its width",
        source=HABR,
        statistic="largest TwoNN dimension of a block over the width, last checkpoint",
        rule=f"supported if its interval is under {LOW_SHARE}; contradicted if over",
        find=low,
    ),
    Claim(
        name="under_its_gaussian",
        number="P5",
        statement="The intrinsic dimension is lower than the spectrum alone makes it",
        source="the null of the ID: a Gaussian of the same covariance",
        statistic="largest ratio, over the blocks, to the TwoNN dimension of a Gaussian of the same covariance",
        rule="supported if its interval is under 1; contradicted if over",
        find=low_beyond_the_spectrum,
    ),
    Claim(
        name="rise_then_fall",
        number="P6, 3.12.6",
        statement="In training the intrinsic dimension first rises, then falls, in all models",
        source=f"{ARTICLE}, abstract",
        statistic="shape of the course of the TwoNN dimension over log(1 + step), by band of layers (table `phases`)",
        rule="supported if the shape is rise, then fall; contradicted if it is another; undecided if none is sure",
        find=rises_then_falls,
    ),
    Claim(
        name="random_tokens",
        number="P8, 3.12.12",
        statement="The profile of anisotropy repeats on random sequences of tokens",
        source=HABR,
        statistic="root mean square difference of anisotropy over the blocks, random tokens from text, last checkpoint",
        rule=f"supported if its interval is under {FLAT}; contradicted if over",
        find=repeats_on_random_tokens,
    ),
    Claim(
        name="random_dimension",
        number="3.12.12",
        statement="The peak of the intrinsic dimension over the layers shrinks on random tokens",
        source="Cheng et al. 2025, arXiv 2405.15471",
        statistic="largest TwoNN dimension of a block on random tokens over that on text, last checkpoint",
        rule="supported if its interval is under 1; contradicted if over",
        find=peak_shrinks,
    ),
    Claim(
        name="methods_agree",
        number="P9",
        statement="Other estimators and cosines tell the same as λ1/Σλ and TwoNN",
        source="AIRI blog; sciencestack summary of the article",
        statistic="Spearman's rank correlation over blocks and steps",
        rule=f"supported if its interval is over {AGREE}; contradicted if under",
        find=methods_agree,
    ),
)
