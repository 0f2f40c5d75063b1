"""Intrinsic dimension against the number of rows: TwoNN on all, half, a quarter and an eighth of a draw's rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from lmshape.figures import scale_panels
from lmshape.metrics.neighbor import DECIMATIONS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Intrinsic dimension by number of rows"
SCALES = {"id_twonn": 1, **{f"id_twonn_decimated_{part}": part for part in DECIMATIONS}}
READS = (*SCALES, "id_twonn_surrogate")


def data(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Select TwoNN on parts of the rows of each block at each model's last checkpoint on its first dataset.

    One row in `scale` is taken of a draw's; `null` stands beside all of them.
    """
    return scale_panels.at_scales(tables["metrics"], SCALES)


def draw(data: pd.DataFrame) -> Figure:
    """Draw a panel for each model and choice of rows; a line for each block, all rows at the right."""
    view = scale_panels.ScaleView(
        title=TITLE,
        nothing="This study has TwoNN's dimension of a block at no two numbers of rows.",
        label="rows of a draw (log scale)",
        tick=_share,
        finest_at_right=True,
        notes=_notes,
    )
    return scale_panels.draw(data, view)


def _share(part: int) -> str:
    return "n" if part == 1 else f"n/{part}"


def _notes(data: pd.DataFrame) -> Sequence[str]:
    unique = (data["n_unique"] / data["draws"]).round()
    most = f" (at most {unique.max():.0f})" if unique.notna().any() else ""
    null = " The Gaussian's is measured at n alone." if data["null"].notna().any() else ""
    return [
        f"TwoNN on random parts of the n unique rows of each draw{most}: fewer rows lie further apart. A line that"
        f" still rises at n has not arrived.{null}"
    ]
