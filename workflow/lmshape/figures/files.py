"""What figures read and write: the study's tables, and a picture, its vector twin and its data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lmshape.figures.style import styled
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
    """Read the tables of these names, and `losses`, those of all runs, with the column `run`.

    Of the table of metrics, read the rows of `metrics` alone, or all: of a hundred checkpoints it has millions. They
    stand in the order of `datasets`; rows of a dataset keep theirs.
    """
    paths = {name: Path(tables_dir) / f"{name}.parquet" for name in names}
    tables = {name: read_table(path, metrics if name == "metrics" else ()) for name, path in paths.items()}
    if datasets:
        tables["metrics"] = _in_order(tables["metrics"], datasets)
    runs = [pd.read_csv(path).assign(run=run) for run, path in losses.items()]
    none = pd.DataFrame(columns=["run", "step", "loss"])
    return tables | {"losses": pd.concat(runs, ignore_index=True) if runs else none}


def save(figure: Figure, data: pd.DataFrame, output_stem: Path) -> None:
    """Write picture and data; files that exist are whole, and the same data gives the same bytes."""
    stem = Path(output_stem)
    with styled(), ExitStack() as files:
        partial = {
            end: files.enter_context(replaced_when_whole(stem.with_name(f"{stem.name}.{end}")))
            for end in ("png", "svg", "csv")
        }
        figure.savefig(partial["png"], format="png", dpi=PIXELS_PER_INCH, metadata={"Software": None})
        figure.set_layout_engine("none")  # that of the PNG stays; to lay out many panels again takes seconds
        # the rasterized parts of the SVG are as sharp as the PNG
        figure.savefig(partial["svg"], format="svg", dpi=PIXELS_PER_INCH, metadata={"Date": None})
        data.to_csv(partial["csv"], index=False)


def _in_order(metrics: pd.DataFrame, datasets: Sequence[str]) -> pd.DataFrame:
    rank = {name: place for place, name in enumerate(datasets)}
    place = metrics["dataset"].map(rank).fillna(len(rank))
    return metrics.iloc[np.argsort(place, kind="stable")]
