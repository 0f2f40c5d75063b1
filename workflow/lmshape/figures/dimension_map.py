"""Intrinsic dimension of every block at every step of training, as a map of colors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from lmshape.figures import maps, marks, selection
from lmshape.figures.maps import with_peaks
from lmshape.tables.rows import first_dataset, trajectories

if TYPE_CHECKING:
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

TITLE = "Intrinsic dimension, layer by step of training"
READS = ("id_twonn", "id_twonn_surrogate")


def data(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Select the TwoNN dimension on the first dataset at every block, the final norm and every step of every model.

    `peak` is the block of the largest value at its step, `as_null` says that the interval reaches up to `null`, the
    dimension of Gaussian rows with the same covariance.
    """
    rows = first_dataset(selection.metric_rows(tables["metrics"], "id_twonn"))
    steps = trajectories(rows[rows["site"] != "embedding"])
    steps = selection.with_null(steps, tables["metrics"], "id_twonn_surrogate")
    return with_peaks(steps.assign(as_null=steps["ci_high"].fillna(steps["value"]) >= steps["null"]))


def draw(data: pd.DataFrame) -> Figure:
    """Draw a map for each model, over one for each further choice of rows."""
    view = maps.MapView(
        title=TITLE,
        nothing="This study has no `id_twonn` of a block at a known training step.",
        label=marks.AXIS_LABELS["id_twonn"],
        norm=_norm,
        null="as high as Gaussian rows of the same covariance",
        notes=_notes,
    )
    return maps.draw(data, view)


def _norm(values: pd.Series) -> Normalize:
    from matplotlib.colors import LogNorm

    positive = values[values > 0]
    low, high = (positive.min(), positive.max()) if len(positive) else (1.0, 10.0)
    return LogNorm(low, max(high, 1.05 * low))


def _notes(data: pd.DataFrame) -> Sequence[str]:
    apart = "One row of each token id has its own scale of colors." if data["rows"].nunique() > 1 else ""
    return [
        apart if (data["rows"] == "one_per_type").any() else "",
        marks.csv_interval_note(data),
        marks.dimension_note(data),
        marks.EMBEDDING_NOTE,
    ]
