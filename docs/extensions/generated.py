"""What the directives share: text in, the page's own markup out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar

from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from docutils.nodes import Node


class Generated(SphinxDirective):
    """A directive of one argument whose content is Markdown that `markdown` makes."""

    required_arguments = 1
    has_content = False
    option_spec: ClassVar[dict] = {}

    def markdown(self, name: str) -> str:
        """Write the Markdown for the argument."""
        raise NotImplementedError

    def run(self) -> list[Node]:
        """Parse what `markdown` writes as if it stood in the page.

        MyST puts sections where the directive stands, and what stands before the first of them behind the last: a
        text is sections or has none.
        """
        return self.parse_text_to_nodes(self.markdown(" ".join(self.arguments)), allow_section_headings=True)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a Markdown table; bars within cells are escaped."""
    lines = [_line(heads), _line(["---"] * len(heads)), *(_line(map(_cell, row)) for row in rows)]
    return "\n".join(lines) + "\n"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    # a * that stands alone would begin emphasis
    return " ".join(text.split()).replace("|", r"\|").replace("*", r"\*")
