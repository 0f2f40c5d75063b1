"""Claims about the intrinsic dimension: how low it is, its course over training, and what random tokens change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from lmshape.claims.anisotropy import ARTICLE, FACTOR, HABR, LESS
from lmshape.claims.claim import (
    ALL_MODELS,
    LONG_RUN,
    About,
    Finding,
    Found,
    Verdict,
    article,
    each,
    later_paper,
    missing,
    of_text,
    our_addition,
    under,
    within,
)
from lmshape.claims.course import RULE, STATISTIC, Course, alike, judged, spelled
from lmshape.claims.evidence import Curves, Evidence, estimated
from lmshape.dynamics.noise import size
from lmshape.dynamics.phases import FEWEST
from lmshape.site import named_layers

LOW_SHARE, LOW = 0.1, 50.0  # of the width, and at all
RANDOM, SHUFFLED = "random", "shuffled"  # what the tokens of a dataset are, beside text
TRANSITION = (250, 4000)  # steps: 1000, within a factor of 4
DIMENSION = "id_twonn"
MODELS = About(metrics=(DIMENSION,))
FOLLOWED = replace(MODELS, checkpoints=FEWEST)
RISE_FALL = ("rise", "fall")


def _low(evidence: Evidence, finding: Finding, curves: Curves) -> Finding:
    return under(min(LOW_SHARE * curves.width, LOW)).decided(finding, estimated(curves.last.max(axis=1)))


def _low_beyond_the_spectrum(evidence: Evidence, finding: Finding, curves: Curves) -> Found:
    surrogate = evidence.curves(finding.model, "id_twonn_surrogate", rows=finding.rows)
    if surrogate is None or surrogate.values.shape != curves.values.shape:
        return missing(finding, "needs `id_twonn_surrogate` of the same rows")
    return finding, estimated((curves.last / surrogate.last).mean(axis=1))


def courses(
    evidence: Evidence, model: str, rows: str, dataset: str | None = None
) -> dict[str, tuple[Course, Finding]]:
    """Courses of the dimension at the named blocks, from where training has begun: band → course, empty finding."""
    curves = evidence.curves(model, DIMENSION, rows=rows, dataset=dataset)
    if curves is None:
        return {}
    first = evidence.known[model].begin
    return {
        band: (
            Course.of(curves.values[:, :, curves.layers == layer][..., 0], curves.steps, first=first),
            of_text(
                evidence, model, rows, place=f"{band} block, from step {first:.0f}", detail=band != "middle"
            ),
        )
        for band, layer in named_layers(int(curves.layers[-1])).items()
        if layer in curves.layers
    }


def _rises_then_falls(evidence: Evidence, about: About) -> Iterator[Finding]:
    for model in evidence.models():
        decoder = evidence.known[model].kind == "decoder"
        for rows in evidence.rows(model, DIMENSION):
            for course, finding in courses(evidence, model, rows).values():
                finding = replace(finding, detail=finding.detail or not decoder)
                highest = (
                    f"highest at step {course.steps[course.values.argmax()]}" if len(course.steps) else ""
                )
                yield judged(finding, course, RISE_FALL, highest)


def one_course(evidence: Evidence, about: About) -> Iterator[Finding]:
    """Compare the courses of all models that the claim is about at the middle block, each with each."""
    models = evidence.models()
    inside = [model for model in models if not about.outside(evidence, model)]
    outside = "" if len(inside) > 1 else "fewer than two models of a size and training that it is about"
    for rows in ("all", "one_per_type"):
        found = [courses(evidence, model, rows).get("middle") for model in (models if outside else inside)]
        known = [one[0] for one in found if one is not None and not one[0].few]
        if len(known) < 2:
            why = f"needs two models with {FEWEST} checkpoints from where a course begins"
            yield Finding(model="", rows=rows, why=why)
            continue
        finding = replace(
            of_text(evidence, models[0], rows), model=ALL_MODELS, place="middle block", outside=outside
        )
        told = [spelled(course.seen(course.bound)) for course in known]
        why = "; ".join(f"{course} in {told.count(course)}" for course in dict.fromkeys(told))
        verdicts = {alike(one, two) for place, one in enumerate(known) for two in known[:place]}
        worst: tuple[Verdict, ...] = ("contradicted", "undecided", "supported")
        yield replace(finding, verdict=next(one for one in worst if one in verdicts), why=why)


def changes_near_a_thousand(evidence: Evidence, about: About) -> Iterator[Finding]:
    """Whether a straight piece of the trajectory of the dimension ends near step 1000, at the middle block."""
    for model in about.chosen(evidence):
        dataset = evidence.known[model].datasets[0]
        own = evidence.table("phases", metric=DIMENSION, model=model, dataset=dataset, band="middle")
        for row in own.to_dict("records"):
            finding = of_text(evidence, model, row["rows"], place="middle block")
            if not row["shape"]:
                yield missing(finding, row["flag"])
                continue
            ends = [(row[f"boundary_{i}_step_low"], row[f"boundary_{i}_step_high"]) for i in (1, 2, 3)]
            breaks = [pair for pair in ends if np.isfinite(pair).all()]
            told = ", ".join(f"[{first:.0f}, {last:.0f}]" for first, last in breaks)
            verdicts = {within(*pair, *TRANSITION) for pair in breaks} or {"undecided"}
            best: tuple[Verdict, ...] = ("supported", "undecided", "contradicted")
            verdict = next(one for one in best if one in verdicts)
            why = f"its slope changes at steps {told or 'unknown'}"
            yield replace(finding, verdict=verdict, draws=int(row["draws"]), why=why)


def _same_course_on_random_tokens(evidence: Evidence, about: About) -> Iterator[Finding]:
    for finding, _, _ in _pairs(evidence, DIMENSION):
        on_text = courses(evidence, finding.model, finding.rows)
        on_random = courses(evidence, finding.model, finding.rows, finding.dataset)
        for band in on_text.keys() & on_random.keys():
            (text, _), (random, place) = on_text[band], on_random[band]
            if text.few or random.few:
                yield missing(replace(place, dataset=finding.dataset), text.few or random.few)
                continue
            told = [spelled(course.seen(course.bound)) for course in (text, random)]
            why = f"text: {told[0]}; random tokens: {told[1]}"
            yield replace(place, dataset=finding.dataset, verdict=alike(text, random), why=why)


def _repeats_on_random_tokens(evidence: Evidence, about: About) -> Iterator[Found]:
    for finding, text, random in _pairs(evidence, "anisotropy"):
        yield finding, estimated(size(np.log(text.last) - np.log(random.last)))


def _peak_shrinks(evidence: Evidence, about: About) -> Iterator[Found]:
    for finding, text, random in _pairs(evidence, DIMENSION, (RANDOM, SHUFFLED)):
        yield finding, estimated(random.last.max(axis=1) / text.last.max(axis=1))


def _pairs(
    evidence: Evidence, metric: str, orders: tuple[str, ...] = (RANDOM,)
) -> Iterator[tuple[Finding, Curves, Curves]]:
    """Yield each model's curves on text and on tokens in other orders, as far as draws pair."""
    for model in evidence.models():
        first, *others = evidence.known[model].datasets
        for other in others:
            for rows in evidence.rows(model, metric) if evidence.orders[other] in orders else ():
                text = evidence.curves(model, metric, rows=rows)
                random = evidence.curves(model, metric, rows=rows, dataset=other)
                if text and random and text.last.shape == random.last.shape:
                    finding = Finding(model=model, dataset=other, rows=rows, place=f"{other} beside {first}")
                    yield finding, text, random


CLAIMS = (
    article(
        slug="low_dimension",
        sentence="The intrinsic dimension of a layer is low",
        source=HABR,
        about=MODELS,
        statistic="largest TwoNN dimension of a block, last checkpoint",
        rule=f"supported if its interval is under {LOW:.0f} and under {LOW_SHARE} of the width; contradicted if over",
        find=each(DIMENSION, _low, quantity="intrinsic dimension of the blocks"),
    ),
    article(
        slug="rise_then_fall",
        sentence="In training the intrinsic dimension first rises, then falls",
        source=f"{ARTICLE}, abstract",
        about=replace(FOLLOWED, kind="decoder"),
        statistic=STATISTIC.format(
            "a rise and a fall after it of the TwoNN dimension", "a fall before a rise"
        )
        + "; middle block of decoders, other blocks and encoders as detail; from where a tenth of the fall of the loss "
        "is done",
        rule=RULE.format("it rises, then falls", "a fall before a rise"),
        find=_rises_then_falls,
    ),
    article(
        slug="one_course",
        sentence="The course of the intrinsic dimension over training is the same for all models",
        source=f"{ARTICLE}, abstract; {HABR}",
        about=replace(FOLLOWED, models=2),
        statistic="significant rises and falls of the TwoNN dimension of each model, middle block",
        rule="supported if all models have the same and no room for others; contradicted if what is significant in one "
        "is excluded in another",
        find=one_course,
    ),
    article(
        slug="random_tokens",
        sentence="The profile of anisotropy repeats on random sequences of tokens",
        source=HABR,
        about=About(metrics=("anisotropy",), order=RANDOM),
        statistic="root mean square over the blocks of the logarithm of anisotropy on random tokens over that on text, "
        "last checkpoint",
        rule=under(FACTOR, "a factor of 1.5"),
        find=_repeats_on_random_tokens,
    ),
    article(
        slug="random_trajectory",
        sentence="The trajectory of the intrinsic dimension repeats on random sequences of tokens",
        source=HABR,
        about=replace(FOLLOWED, order=RANDOM),
        statistic="significant rises and falls of the TwoNN dimension on random tokens and on text, middle block; "
        "other blocks as detail",
        rule="supported if they are the same, with no room for others; contradicted if what is significant on one is "
        "excluded on the other",
        find=_same_course_on_random_tokens,
    ),
    later_paper(
        slug="random_dimension",
        sentence="The peak of the intrinsic dimension over the layers shrinks on shuffled and on random tokens",
        source="Cheng et al. 2025, arXiv 2405.15471",
        about=replace(MODELS, order=RANDOM),
        statistic="largest TwoNN dimension of a block on such tokens over that on text, last checkpoint",
        rule=under(LESS),
        find=_peak_shrinks,
    ),
    later_paper(
        slug="transition_near_1000",
        sentence="The slope of the intrinsic dimension over training changes near step 1000",
        source="Lee et al. 2024, arXiv 2410.01444",
        about=replace(FOLLOWED, kind="decoder"),
        statistic="steps at which the slope changes, middle block (table `phases`)",
        rule=f"supported if the interval of one lies within steps {TRANSITION[0]} to {TRANSITION[1]}; contradicted if "
        f"none meets them; runs of {LONG_RUN} steps and more",
        find=changes_near_a_thousand,
    ),
    our_addition(
        slug="under_its_gaussian",
        sentence="The intrinsic dimension is lower than the spectrum alone makes it",
        source="not in the article: a check of low_dimension",
        about=replace(MODELS, metrics=(DIMENSION, "id_twonn_surrogate")),
        statistic="mean ratio, over the blocks, to the TwoNN dimension of a Gaussian of the same covariance",
        rule=under(LESS),
        find=each(DIMENSION, _low_beyond_the_spectrum),
    ),
)
