"""The study's figures: tables in; one picture and, beside it, the data drawn out.

Each figure is a module with `TITLE`, `data(tables) -> DataFrame`, which selects from the study's tables
exactly what is drawn, and `draw(data) -> Figure`, which needs nothing else: a reader sees what the CSV file
holds. `READS`, if it has it, names the metrics that `data` asks for, so that no others are read. A new figure is a
new module, its name in `names` and its caption in workflow/report.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from lmshape.errors import unknown
from lmshape.figures.names import DRAW_LOSSES, NAMES, TABLES_OF

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class FigureEntry:
    """One figure: its name, which is that of its module, of its files and of its caption."""

    name: str

    @property
    def tables(self) -> tuple[str, ...]:
        return TABLES_OF.get(self.name, ())

    @property
    def draws_losses(self) -> bool:
        return self.name in DRAW_LOSSES

    @property
    def code(self) -> tuple[str, ...]:
        return (f"lmshape.figures.{self.name}",)

    @property
    def title(self) -> str:
        """What the figure shows, in a line."""
        return import_module(f"{__name__}.{self.name}").TITLE

    @property
    def reads(self) -> tuple[str, ...]:
        """Give the metrics that the figure draws from; none where it says none, and is given all."""
        return getattr(import_module(f"{__name__}.{self.name}"), "READS", ())

    @property
    def data(self) -> Callable[[Mapping[str, pd.DataFrame]], pd.DataFrame]:
        """Select what is drawn from the tables."""
        return import_module(f"{__name__}.{self.name}").data

    @property
    def draw(self) -> Callable[[pd.DataFrame], Figure]:
        """Draw what was selected."""
        return import_module(f"{__name__}.{self.name}").draw


FIGURES = {name: FigureEntry(name) for name in NAMES}


def render(
    name: str,
    tables_dir: Path,
    *,
    output_stem: Path,
    losses: Mapping[str, Path],
    datasets: Sequence[str] = (),
) -> None:
    """Draw a figure into `output_stem` + .png, .svg and .csv (the data drawn), each whole or absent.

    Parameters
    ----------
    name : one of `FIGURES`
    tables_dir : folder of metrics.parquet, checkpoints.parquet and profiles.parquet, and of the figure's `TABLES_OF`
    output_stem : path of the three files without their suffix
    losses : the loss of every step of each pretraining run, as CSV; empty when the study pretrains nothing
    datasets : the study's datasets in its order, its text first; without them the order of the table

    Raises
    ------
    InputError
        For a name that is not a figure's, and for a table that does not exist.
    """
    # here, not above: the workflow imports `names` through this package each time it reads its rules
    from lmshape.figures.files import read_tables, save

    if name not in FIGURES:
        raise unknown("figure", name, FIGURES)
    figure = FIGURES[name]
    tables = read_tables(
        tables_dir, losses=losses, more=TABLES_OF.get(name, ()), datasets=datasets, metrics=figure.reads
    )
    data = figure.data(tables)
    save(figure.draw(data), data, output_stem)
