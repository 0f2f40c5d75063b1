"""What figures read and write: the study's tables, and a picture, its vector twin and its data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lmshape.errors import InputError
from lmshape.figures.style import styled
from lmshape.store import replaced_when_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TABLES = ("metrics", "checkpoints", "profiles")
PIXELS_PER_INCH = 200


def read_tables(
    tables_dir: Path, *, losses: Mapping[str, Path], datasets: Sequence[str] = ()
) -> dict[str, pd.DataFrame]:
    """Read what figures draw from: the study's tables, and `losses`, of all runs, with the column `run`."""
    tables = {name: read_table(Path(tables_dir) / f"{name}.parquet") for name in TABLES}
    if datasets:
        tables["metrics"] = _in_order(tables["metrics"], datasets)
    runs = [pd.read_csv(path).assign(run=run) for run, path in losses.items()]
    none = pd.DataFrame(columns=["run", "step", "loss"])
    return tables | {"losses": pd.concat(runs, ignore_index=True) if runs else none}


def read_table(path: Path) -> pd.DataFrame:
    """Read one of the study's tables; one that does not exist is refused by name."""
    if not path.is_file():
        raise InputError(
            f"`{path}` does not exist; figures and report need it. Make the tables first: `lmshape tables`."
        )
    return pd.read_parquet(path)


def save(figure: Figure, data: pd.DataFrame, output_stem: Path) -> None:
    """Write picture and data; files that exist are whole, and the same data gives the same bytes."""
    stem = Path(output_stem)
    with styled(), ExitStack() as files:
        partial = {
            end: files.enter_context(replaced_when_whole(stem.with_name(f"{stem.name}.{end}")))
            for end in ("png", "svg", "csv")
        }
        figure.savefig(partial["png"], format="png", dpi=PIXELS_PER_INCH, metadata={"Software": None})
        figure.savefig(partial["svg"], format="svg", metadata={"Date": None})
        data.to_csv(partial["csv"], index=False)


def _in_order(metrics: pd.DataFrame, datasets: Sequence[str]) -> pd.DataFrame:
    """Put the rows of `metrics` in the order of `datasets`; rows of a dataset keep theirs."""
    rank = {name: place for place, name in enumerate(datasets)}
    place = metrics["dataset"].map(rank).fillna(len(rank))
    return metrics.iloc[np.argsort(place, kind="stable")]
