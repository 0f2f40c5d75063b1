"""The study's figures: from tables to pictures and the data drawn.

`FIGURES` lists them in the order of the report. A new figure is a module with a `Drawing`, an entry in `FIGURES` and a
caption in workflow/report. The workflow reads this list each time it starts, so nothing here imports pandas or
matplotlib before a figure is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from lmshape.errors import unknown

if TYPE_CHECKING:
    from lmshape.figures.drawing import Drawing

TABLES = ("metrics", "checkpoints")  # that every figure may draw from


@dataclass(frozen=True, slots=True)
class FigureEntry:
    """Where a figure's `Drawing` is defined, and what it is drawn from.

    Attributes
    ----------
    definition : module and name of the `Drawing`
    more_tables : tables that it reads beside `TABLES`
    draws_losses : whether it draws the losses of every step of the pretraining runs
    of_each_model : whether it is drawn of each model by itself, too, as soon as that is measured; from `TABLES` alone
    """

    definition: str
    more_tables: tuple[str, ...] = ()
    draws_losses: bool = False
    of_each_model: bool = False

    @property
    def code(self) -> str:
        """Dotted name of the definition, for the fingerprint of its code."""
        return f"{__name__}.{self.definition}"

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the tables that the figure reads."""
        return (*TABLES, *self.more_tables)

    def load(self) -> Drawing:
        """Import the definition."""
        module, _, name = self.code.rpartition(".")
        return getattr(import_module(module), name)


# In the order of a reader's questions.
FIGURES = {
    "cone": FigureEntry("by_layer.CONE_FIGURE"),
    "anisotropy_by_layer": FigureEntry("by_layer.ANISOTROPY", of_each_model=True),
    "anisotropy_over_training": FigureEntry("over_training.ANISOTROPY", of_each_model=True),
    "dimension_by_layer": FigureEntry("by_layer.DIMENSION", of_each_model=True),
    "dimension_over_training": FigureEntry("over_training.DIMENSION", of_each_model=True),
    "phases": FigureEntry("phases.PHASES", ("phases",)),
    "sinks": FigureEntry("sinks.SINKS"),
    "linearity_by_layer": FigureEntry("by_layer.LINEARITY"),
    "truncation": FigureEntry("truncation.TRUNCATION", ("truncation_ranks",)),
    "losses": FigureEntry("spikes.LOSSES", ("spikes",), draws_losses=True),
    "warnings": FigureEntry("spikes.WARNINGS", ("warnings", "before_spikes")),
    "anisotropy_map": FigureEntry("over_training.ANISOTROPY_MAP"),
    "dimension_map": FigureEntry("over_training.DIMENSION_MAP"),
    "dimension_by_scale": FigureEntry("by_scale.NEIGHBORS"),
    "dimension_by_size": FigureEntry("by_scale.ROWS"),
    "controls": FigureEntry("controls.CONTROLS"),
}


def render(
    name: str,
    source: Path,
    *,
    output_stem: Path,
    losses: Mapping[str, Path],
    datasets: Sequence[str] = (),
    paper: str = "",
) -> list[Path]:
    """Draw a figure into `output_stem` + .png, .svg and .csv (the data drawn), each whole or absent; return the files.

    Parameters
    ----------
    name : one of `FIGURES`
    source : folder of the figure's tables as .parquet; or the metrics of one model, of which alone it is drawn
    output_stem : path of the three files without their suffix
    losses : the training losses of each run, as `lmshape.dynamics.loss_logs` reads them; may be empty
    datasets : the study's datasets in its order, its text first; without them the order of the table
    paper : "1col" or "2col": for a column or the width of a page, without title, as `output_stem`-1col.pdf and .svg
        whose letters are text

    Raises
    ------
    InputError
        For a name that is not a figure's or a paper's, for a table that does not exist, and for a figure of one model
        that needs tables of the whole study.
    """
    from lmshape.figures.drawing import read_tables, save, save_paper
    from lmshape.figures.style import PAPER

    if name not in FIGURES:
        raise unknown("figure", name, FIGURES)
    if paper and paper not in PAPER:
        raise unknown("paper", paper, PAPER)
    figure = FIGURES[name].load()
    tables = read_tables(source, FIGURES[name].tables, losses=losses, datasets=datasets, metrics=figure.reads)
    data = figure.data(tables)
    if paper:
        return save_paper(figure.draw(data, PAPER[paper]), output_stem, paper)
    return save(figure.draw(data), data, output_stem)
