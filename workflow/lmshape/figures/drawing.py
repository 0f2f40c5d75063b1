"""What every figure is: what it selects from the study's tables, its panels, and the sentences under them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from lmshape.figures import layout
from lmshape.figures.style import styled
from lmshape.tables.rows import in_order


def _no_row(data: pd.DataFrame) -> bool:
    return data.empty


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """One figure.

    Attributes
    ----------
    title : what the figure shows, in a line
    reads : metrics that `data` asks for; no others are read
    data : select from the study's tables exactly what is drawn
    panels : lay out and draw that data, which is all they need: a reader finds it in the figure's CSV file
    notes : sentences under the panels; those that are empty are left out
    nothing : sentence in place of the panels where there is nothing to draw, which `lacks` tells
    heading : the title as drawn, from `title` and the names of the `datasets`
    crowds : whether panels are small, and so are letters, where models are many
    """

    title: str
    reads: tuple[str, ...]
    data: Callable[[Mapping[str, pd.DataFrame]], pd.DataFrame]
    panels: Callable[[pd.DataFrame], Figure]
    notes: Callable[[pd.DataFrame], Iterable[str]]
    nothing: str
    lacks: Callable[[pd.DataFrame], bool] = _no_row
    heading: str = "{title}, {datasets}"
    crowds: bool = True

    def draw(self, data: pd.DataFrame) -> Figure:
        """Draw what was selected."""
        with styled(crowded=self.crowds and layout.crowded(in_order(data["model"]))):
            if self.lacks(data):
                return layout.empty_figure(title=self.title, note=self.nothing)
            figure = self.panels(data)
            datasets = in_order(data["dataset"].dropna()) if "dataset" in data else []
            title = self.heading.format(title=self.title, datasets=", ".join(datasets))
            layout.finish(figure, title=title, notes=list(self.notes(data)))
            return figure
