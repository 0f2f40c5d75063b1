"""What every figure is: what it selects from the study's tables, its panels, and the line below them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from lmshape.figures import layout
from lmshape.figures.style import SCREEN, Page, styled
from lmshape.tables.rows import has_flag, in_order

MOST_NAMED = 4  # checkpoints or models in a line


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """One figure.

    Attributes
    ----------
    title : what the figure shows, in a line
    reads : metrics that `data` asks for; no others are read
    data : select from the study's tables what is drawn
    panels : draw that data, which is all they need
    nothing : the sentence in place of the panels of data without a value, or what finds it: "" where panels are drawn
    """

    title: str
    reads: tuple[str, ...]
    data: Callable[[Mapping[str, pd.DataFrame]], pd.DataFrame]
    panels: Callable[[pd.DataFrame, Page], layout.Picture]
    nothing: str | Callable[[pd.DataFrame], str]

    def draw(self, data: pd.DataFrame, page: Page = SCREEN) -> Figure:
        """Draw what was selected."""
        with styled(page):
            if why := self._why_nothing(data):
                return layout.sentence(why, page, title=self.title)
            return layout.finish(self.panels(data, page), page, title=self.title, footer=footer(data))

    def _why_nothing(self, data: pd.DataFrame) -> str:
        if callable(self.nothing):
            return self.nothing(data)
        return "" if data["value"].notna().any() else self.nothing


def footer(data: pd.DataFrame) -> str:
    """Name the text, and count what is flagged or left out."""
    said = [f"dataset: {', '.join(in_order(data['dataset'].dropna()))}"] if "dataset" in data else []
    if "flag" in data and "value" in data:
        flagged = has_flag(data)
        gaps, numbers = (flagged & data["value"].isna()).sum(), (flagged & data["value"].notna()).sum()
        said += [f"gaps: {gaps} values are not numbers"] * bool(gaps)
        said += [f"open markers: {numbers} values are flagged"] * bool(numbers)
    if "distrusted" in data:
        first = data.dropna(subset="distrusted").drop_duplicates("model")
        named = [f"{row.model} {shortened(row.distrusted)}" for row in first.itertuples() if row.distrusted]
        said += [f"not drawn, since the weights are another step's: {'; '.join(named)}"] * bool(named)
    if "left_out" in data and data["left_out"].fillna("").any():
        said.append(f"not drawn: {shortened(data['left_out'].iloc[0])}")
    return "; ".join(said)


def shortened(names: str) -> str:
    """Name the first few of a list, and count the others."""
    every = names.split(", ")
    more = len(every) - MOST_NAMED
    return ", ".join(every[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
