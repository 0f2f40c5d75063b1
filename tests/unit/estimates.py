"""The estimate of a metric from the arrays of its family, as `gather` makes it."""

from __future__ import annotations

from lmshape.geometry.resample import Estimate
from lmshape.metric import Arrays, Metric


def estimated(metric: Metric, arrays: Arrays) -> Estimate:
    """Return value and interval of a metric."""
    return metric.estimate(metric.replicates(arrays))
