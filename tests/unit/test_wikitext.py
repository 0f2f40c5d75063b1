"""The cleaning rule: small samples with their exact result, and what no article may keep."""

from __future__ import annotations

import lzma
import re
import time
from pathlib import Path

import pytest
from dumps import clean

from lmshape.texts.corpus import clean_markup, clean_page, pages

EXCERPT = Path(__file__).parents[2] / "data" / "enwik8-excerpt.xz"
MARKUP = [
    ("'''Anarchism''' is ''old''.", "Anarchism is old."),
    ("a [[dog]]s, a [[working class|class]], [[:Category:Cats]]", "a dogs, a class, Category:Cats"),
    ("[[Wiktionary:dog]] [[wikt:dog|the word]]", "Wiktionary:dog the word"),
    ("[[Image:x.png|thumb|The [[Eiffel tower|tower]] of [[Paris]]]]Text.", "Text."),
    ("Text.\n[[Category:Cats|x]]\n[[fr:Chat]]\n[[simple:Cat]]\n[[zh-min-nan:Niau]]", "Text."),
    ("Made by [http://a.org/b?c=d a company [x]].", "Made by a company [x]."),
    ("Made by [http://a.org/b?c=d a company], it says [http://a.org].", "Made by a company, it says."),
    ("a {{b|{{c|d}}|e={f} }} g", "a g"),
    ("a\n{| class=x\n| b\n{|\n| c\n|}\n|}\nd", "a\n\nd"),
    ("a\n{{box\n| b = {{c\n|}}\n}}\nd", "a\n\nd"),
    ("a <table><tr><td><table>b</table></td></tr></table>c", "a c"),
    ("a<ref>b</ref>, c<ref name='d' />, e<ref name=f>[[g]]</ref>.", "a, c, e."),
    ("a<ref>b, c<ref>d</ref>.", "ab, c."),
    ("a <!-- [[b]] --> c <math>x_{i}</math> d<gallery>\ne\n</gallery>", "a c d"),
    ("a <!-- never closed", "a"),
    ("H<sub>2</sub>O <b>is</b><br/>water<p>here</p>", "H2O is\nwater\nhere"),
    ("== Life ==\nHe lived.\n=== Death===\nHe died.", "Life\nHe lived.\nDeath\nHe died."),
    ("* a\n** b\n# c\n:: d\n; e\n----\nf", "a\nb\nc\nd\ne\n\nf"),
    ("a &ndash; b &amp; c&nbsp;&#945; &lt;iostream&gt;", "a – b & c α <iostream>"),
    ("__NOTOC__a\n\n\n\n  b  \t c \n \n d", "a\n\nb c\n\nd"),
    ("Aristotle ({{polytonic|x}}) wrote f() and {x}.", "Aristotle wrote f() and {x}."),
    ("a [[b and {{c and | d", "a b and c and | d"),
    ("| stray row\ntext [http://a.org not\nclosed", "text not\nclosed"),
    ("", ""),
]


def page(title: str, text: str, *, end: str = "</text>\n    </revision>\n  </page>\n") -> str:
    return (
        f"  <page>\n    <title>{title}</title>\n    <revision>\n"
        f'      <comment>not this</comment>\n      <text xml:space="preserve">{text}{end}'
    )


@pytest.mark.parametrize(("markup", "prose"), MARKUP)
def test_the_rule_on_samples(markup: str, prose: str) -> None:
    assert clean_markup(markup) == prose


def test_only_the_text_of_articles_is_kept() -> None:
    dump = "<mediawiki>\n  <siteinfo>\n  </siteinfo>\n"
    dump += page("Cat", "A &quot;cat&quot; &amp;mdash; &lt;b&gt;meows&lt;/b&gt;.\n\nTwice.")
    dump += page("Cats", "#REDIRECT [[Cat]]") + page("Kitty", " #redirect [[Cat]]")
    dump += page("Wikipedia:Village pump", "Policy.") + page("Template talk:Cat", "Talk.")
    dump += page("Nothing", "{{stub}}") + page("F-Zero: GP", "A game.") + "</mediawiki>\n"
    assert clean(dump) == 'A "cat" — meows.\n\nTwice.\n\nA game.\n\n'


def test_a_page_that_is_cut_loses_its_last_line() -> None:
    dump = page("Cat", "Meows.") + page("Dog", "Barks.\n\n[[Category:Dogs]]\n\n[[fr", end="")
    assert clean(dump) == "Meows.\n\nBarks.\n\n"
    assert clean(page("Cat", "Meows.") + page("Dog", "Bar", end="")) == "Meows.\n\n"


@pytest.mark.parametrize("element", ['<text xml:space="preserve" />', "<text xml:sp", ""])
def test_a_page_without_text_is_no_article(element: str) -> None:
    assert clean_page(f"<page>\n<title>Cat</title>\n{element}") == ""


def test_a_plain_text_has_no_articles() -> None:
    assert clean("Once upon a time.\nThe end.\n") == ""


def test_pages_lose_nothing() -> None:
    lines = (page("Cat", "Meows.\n") + page("Dog", "Barks.") + "</mediawiki>").splitlines(keepends=True)
    assert "".join(pages(lines)) == "".join(lines)
    assert len(list(pages(lines))) == 3


@pytest.mark.parametrize(
    "opener", ["[[ ", "{{ ", "{|\n", "<ref> ", "<table> ", "<math>\n", "<!-- ", "<a ", "=", "[http://a b "]
)
def test_brackets_that_never_close_take_linear_time(opener: str) -> None:
    start = time.process_time()
    clean_markup(opener * 20_000)
    assert time.process_time() - start < 2


@pytest.fixture(scope="module")
def prose() -> str:
    with lzma.open(EXCERPT) as excerpt:
        return clean(excerpt.read(2_000_000).decode(errors="ignore"))


@pytest.mark.parametrize(
    "pattern",
    [
        r"\[\[|\]\]|\{\{|\}\}|\{\||\|\}",
        r"</?(?:ref|math|br|table|td|div|sub|sup|small|page|text)\b",
        r"&(?:quot|lt|gt|nbsp|ndash|mdash);",
        r"''",
        r"\n\n\n|  |\t|\xa0|^ | $",
        r"^[*#|]+ ?\w|^=+ ?\w.*=$",
        r"#REDIRECT|\[http|thumb\||px\|",
    ],
)
def test_no_markup_is_left_in_real_articles(prose: str, pattern: str) -> None:
    found = re.search(pattern, prose, re.MULTILINE)
    assert found is None, prose[max(found.start() - 80, 0) : found.end() + 80]


def test_real_articles_keep_case_punctuation_digits_and_scripts(prose: str) -> None:
    assert prose.startswith(
        "Anarchism originated as a term of abuse first used against early working class radicals"
    )
    assert 'from the Greek αναρχία ("without archons (ruler, chief, king)").' in prose
    assert len(prose) > 1_200_000
    assert clean(prose) == ""
