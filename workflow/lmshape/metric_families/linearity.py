"""Entries of the table of metrics: how far a block is a linear map of its input, with its null."""

from __future__ import annotations

from functools import partial
from math import inf

import numpy as np

from lmshape.metric import Arrays, Metric, kept


def _null(arrays: Arrays) -> np.ndarray:
    """Return rank/n of all rows, for each draw left out, too: it is known without error."""
    return np.full(len(arrays["rows"]), arrays["rank"][0] / arrays["rows"][0])


_linearity = partial(
    Metric, family="linearity", interval="jackknife", source="Razzhigaev et al. 2024, arXiv 2405.12250"
)
_in_sample = partial(_linearity, low=0.0, high=1.0, range="[0, 1]")
_held_out = partial(_linearity, low=-inf, high=1.0, range="(-∞, 1]")
_HALVES = "fitted on half of the sequences, scored on the others, mean of both ways"

LINEARITY = (
    _in_sample(
        name="linearity",
        definition="1 - min ‖XA - Y‖²/‖Y‖² over matrices A, X and Y a block's centered input and output",
        null="d/n for independent noise: linearity_null; near 1 where the residual stream outweighs the update",
        undefined="zero variance",
        values=partial(kept, array="linearity"),
    ),
    _linearity(
        name="linearity_null",
        definition="rank/n: linearity of independent noise, d/n where no direction of the input is missing",
        low=0.0,
        high=1.0,
        range="[0, 1/2)",
        null="is one itself: the value of a block that forgets its input",
        source="expected R² of least squares on noise",
        undefined="no rows",
        values=_null,
    ),
    _held_out(
        name="linearity_held_out",
        definition=f"linearity, {_HALVES}",
        null="0 for independent noise as n → ∞; at finite n under it, by about d/n of the half",
        undefined="zero variance, or a half of the sequences with no more rows than columns",
        values=partial(kept, array="linearity_held_out"),
    ),
    _in_sample(
        name="linearity_residual",
        definition="linearity of the update, Y - X in the place of Y: the residual stream taken out",
        null="d/n for updates that are independent noise: linearity_null",
        undefined="zero variance of the input or of the update",
        values=partial(kept, array="linearity_residual"),
    ),
    _held_out(
        name="linearity_residual_held_out",
        definition=f"linearity_residual, {_HALVES}",
        null="0 for updates that are independent noise as n → ∞; at finite n under it, by about d/n of the half",
        undefined="zero variance, or a half of the sequences with no more rows than columns",
        values=partial(kept, array="linearity_residual_held_out"),
    ),
)
