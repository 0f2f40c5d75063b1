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
from lmshape.writing.atomic import replaced_when_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TABLES = ("metrics", "checkpoints", "profiles")
# That some figures draw from, where they are there.
MORE_TABLES = (
    "audit",
    "phases",
    "spectra",
    "clouds",
    "spikes",
    "warnings",
    "alarms",
    "before_spikes",
    "truncation",
    "truncation_ranks",
)
PIXELS_PER_INCH = 200


def read_tables(
    tables_dir: Path, *, losses: Mapping[str, Path], datasets: Sequence[str] = (), metrics: Sequence[str] = ()
) -> dict[str, pd.DataFrame]:
    """Read what figures draw from: the study's tables, and `losses`, of all runs, with the column `run`.

    Of the table of metrics, the rows of `metrics` alone, or all: of a hundred checkpoints it has millions.
    """
    chosen = {"metrics": metrics}
    tables = {name: read_table(Path(tables_dir) / f"{name}.parquet", chosen.get(name, ())) for name in TABLES}
    more = {name: Path(tables_dir) / f"{name}.parquet" for name in MORE_TABLES}
    tables |= {name: read_table(path) for name, path in more.items() if path.is_file()}
    if datasets:
        tables["metrics"] = _in_order(tables["metrics"], datasets)
    runs = [pd.read_csv(path).assign(run=run) for run, path in losses.items()]
    none = pd.DataFrame(columns=["run", "step", "loss"])
    return tables | {"losses": pd.concat(runs, ignore_index=True) if runs else none}


def read_table(path: Path, metrics: Sequence[str] = ()) -> pd.DataFrame:
    """Read one of the study's tables, all of it or some `metrics`; one that does not exist is refused by name."""
    if not path.is_file():
        raise InputError(
            f"`{path}` does not exist; figures and report need it. Make the tables first: `lmshape tables`."
        )
    return pd.read_parquet(path, filters=[("metric", "in", list(metrics))] if metrics else None)


def save(figure: Figure, data: pd.DataFrame, output_stem: Path) -> None:
    """Write picture and data; files that exist are whole, and the same data gives the same bytes."""
    stem = Path(output_stem)
    with styled(), ExitStack() as files:
        partial = {
            end: files.enter_context(replaced_when_whole(stem.with_name(f"{stem.name}.{end}")))
            for end in ("png", "svg", "csv")
        }
        figure.savefig(partial["png"], format="png", dpi=PIXELS_PER_INCH, metadata={"Software": None})
        figure.set_layout_engine("none")  # as the picture's; to lay out many panels again takes seconds
        # what is of pixels in the vector file is as sharp as in the picture
        figure.savefig(partial["svg"], format="svg", dpi=PIXELS_PER_INCH, metadata={"Date": None})
        data.to_csv(partial["csv"], index=False)


def _in_order(metrics: pd.DataFrame, datasets: Sequence[str]) -> pd.DataFrame:
    """Put the rows of `metrics` in the order of `datasets`; rows of a dataset keep theirs."""
    rank = {name: place for place, name in enumerate(datasets)}
    place = metrics["dataset"].map(rank).fillna(len(rank))
    return metrics.iloc[np.argsort(place, kind="stable")]
