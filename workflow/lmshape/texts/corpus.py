"""A text as a file: read, freed of Wikipedia's markup, and cut into spans to train and to measure on.

What is left of a Wikipedia dump follows Mahoney's filter for text8 (http://mattmahoney.net/dc/textdata), but keeps
case, punctuation, digits, paragraphs and every script:

1. Only the `<text>` of articles: no other namespace ("Wikipedia:…"), no redirects.
2. Comments, references, formulas, galleries and timelines go, with their content.
3. Templates `{{…}}`, tables `{|…|}` and `<table>…</table>` go, however nested.
4. Links become their label; images, files, categories and links to the article in another language go.
   External links become their label, or nothing.
5. Other tags go and their content stays; bold, italic and list marks go; headings become plain lines.
6. Entities become characters; runs of spaces become one, runs of blank lines one; brackets that the page
   never closes go, and so do stray table rows.

Every article ends with a blank line, and in a file with `DOCUMENT_END`. Deterministic; about 7 MB/s.
"""

from __future__ import annotations

import codecs
import html
import re
from collections.abc import Callable, Iterable, Iterator
from gzip import GzipFile
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO
from xml.sax.saxutils import unescape

from tqdm import tqdm

from lmshape.errors import InputError
from lmshape.progress import progress
from lmshape.writing import replaced_when_whole

# Behind each document of a text file that knows its documents: ASCII's record separator, no part of the text.
DOCUMENT_END = "\x1e"
PACKED = (".gz", ".xz", ".zip", ".jsonl", ".parquet")  # files that hold a text, but not as it is
# A span starts at a line's start if one is this near; a text without line ends is cut between two characters.
LINE_SEARCH_CHARACTERS = 10_000

Replacement = tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]

NAMESPACES = frozenset(
    "category file help image media mediawiki portal special talk template user wikipedia".split()
)
DROPPED_LINKS = frozenset({"category", "file", "image", "media"})

TITLE = re.compile(r"<title>(.*?)</title>")
TEXT_ELEMENT = re.compile(r"<text\b[^>]*(?<!/)>(.*?)(</text>|\Z)", re.DOTALL)
REDIRECT = re.compile(r"\s*#redirect", re.IGNORECASE)

COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
# Elements whose content is not prose. The self-closing form goes first, it has no end to look for; the other
# looks no further than the next tag of its name, or a page of unclosed ones would take quadratic time.
SILENT = "gallery|hiero|imagemap|math|ref|references|timeline"
ELEMENT = re.compile(
    rf"<(?:{SILENT})\b[^>]*/>|<({SILENT})\b[^>]*>[^<]*(?:<(?!/?\1\b)[^<]*)*</\1\s*>", re.IGNORECASE
)
BLOCK_TAG = re.compile(r"</?(?:blockquote|br|center|dd|div|dl|dt|h[1-6]|hr|li|ol|p|pre|ul)\b[^<>]*>", re.I)
TAG = re.compile(r"</?[a-z][^<>]*>", re.IGNORECASE)

# Innermost brackets only: a single brace or bracket inside is text, a double one would be another pair.
TEMPLATE_CALL = re.compile(r"\{\{[^{}]*(?:\{(?!\{)[^{}]*|\}(?!\})[^{}]*)*\}\}")
TABLE = re.compile(r"^[ \t:]*\{\|(?:(?!^[ \t:]*\{\|).)*?^[ \t]*\|\}", re.DOTALL | re.MULTILINE)
HTML_TABLE = re.compile(r"<table\b(?:(?!<table\b).)*?</table\s*>", re.DOTALL | re.IGNORECASE)
LINK = re.compile(r"\[\[([^\[\]]*(?:\[(?!\[)[^\[\]]*|\](?!\])[^\[\]]*)*)\]\]")
ADDRESS = r"(?:https?|ftp|gopher|irc|mailto|news):[^\s\[\]]*"
BARE_ADDRESS = re.compile(rf"[ \t]*\[{ADDRESS}\s*\]")
LABELED_ADDRESS = re.compile(rf"\[{ADDRESS}\s+([^\[\]]*(?:\[[^\[\]]*\][^\[\]]*)*)\]")
INTERLANGUAGE = re.compile(r"[a-z]{2,3}(?:-[a-z-]+)?|simple|tokipona")

LINE_RULES = (
    (re.compile(r"__[A-Z]{3,}__"), ""),  # switches such as __NOTOC__
    (re.compile(r"'{2,5}"), ""),  # bold and italic
    (re.compile(rf"\[\[|\]\]|\{{\{{|\}}\}}|\{{\||\|\}}|\[{ADDRESS}"), ""),  # brackets that were never closed
    (re.compile(r"[^\S\n]+"), " "),  # also the no-break space
    (re.compile(r" ?\n ?"), "\n"),
    (re.compile(r"^={1,6} ?(.*?) ?={1,6}$", re.MULTILINE), r"\1"),  # headings
    (re.compile(r"^(?:(?:[*#:;]+ ?)+|-{4,} ?|\|.*$)", re.MULTILINE), ""),  # lists, rules, stray table rows
    (re.compile(r" \([ ,;:]*\)"), ""),  # parentheses that held only a template
    (re.compile(r"\n{3,}"), "\n\n"),
)


def read_text(path: Path) -> str:
    """Read a UTF-8 text without `DOCUMENT_END`; a last character that a cut at a byte has halved is left out.

    Raises
    ------
    InputError
        When the text is not UTF-8.
    """
    return "".join(_documents(path))


def read_span(path: Path, start: float, end: float) -> tuple[str, list[int] | None]:
    """Read a span of a text, as `span` of `read_text`, and the characters of it at which a document begins.

    The first document, which may have begun before, is not among them; None where the file has no `DOCUMENT_END`.
    """
    documents = _documents(path)
    text = "".join(documents)
    first, last = _cut(text, start), _cut(text, end)
    begins = [place - first for place in accumulate(map(len, documents)) if first < place < last]
    return text[first:last], begins if len(documents) > 1 else None


def _documents(path: Path) -> list[str]:
    with path.open("rb") as stream:
        return "".join(lines_of(stream)).split(DOCUMENT_END)


def span(text: str, start: float, end: float) -> str:
    """Give the part of a text between two fractions of its characters, moved on to the start of a line.

    The cuts depend on their own fraction only: `span(text, 0, 0.9)` and `span(text, 0.9, 1)` share nothing
    and together are the text, which keeps held-out text held out.

    Parameters
    ----------
    text : the whole text
    start, end : fractions of its characters, 0 ≤ start < end ≤ 1
    """
    return text[_cut(text, start) : _cut(text, end)]


def checked_span(span: list[float], *, where: str) -> tuple[float, float]:
    """Share of a text, from and to.

    Raises
    ------
    InputError
        When it ends before it begins.
    """
    first, last = map(float, span)
    if first >= last:
        raise InputError(f"`{where}` = {span}: must end after it begins. Write it as in [0.9, 1.0].")
    return first, last


def clean_file(source: Path, destination: Path) -> None:
    """Write the prose of a Wikipedia dump, one page at a time.

    Raises
    ------
    InputError
        When the text is not UTF-8 or holds no article.
    """
    with (
        replaced_when_whole(destination) as partial,
        partial.open("wb") as output,
        source.open("rb") as stream,
    ):
        size = source.stat().st_size
        with progress(size, description=source.name, unit="B") as bar:
            for article in articles(lines_of(stream, bar)):
                output.write(f"{article}{DOCUMENT_END}".encode())
        if not output.tell():
            raise InputError(
                f"`{source}` holds no Wikipedia article in <page><text>…; set `clean: false` for a text that "
                "is plain already."
            )


def lines_of(stream: BinaryIO | GzipFile, bar: tqdm | None = None) -> Iterator[str]:
    """Decode a stream of UTF-8 line by line, counting bytes on `bar`."""
    try:
        for line in stream:
            # final=False: half a character at the end of the file is left out; anywhere else it is an error.
            yield codecs.utf_8_decode(line, "strict", False)[0]
            if bar is not None:
                bar.update(len(line))
    except UnicodeDecodeError as error:
        raise InputError(
            f"`{stream.name}` is not UTF-8 ({error.reason}, byte {line[error.start]:#04x}); convert it, for "
            "instance with `iconv -t utf-8`."
        ) from error


def articles(lines: Iterable[str]) -> Iterator[str]:
    """Yield the prose of a dump's articles one after the other, each with the blank line that ends it."""
    for page in pages(lines):
        if prose := clean_page(page):
            yield f"{prose}\n\n"


def pages(lines: Iterable[str]) -> Iterator[str]:
    """Cut the lines of a dump after every `</page>`; the last page may be cut in the middle."""
    page: list[str] = []
    for line in lines:
        page.append(line)
        if line.strip() == "</page>":
            yield "".join(page)
            page = []
    yield "".join(page)


def clean_page(page: str) -> str:
    """Give the prose of one page of the dump, "" when the page is not an article.

    A page that ends before its `</text>` loses its last line, which an excerpt has cut.
    """
    title, text = TITLE.search(page), TEXT_ELEMENT.search(page)
    if text is None or REDIRECT.match(text[1]) or (title is not None and _is_meta(title[1])):
        return ""
    markup = text[1] if text[2] else text[1].rpartition("\n")[0]
    return clean_markup(unescape(markup, {"&quot;": '"'}))


def clean_markup(markup: str) -> str:
    """Give the prose of one article's wikitext by the rules 2 to 6 of this module."""
    text = _apply(markup, ((COMMENT, ""), (ELEMENT, "")))
    text = _until_stable(text, (TEMPLATE_CALL, ""))
    text = _until_stable(text, (TABLE, ""), (HTML_TABLE, ""))
    text = _until_stable(text, (LINK, _label), (BARE_ADDRESS, ""), (LABELED_ADDRESS, r"\1"))
    text = _apply(text, ((BLOCK_TAG, "\n"), (TAG, "")))
    # Entities after tags: "&lt;iostream&gt;" is text that only looks like a tag once it is decoded.
    return _apply(html.unescape(text), LINE_RULES).strip()


def _cut(text: str, fraction: float) -> int:
    position = round(fraction * len(text))
    if position in (0, len(text)):
        return position
    newline = text.find("\n", position - 1, position + LINE_SEARCH_CHARACTERS)
    return position if newline < 0 else newline + 1


def _is_meta(title: str) -> bool:
    namespace, colon, _ = title.lower().partition(":")
    return bool(colon) and namespace.removesuffix(" talk") in NAMESPACES


def _until_stable(text: str, *rules: Replacement) -> str:
    """Apply the rules over and over, from the innermost brackets outwards; each change shortens the text."""
    before = ""
    while text != before:
        before = text
        text = _apply(text, rules)
    return text


def _apply(text: str, rules: Iterable[Replacement]) -> str:
    for pattern, replacement in rules:
        text = pattern.sub(replacement, text)
    return text


def _label(link: re.Match[str]) -> str:
    target, *labels = link[1].split("|")
    prefix, colon, _ = target.strip().partition(":")
    if colon and (prefix.strip().lower() in DROPPED_LINKS or INTERLANGUAGE.fullmatch(prefix)):
        return ""
    return (labels[-1] if labels and labels[-1] else target).strip().removeprefix(":")
