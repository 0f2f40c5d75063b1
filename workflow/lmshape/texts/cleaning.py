"""Cleaning of whole files: the prose of a Wikipedia dump, a page at a time."""

from __future__ import annotations

from pathlib import Path

from lmshape.errors import InputError
from lmshape.progress import progress
from lmshape.texts.corpus import lines_of
from lmshape.texts.wikitext import articles
from lmshape.writing.atomic import replaced_when_whole


def clean_file(source: Path, destination: Path) -> None:
    """Write the prose of a Wikipedia dump, by the rule of `lmshape.texts.wikitext.clean`, one page at a time.

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
                output.write(article.encode())
        if not output.tell():
            raise InputError(
                f"`{source}` holds no Wikipedia article in <page><text>…; set `clean: false` for a text that "
                "is plain already."
            )
