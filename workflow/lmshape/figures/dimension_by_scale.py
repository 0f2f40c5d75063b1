"""Intrinsic dimension against the scale it is read at: GRIDE, from the nearest neighbors to further ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from lmshape.figures import scale_panels
from lmshape.metrics.neighbor import GRIDE_SCALES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Intrinsic dimension by scale"
SCALES = {f"id_gride_{n2}": n2 for n2 in GRIDE_SCALES}
READS = (*SCALES, "id_twonn_surrogate")


def data(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Select GRIDE's dimensions of each block at each model's last checkpoint on its first dataset.

    `scale` is n2, the further of its two neighbors; `null` stands at n2 = 2, where GRIDE is TwoNN.
    """
    return scale_panels.at_scales(tables["metrics"], SCALES)


def draw(data: pd.DataFrame) -> Figure:
    """Draw a panel for each model and choice of rows; a line for each block."""
    view = scale_panels.ScaleView(
        title=TITLE,
        nothing="This study has GRIDE's dimension of a block at no two scales.",
        label="neighbor n2 (log scale)",
        tick=str,
        finest_at_right=False,
        notes=_notes,
    )
    return scale_panels.draw(data, view)


def _notes(data: pd.DataFrame) -> Sequence[str]:
    null = " The Gaussian's, measured with TwoNN, which is n2\u00a0=\u00a02, stands there alone."
    return [
        "GRIDE reads the distances to the neighbors n2/2 and n2: the further these are, the larger the scale."
        + (null if data["null"].notna().any() else "")
    ]
