"""Entries of the table of metrics: the directions of a layer's rows, their lengths, its largest entries."""

from __future__ import annotations

from functools import partial
from math import inf

import numpy as np

from lmshape.metric import Arrays, Metric, kept


def _count(arrays: Arrays, *, array: str) -> np.ndarray:
    """Return a count; without a draw, per as many rows as there are in all: else fewer rows would be fewer hits."""
    return arrays[array] * (arrays["rows"][0] / arrays["rows"])


_angular = partial(Metric, family="angular", interval="jackknife")
_cosine = partial(_angular, low=-1.0, high=1.0, range="[-1/(n - 1), 1]")
_magnitude = partial(_angular, low=0.0, high=inf, range="[0, ∞)", undefined="no rows")
# A draw either holds the largest row or does not: left out in turn, draws say nothing of how it varies. Such
# intervals cover 66 and 72 % in place of 95 %: tests/unit/test_coverage.py.
_maximum = partial(_magnitude, interval="none", no_interval="a maximum of a sample has none")

ANGULAR = (
    _cosine(
        name="mean_cosine",
        definition="mean cosine between two different rows, as they are",
        null="0 for directions without preference",
        source="Ethayarajh 2019, arXiv 1909.00512",
        undefined="fewer than two rows that are not zero",
        values=partial(kept, array="mean_cosine"),
    ),
    _cosine(
        name="mean_cosine_centered",
        definition="mean cosine between two different rows after subtracting the mean row",
        null="0, and near 0 for most clouds: what the mean row leaves of mean_cosine",
        source="Ethayarajh 2019, arXiv 1909.00512",
        undefined="fewer than two rows that differ from the mean",
        values=partial(kept, array="mean_cosine_centered"),
    ),
    _magnitude(
        name="norm_median",
        definition="median Euclidean norm of the rows, as they are",
        null="about s√d for coordinates of mean 0 and standard deviation s",
        source="Ethayarajh 2019, arXiv 1909.00512",
        values=partial(kept, array="norm_median"),
    ),
    _maximum(
        name="norm_max",
        definition="largest Euclidean norm of a row, as it is",
        null="little over norm_median; over 10 × it a row is a sink",
        source="Sun et al. 2024, arXiv 2402.17762",
        values=partial(kept, array="norm_max"),
    ),
    _maximum(
        name="activation_max",
        definition="largest magnitude of an entry",
        null="about s√(2 ln nd) for Gaussian entries of standard deviation s",
        source="Sun et al. 2024, arXiv 2402.17762",
        values=partial(kept, array="activation_max"),
    ),
    _magnitude(
        name="massive_count",
        definition="entries of magnitude over 100 and over 1000 × the median magnitude of the layer",
        range="[0, nd], whole; its interval is not",
        null="0: no Gaussian entry is that far out",
        source="Sun et al. 2024, arXiv 2402.17762; Owen et al. 2025",
        values=partial(_count, array="massive_count"),
    ),
)
