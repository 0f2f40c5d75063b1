"""Claims about what remains of the curves on random and on shuffled tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lmshape.claims.anisotropy import FLAT, HABR
from lmshape.claims.claim import Claim, Finding, below, missing, undecided
from lmshape.claims.course import Course, course_of, phase_rows
from lmshape.claims.evidence import Curves, Evidence, estimated
from lmshape.dynamics.noise import size

RANDOM, SHUFFLED = "random", "shuffled"


def repeats_on_random_tokens(evidence: Evidence) -> Iterator[Finding]:
    """Root mean square difference over the blocks of anisotropy on random tokens from that on text, last checkpoint."""
    for finding, text, random in _pairs(evidence, "anisotropy"):
        yield below(finding, estimated(size(text.last - random.last)), FLAT)


def same_course_on_random_tokens(evidence: Evidence) -> Iterator[Finding]:
    """Sure moves of the course of the dimension on random tokens beside those on text, by band of layers."""
    on_text = {
        (finding.model, finding.rows, finding.place): course
        for finding, _, course in phase_rows(evidence, "id_twonn")
    }
    for row in evidence.table("phases", metric="id_twonn").to_dict("records"):
        place = f"{row['band']} block"
        text = on_text.get((row["model"], row["rows"], place))
        if evidence.orders.get(row["dataset"]) == RANDOM and text is not None:
            finding = Finding(model=row["model"], dataset=row["dataset"], rows=row["rows"], place=place)
            random = course_of(evidence, row)
            yield missing(finding, row["flag"]) if random is None else _beside(finding, text, random)


def _beside(finding: Finding, text: Course, random: Course) -> Finding:
    told = f"text: {text.words}; random tokens: {random.words}"
    if not (text.decided and random.decided):
        return undecided(finding, told, "a shape is not sure")
    if text.moves == random.moves:
        return replace(finding, verdict="supported", why=told)
    longer = max(text, random, key=lambda course: len(course.moves))
    return replace(finding, verdict="contradicted", p=longer.p_of_moves(), why=told)


def peak_shrinks(evidence: Evidence) -> Iterator[Finding]:
    """Largest dimension of a block on random or shuffled tokens over that on text, last checkpoint."""
    for finding, text, random in _pairs(evidence, "id_twonn", (RANDOM, SHUFFLED)):
        yield below(finding, estimated(random.last.max(axis=1) / text.last.max(axis=1)), 1.0)


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
        name="random_tokens",
        number="P8, 3.12.12",
        statement="The profile of anisotropy repeats on random sequences of tokens",
        source=HABR,
        statistic="root mean square difference of anisotropy over the blocks, random tokens from text, last checkpoint",
        rule=f"supported if its interval is under {FLAT}; contradicted if over",
        find=repeats_on_random_tokens,
    ),
    Claim(
        name="random_course",
        number="P8",
        statement="The course of the intrinsic dimension repeats on random sequences of tokens",
        source=HABR,
        statistic="sure moves of its course over log(1 + step), random tokens and text (table `phases`)",
        rule="supported if they are the same; contradicted if not; undecided where a shape is not sure",
        find=same_course_on_random_tokens,
    ),
    Claim(
        name="random_dimension",
        number="3.12.12",
        statement="The peak of the intrinsic dimension over the layers shrinks on shuffled and on random tokens",
        source="Cheng et al. 2025, arXiv 2405.15471",
        statistic="largest TwoNN dimension of a block on such tokens over that on text, last checkpoint",
        rule="supported if its interval is under 1; contradicted if over",
        find=peak_shrinks,
    ),
)
