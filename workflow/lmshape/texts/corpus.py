"""Texts as files: read, and cut into spans to train and to measure on."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from lmshape.errors import InputError

# A span starts at a line's start if one is this near; a text without line ends is cut between two characters.
LINE_SEARCH_CHARACTERS = 10_000


def read_text(path: Path) -> str:
    """Read a UTF-8 text; a last character that a cut at a byte has halved is left out.

    Raises
    ------
    InputError
        When the text is not UTF-8.
    """
    with path.open("rb") as stream:
        return "".join(lines_of(stream))


def span(text: str, start: float, end: float) -> str:
    """Give the part of a text between two fractions of its characters, moved on to the start of a line.

    The cuts depend on their own fraction only: `span(text, 0, 0.9)` and `span(text, 0.9, 1)` share nothing
    and together are the text, which keeps held-out text held out.

    Parameters
    ----------
    text : the whole text
    start, end : fractions of its characters, 0 ≤ start < end ≤ 1

    Raises
    ------
    InputError
        When the fractions are not ordered within 0 and 1.
    """
    if not 0 <= start < end <= 1:
        raise InputError(f"`span` is [{start}, {end}]; it needs 0 <= start < end <= 1.")
    return text[_cut(text, start) : _cut(text, end)]


def lines_of(stream: BinaryIO, bar: tqdm | None = None) -> Iterator[str]:
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


def _cut(text: str, fraction: float) -> int:
    position = round(fraction * len(text))
    if position in (0, len(text)):
        return position
    newline = text.find("\n", position - 1, position + LINE_SEARCH_CHARACTERS)
    return position if newline < 0 else newline + 1
