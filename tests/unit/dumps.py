"""A Wikipedia dump in memory, cleaned as `clean_file` does it."""

from __future__ import annotations

import io

from lmshape.texts.corpus import articles


def clean(dump: str) -> str:
    return "".join(articles(io.StringIO(dump)))
