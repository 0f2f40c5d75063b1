"""Claims about the intrinsic dimension, whether other estimators tell the same, and what random tokens change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from scipy.stats import rankdata

from lmshape.claims.anisotropy import ARTICLE, FLAT, HABR
from lmshape.claims.claim import (
    LONG_RUN,
    Claim,
    Curves,
    Evidence,
    Finding,
    Found,
    each,
    estimated,
    missing,
    over,
    published,
    undecided,
    under,
    within,
)
from lmshape.claims.trajectory import SHAPED, Observed, finding_of, of_shape, phase_rows
from lmshape.dynamics.noise import size
from lmshape.tables.columns import Row

LOW_SHARE, LOW = 0.1, 50.0  # of the width, and at all
AGREE = 0.8
FEWEST_PLACES = 8  # layers and steps of a rank correlation
RANDOM, SHUFFLED = "random", "shuffled"  # what the tokens of a dataset are, beside text
TRANSITION = (500, 2000)  # steps: 1000, within a factor of 2
METHODS = {
    "anisotropy": ("mean_cosine", "mean_cosine_centered"),
    "id_twonn": ("id_mle", "id_gride_16"),
}


def low(evidence: Evidence, finding: Finding, curves: Curves) -> Finding:
    """Largest dimension of a block at the last checkpoint."""
    finding = published(finding, "intrinsic dimension of the blocks")
    return under(min(LOW_SHARE * curves.width, LOW)).decided(finding, estimated(curves.last.max(axis=1)))


def low_beyond_the_spectrum(evidence: Evidence, finding: Finding, curves: Curves) -> Found:
    """Largest ratio over the blocks of the dimension to that of a Gaussian with the same covariance."""
    surrogate = evidence.curves(finding.model, "id_twonn_surrogate", rows=finding.rows)
    if surrogate is None or surrogate.values.shape != curves.values.shape:
        return missing(finding, "needs `id_twonn_surrogate` of the same rows")
    return finding, estimated((curves.last / surrogate.last).max(axis=1))


def rises_then_falls(evidence: Evidence) -> Iterator[Finding]:
    """Shape of the trajectory of the dimension over training, by band of layers."""
    for finding, row, observed in phase_rows(evidence, "id_twonn"):
        yield of_shape(finding, row, observed, ("rise", "fall"))


def changes_near_a_thousand(evidence: Evidence) -> Iterator[Finding]:
    """Whether a straight piece of the trajectory of the dimension ends near step 1000, by band of layers."""
    for finding, row, observed in phase_rows(evidence, "id_twonn", kind="decoder", band="middle"):
        if observed is None or observed.last_step < LONG_RUN:
            yield missing(finding, row["flag"] or f"the claim is about runs of over {LONG_RUN} steps")
            continue
        breaks = [
            (row[f"boundary_{place}_step_low"], row[f"boundary_{place}_step_high"]) for place in (1, 2, 3)
        ]
        yield _near_a_thousand(finding, row, [ends for ends in breaks if np.isfinite(ends).all()])


def _near_a_thousand(finding: Finding, row: Row, breaks: list[tuple[float, float]]) -> Finding:
    told = ", ".join(f"[{first:.0f}, {last:.0f}]" for first, last in breaks)
    finding = replace(finding, draws=int(row["draws"]), why=f"its slope changes at steps {told or 'unknown'}")
    verdicts = {within(*ends, *TRANSITION) for ends in breaks}
    if "supported" in verdicts:
        return replace(finding, verdict="supported")
    return replace(finding, verdict="contradicted" if verdicts == {"contradicted"} else "undecided")


def methods_agree(evidence: Evidence) -> Iterator[Found]:
    """Rank correlation, over the blocks and steps of a model, of a quantity with other measures of it."""
    for model in evidence.models():
        for metric, others in METHODS.items():
            for other in others:
                one, two = evidence.curves(model, metric), evidence.curves(model, other)
                if one is not None and two is not None and one.values.shape == two.values.shape:
                    finding = Finding(model=model, dataset=evidence.datasets(model)[0], rows="all")
                    yield _agreement(replace(finding, place=f"{metric}, {other}"), one, two)


def _agreement(finding: Finding, one: Curves, two: Curves) -> Found:
    pairs = [(a.ravel(), b.ravel()) for a, b in zip(one.values, two.values, strict=True)]
    measured = np.isfinite(pairs[0]).all(axis=0)
    if measured.sum() < FEWEST_PLACES:
        return missing(
            finding, f"{measured.sum()} layers and steps; a rank correlation needs {FEWEST_PLACES}"
        )
    correlations = [np.corrcoef(rankdata(a[measured]), rankdata(b[measured]))[0, 1] for a, b in pairs]
    return finding, estimated(np.array(correlations))


def repeats_on_random_tokens(evidence: Evidence) -> Iterator[Found]:
    """Root mean square difference over the blocks of anisotropy on random tokens from that on text, last checkpoint."""
    for finding, text, random in _pairs(evidence, "anisotropy"):
        yield finding, estimated(size(text.last - random.last))


def same_trajectory_on_random_tokens(evidence: Evidence) -> Iterator[Finding]:
    """Significant segments of the dimension over training on random tokens beside those on text, by band of layers."""
    on_text = {
        (finding.model, finding.rows, finding.place): observed
        for finding, _, observed in phase_rows(evidence, "id_twonn")
    }
    for row in evidence.table("phases", metric="id_twonn").to_dict("records"):
        finding = finding_of(row)
        text = on_text.get((finding.model, finding.rows, finding.place))
        if evidence.orders.get(row["dataset"]) == RANDOM and text is not None:
            random = Observed.of_row(evidence, row)
            yield missing(finding, row["flag"]) if random is None else _beside(finding, text, random)


def _beside(finding: Finding, text: Observed, random: Observed) -> Finding:
    told = f"text: {text.words}; random tokens: {random.words}"
    if not (text.decided and random.decided):
        return undecided(finding, told, "a shape is undecided")
    if text.segments == random.segments:
        return replace(finding, verdict="supported", why=told)
    longer = max(text, random, key=lambda one: len(one.segments))
    return replace(finding, verdict="contradicted", p=longer.p_of_segments(), why=told)


def peak_shrinks(evidence: Evidence) -> Iterator[Found]:
    """Largest dimension of a block on random or shuffled tokens over that on text, last checkpoint."""
    for finding, text, random in _pairs(evidence, "id_twonn", (RANDOM, SHUFFLED)):
        yield finding, estimated(random.last.max(axis=1) / text.last.max(axis=1))


def _pairs(
    evidence: Evidence, metric: str, orders: tuple[str, ...] = (RANDOM,)
) -> Iterator[tuple[Finding, Curves, Curves]]:
    """Yield each model's curves on text and on tokens in other orders, as far as draws pair."""
    for model in evidence.models():
        first, *others = evidence.datasets(model)
        for other in others:
            for rows in evidence.rows(model, metric) if evidence.orders[other] in orders else ():
                text = evidence.curves(model, metric, rows=rows)
                random = evidence.curves(model, metric, rows=rows, dataset=other)
                if text and random and text.last.shape == random.last.shape:
                    finding = Finding(model=model, dataset=other, rows=rows, place=f"{other} beside {first}")
                    yield finding, text, random


CLAIMS = (
    Claim(
        slug="low_dimension",
        sentence="The intrinsic dimension of a layer is low",
        source=HABR,
        source_kind="article",
        statistic="largest TwoNN dimension of a block, last checkpoint",
        rule=f"supported if its interval is under {LOW:.0f} and under {LOW_SHARE} of the width; contradicted if over",
        find=each("id_twonn", low),
    ),
    Claim(
        slug="under_its_gaussian",
        sentence="The intrinsic dimension is lower than the spectrum alone makes it",
        source="not in the article: a check of low_dimension",
        source_kind="our addition",
        statistic="largest ratio, over the blocks, to the TwoNN dimension of a Gaussian of the same covariance",
        rule=under(1),
        find=each("id_twonn", low_beyond_the_spectrum),
    ),
    Claim(
        slug="rise_then_fall",
        sentence="In training the intrinsic dimension first rises, then falls, in all models",
        source=f"{ARTICLE}, abstract",
        source_kind="article",
        statistic="shape of the trajectory of the TwoNN dimension, by band of layers (table `phases`)",
        rule=SHAPED.format("a rise and a fall"),
        find=rises_then_falls,
    ),
    Claim(
        slug="transition_near_1000",
        sentence="The slope of the intrinsic dimension over training changes near step 1000",
        source="Lee et al. 2024, arXiv 2410.01444",
        source_kind="later paper",
        statistic="steps at which the slope changes, middle block (table `phases`)",
        rule=f"supported if the interval of one lies within steps {TRANSITION[0]} to {TRANSITION[1]}; contradicted if "
        f"none meets them; runs of {LONG_RUN} steps and more",
        find=changes_near_a_thousand,
    ),
    Claim(
        slug="methods_agree",
        sentence="Other estimators and cosines tell the same as λ1/Σλ and TwoNN",
        source="AIRI blog; sciencestack summary of the article",
        source_kind="article",
        statistic="Spearman's rank correlation over blocks and steps",
        rule=over(AGREE),
        find=methods_agree,
    ),
    Claim(
        slug="random_tokens",
        sentence="The profile of anisotropy repeats on random sequences of tokens",
        source=HABR,
        source_kind="article",
        statistic="root mean square difference of anisotropy over the blocks, random tokens from text, last checkpoint",
        rule=under(FLAT),
        find=repeats_on_random_tokens,
    ),
    Claim(
        slug="random_trajectory",
        sentence="The trajectory of the intrinsic dimension repeats on random sequences of tokens",
        source=HABR,
        source_kind="article",
        statistic="significant segments over log(1 + step), random tokens and text (table `phases`)",
        rule="supported if they are the same; contradicted if not; undecided where the noise leaves a shape open",
        find=same_trajectory_on_random_tokens,
    ),
    Claim(
        slug="random_dimension",
        sentence="The peak of the intrinsic dimension over the layers shrinks on shuffled and on random tokens",
        source="Cheng et al. 2025, arXiv 2405.15471",
        source_kind="later paper",
        statistic="largest TwoNN dimension of a block on such tokens over that on text, last checkpoint",
        rule=under(1),
        find=peak_shrinks,
    ),
)
