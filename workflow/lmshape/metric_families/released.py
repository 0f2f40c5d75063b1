"""Entries of the table of metrics: the estimators as the article's authors released them, without intervals.

Functions of what `lmshape.measure.released` and `lmshape.measure.released_linearity` keep of a layer. The released
anisotropy is the metric `anisotropy` of all rows.
"""

from __future__ import annotations

from functools import partial
from math import inf

import numpy as np

from lmshape.geometry.released import released_dimension_of
from lmshape.metric import Arrays, Metric, kept


def _dimension(arrays: Arrays) -> np.ndarray:
    return np.array([released_dimension_of(arrays["distances"])])


_released = partial(
    Metric, family="released", interval="none", no_interval="the released protocol takes one sample"
)

RELEASED = (
    _released(
        name="id_released",
        definition="as released: slope of -ln(1 - F) on ln(r2/r1), lowest fifth, first 4096 rows, copies kept",
        low=0.0,
        high=inf,
        range="(0, ∞)",
        null="as id_twonn_fit20 where no row repeats; repeated rows raise it without bound",
        source="LLM-Microscope 0.0.6; Razzhigaev et al. 2024, arXiv 2311.05928",
        undefined="fewer than 5 rows with r2 > r1 > 0 once repeated rows have made the others 0",
        values=_dimension,
    ),
    _released(
        name="linearity_released",
        family="released_linearity",
        definition="as released: 1 - ‖XA - Y‖², A = X⁺Y in float32 with no singular value cut, all rows",
        low=-inf,
        high=1.0,
        range="[0, 1], below where rounding decides",
        null="d/n for noise; rounding noise where columns of X depend on each other",
        source="LLM-Microscope 0.0.6; Razzhigaev et al. 2024, arXiv 2405.12250",
        undefined="all rows of one of the layers are equal, or a singular value is 0",
        values=partial(kept, array="linearity"),
    ),
)
