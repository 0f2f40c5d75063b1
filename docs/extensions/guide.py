"""`configuration-guide`: config/README.md as a page, its tables of keys written from the schemas."""

from __future__ import annotations

import re
from pathlib import Path

from generated import Generated
from keys import table_of_keys

README = Path(__file__).parents[2] / "config/README.md"
TABLE = re.compile(r"^\| key \| default \| meaning \|\n(?:\|.*\n)+", re.MULTILINE)
FILES = ("config", "models", "datasets")  # in the order of their tables in the README
LINK = re.compile(r"\]\((?![a-z]+:|#)")


class ConfigurationGuide(Generated):
    """All of config/README.md but its title: the `introduction`, or the `sections` behind it."""

    def markdown(self, name: str) -> str:
        """Put the schemas' tables for the README's, and let its links lead where they lead from there."""
        _, _, text = README.read_text(encoding="utf-8").partition("\n")
        introduction, first, rest = text.partition("\n## ")
        files = iter(FILES)
        sections = TABLE.sub(lambda _: table_of_keys(next(files)), first + rest)
        return LINK.sub("](../../config/", introduction if name == "introduction" else sections)
