"""What figures read and write: the study's tables, and a picture, its vector twin and its data."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lmshape.dynamics.loss_logs import read_loss_log
from lmshape.errors import InputError
from lmshape.figures.style import PAPER, styled
from lmshape.tables.files import read_table
from lmshape.writing import replaced_when_whole

PIXELS_PER_INCH = 200


def read_tables(
    tables_dir: Path,
    names: Sequence[str],
    *,
    losses: Mapping[str, Path],
    datasets: Sequence[str] = (),
    metrics: Sequence[str] = (),
) -> dict[str, pd.DataFrame]:
    """Read the tables of these names, and `losses`, those of all runs and logs, with the column `run`.

    Of the table of metrics, read the rows of `metrics` alone: of a hundred checkpoints it has millions. They stand in
    the order of `datasets`; rows of a dataset keep theirs.
    """
    paths = {name: Path(tables_dir) / f"{name}.parquet" for name in names if name != "metrics" or metrics}
    tables = {name: read_table(path, metrics if name == "metrics" else ()) for name, path in paths.items()}
    if datasets and metrics:
        tables["metrics"] = _in_order(tables["metrics"], datasets)
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


def save(figure: Figure, data: pd.DataFrame, output_stem: Path) -> list[Path]:
    """Write picture and data and return the files; they are whole, and the same data gives the same bytes."""
    stem = Path(output_stem)
    files = {end: stem.with_name(f"{stem.name}.{end}") for end in ("png", "svg", "csv")}
    with styled(), ExitStack() as whole:
        partial = {end: whole.enter_context(replaced_when_whole(file)) for end, file in files.items()}
        figure.savefig(partial["png"], format="png", dpi=PIXELS_PER_INCH, metadata={"Software": None})
        figure.set_layout_engine("none")  # that of the PNG stays; to lay out many panels again takes seconds
        # the rasterized parts of the SVG are as sharp as the PNG
        figure.savefig(partial["svg"], format="svg", dpi=PIXELS_PER_INCH, metadata={"Date": None})
        data.to_csv(partial["csv"], index=False)
    return list(files.values())


def save_paper(figure: Figure, output_stem: Path, paper: str) -> list[Path]:
    """Write a figure drawn for a page of `PAPER` as PDF and SVG whose letters are text; return both files."""
    stem = Path(output_stem)
    files = [stem.with_name(f"{stem.name}-{paper}.{end}") for end in ("pdf", "svg")]
    with styled(PAPER[paper]), ExitStack() as whole:
        for file in files:
            partial = whole.enter_context(replaced_when_whole(file))
            date = {"CreationDate": None} if file.suffix == ".pdf" else {"Date": None}
            figure.savefig(partial, format=file.suffix[1:], dpi=PIXELS_PER_INCH, metadata=date)
    return files


def _in_order(metrics: pd.DataFrame, datasets: Sequence[str]) -> pd.DataFrame:
    rank = {name: place for place, name in enumerate(datasets)}
    place = metrics["dataset"].map(rank).fillna(len(rank))
    return metrics.iloc[np.argsort(place, kind="stable")]
