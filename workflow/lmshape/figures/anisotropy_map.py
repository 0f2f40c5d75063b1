"""Anisotropy of every layer at every step of training, as a map of colors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import TYPE_CHECKING

import pandas as pd

from lmshape.figures import maps, marks, selection
from lmshape.figures.maps import with_peaks
from lmshape.tables.rows import first_dataset, trajectories

if TYPE_CHECKING:
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

TITLE = "Anisotropy, layer by step of training"
READS = ("anisotropy", "anisotropy_null")


def data(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Select anisotropy on the first dataset at every layer and step of every model.

    `peak` is the block of the largest value at its step, `as_null` says that the interval reaches down to `null`,
    what isotropic rows read.
    """
    rows = first_dataset(selection.metric_rows(tables["metrics"], "anisotropy"))
    steps = selection.with_null(trajectories(rows), tables["metrics"], "anisotropy_null")
    return with_peaks(steps.assign(as_null=steps["ci_low"].fillna(steps["value"]) <= steps["null"]))


def draw(data: pd.DataFrame) -> Figure:
    """Draw a map for each model, over a second one for each further choice of rows."""
    view = maps.MapView(
        title=TITLE,
        nothing="This study has no anisotropy at a known training step.",
        label=marks.AXIS_LABELS["anisotropy"],
        norm=_norm,
        null="no more than isotropic rows read",
        notes=_notes,
    )
    return maps.draw(data, view)


def _norm(values: pd.Series) -> Normalize:
    """Colors from 0 to the next tenth over the largest value."""
    from matplotlib.colors import Normalize

    return Normalize(0, ceil(10 * values.max()) / 10 if len(values) else 1)


def _notes(data: pd.DataFrame) -> Sequence[str]:
    isotropic = marks.isotropic_note(data["null"], mark="Isotropic rows at this n and d read")
    return [isotropic, marks.csv_interval_note(data)]
