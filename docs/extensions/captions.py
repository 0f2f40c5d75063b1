"""`figure-caption`: the caption of a figure of the study, as the report has it."""

from __future__ import annotations

from pathlib import Path

from generated import Generated

from lmshape.figures import FIGURES

CAPTIONS = Path(__file__).parents[2] / "workflow/report"


class FigureCaption(Generated):
    """Title and caption of every figure."""

    required_arguments = 0

    def markdown(self, name: str) -> str:
        """Write a section for each figure; captions are reStructuredText, of which these use nothing but paragraphs."""
        return "\n".join(_section(figure) for figure in FIGURES)


def _section(figure: str) -> str:
    caption = (CAPTIONS / f"{figure}.rst").read_text(encoding="utf-8")
    return f"### `{figure}`\n\n**{FIGURES[figure].load().title}**\n\n{caption}\n"
