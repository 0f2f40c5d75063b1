"""A figure: the tables that it reads, its panels and footer, and its files: PNG, SVG and the data drawn."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from lmshape.dynamics.loss_logs import read_loss_log
from lmshape.errors import InputError
from lmshape.figures import layout
from lmshape.figures.style import PAPER, SCREEN, Page, styled
from lmshape.tables.columns import read_table
from lmshape.tables.rows import by_dataset, has_flag, in_order
from lmshape.writing import replaced_when_whole

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


# Reading the study's tables, and writing PNG, SVG and the data drawn

PIXELS_PER_INCH = 200


def read_tables(
    source: Path,
    names: Sequence[str],
    *,
    losses: Mapping[str, Path],
    datasets: Sequence[str] = (),
    metrics: Sequence[str] = (),
) -> dict[str, pd.DataFrame]:
    """Read the tables of these names, and `losses`, those of all runs and logs, with the column `run`.

    `source` is the folder of the study's tables, or the table of one model, which stands for `metrics` and
    `checkpoints`. Of the table of metrics, read the rows of `metrics` alone: of a hundred checkpoints it has millions.
    They stand in the order of `datasets`; rows of a dataset keep theirs.
    """
    if source.suffix == ".parquet":
        from lmshape.tables.study_tables import tables_of_model  # imports what the dynamics of a study need

        if lacking := set(names) - {"metrics", "checkpoints"}:
            raise InputError(
                f"`{', '.join(sorted(lacking))}` is a table of whole studies: no model has this figure alone."
            )
        tables = tables_of_model(source, metrics)
    else:
        paths = {name: source / f"{name}.parquet" for name in names if name != "metrics" or metrics}
        tables = {
            name: read_table(path, metrics if name == "metrics" else ()) for name, path in paths.items()
        }
    if datasets and metrics:
        tables["metrics"] = by_dataset(tables["metrics"], datasets)
    return tables | {"losses": read_losses(losses)}


def read_losses(files: Mapping[str, Path]) -> pd.DataFrame:
    """Read the loss curves of runs and logs; one that is not a log is named and left out, as in the table `spikes`."""
    curves = [pd.DataFrame(columns=["run", "step", "loss"])]
    for name, path in files.items():
        try:
            curves += [curve.assign(run=run) for run, curve in read_loss_log(path, name=name)]
        except InputError as error:
            print(f"`{name}`: {error}", file=sys.stderr)
    return pd.concat(curves[1:] or curves, ignore_index=True)


# so that the same data gives the same bytes
UNDATED: Mapping[str, dict[str, str | None]] = {
    "png": {"Software": None},
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
}


def save(figure: Figure, data: pd.DataFrame, output_stem: Path) -> list[Path]:
    """Write picture and data and return the files; they are whole, and the same data gives the same bytes."""
    files = _save_pictures(figure, output_stem, ("png", "svg"), SCREEN)
    table = files[0].with_suffix(".csv")
    with replaced_when_whole(table) as partial:
        data.to_csv(partial, index=False)
    return [*files, table]


def save_paper(figure: Figure, output_stem: Path, paper: str) -> list[Path]:
    """Write a figure drawn for a page of `PAPER` as PDF and SVG whose letters are text; return both files."""
    stem = output_stem.with_name(f"{output_stem.name}-{paper}")
    return _save_pictures(figure, stem, ("pdf", "svg"), PAPER[paper])


def _save_pictures(figure: Figure, stem: Path, formats: Sequence[str], page: Page) -> list[Path]:
    files = [stem.with_name(f"{stem.name}.{name}") for name in formats]
    with styled(page):
        for name, file in zip(formats, files, strict=True):
            with replaced_when_whole(file) as partial:
                # the rasterized parts of SVG and PDF are as sharp as the PNG
                figure.savefig(partial, format=name, dpi=PIXELS_PER_INCH, metadata=UNDATED[name])
            if name == "png":  # its layout stays: to lay out many panels again takes seconds
                figure.set_layout_engine("none")
    return files
