"""The study's figures: tables in; a picture and, beside it, the data drawn out.

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

TABLES = ("metrics", "checkpoints", "profiles")  # that every figure may draw from


@dataclass(frozen=True, slots=True)
class FigureEntry:
    """Where a figure's `Drawing` is defined, and what it is drawn from.

    Attributes
    ----------
    definition : module and name of the `Drawing`
    more_tables : tables that it reads beside `TABLES`
    draws_losses : whether it draws the losses of every step of the pretraining runs
    """

    definition: str
    more_tables: tuple[str, ...] = ()
    draws_losses: bool = False

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


FIGURES = {
    "anisotropy_by_layer": FigureEntry("by_layer.ANISOTROPY"),
    "dimension_by_layer": FigureEntry("by_layer.DIMENSION"),
    "encoders_and_decoders": FigureEntry("kinds.KINDS"),
    "linearity_by_layer": FigureEntry("by_layer.LINEARITY"),
    "anisotropy_over_training": FigureEntry("over_training.ANISOTROPY"),
    "anisotropy_map": FigureEntry("maps.ANISOTROPY"),
    "dimension_over_training": FigureEntry("over_training.DIMENSION"),
    "dimension_map": FigureEntry("maps.DIMENSION"),
    "phases": FigureEntry("phases.PHASES", ("phases",)),
    "dimension_by_scale": FigureEntry("by_scale.NEIGHBORS"),
    "dimension_by_size": FigureEntry("by_scale.ROWS"),
    "spectrum": FigureEntry("spectrum.SPECTRUM", ("spectra",)),
    "sinks": FigureEntry("sinks.SINKS", ("audit",)),
    "clouds": FigureEntry("clouds.CLOUDS", ("clouds",)),
    "controls": FigureEntry("controls.CONTROLS"),
    "spikes": FigureEntry(
        "spikes.SPIKES", ("spikes", "warnings", "alarms", "before_spikes"), draws_losses=True
    ),
    "truncation": FigureEntry("truncation.TRUNCATION", ("truncation", "truncation_ranks")),
}


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
    tables_dir : folder of the figure's tables as .parquet
    output_stem : path of the three files without their suffix
    losses : the loss of every step of each pretraining run, as CSV; empty when the study pretrains nothing
    datasets : the study's datasets in its order, its text first; without them the order of the table

    Raises
    ------
    InputError
        For a name that is not a figure's, and for a table that does not exist.
    """
    from lmshape.figures.files import read_tables, save

    if name not in FIGURES:
        raise unknown("figure", name, FIGURES)
    figure = FIGURES[name].load()
    tables = read_tables(
        tables_dir, FIGURES[name].tables, losses=losses, datasets=datasets, metrics=figure.reads
    )
    data = figure.data(tables)
    save(figure.draw(data), data, output_stem)
