"""The table of metrics: the one place that says which exist, what each means, and how it is computed.

`measure` keeps of a layer the statistics of a family; a metric is a function of them. A new metric over kept
statistics is one entry and runs no model again. The documentation is made from this table. Its entries stand by
family in `spectral_metrics`, `angular_metrics` and `neighbor_metrics`, those of the loss here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import inf, log, nan

import numpy as np

from lmshape.angular_metrics import ANGULAR
from lmshape.errors import unknown
from lmshape.metric import Arrays, Metric
from lmshape.neighbor_metrics import NEIGHBOR
from lmshape.spectral_metrics import SPECTRAL


def _nats_per(arrays: Arrays, *, unit: str, scale: float) -> np.ndarray:
    nats, count = (_leave_one_out_sums(arrays[name]) for name in ("nats", unit))
    return np.divide(nats, count * scale, out=np.full(len(nats), nan), where=count > 0)


def _leave_one_out_sums(parts: np.ndarray) -> np.ndarray:
    return np.array([parts.sum(), *(np.delete(parts, j).sum() for j in range(len(parts)))], dtype=np.float64)


_loss = partial(Metric, family="loss", interval="jackknife", low=0.0, high=inf, range="[0, ∞)")

ALL = (
    *SPECTRAL,
    *ANGULAR,
    *NEIGHBOR,
    _loss(
        name="loss",
        definition="mean negative log-likelihood in nats per token: next token, or masked tokens in encoders",
        null="ln of the vocabulary's size for uniform predictions",
        source="the training objective of the model",
        undefined="no token has a loss",
        values=partial(_nats_per, unit="tokens", scale=1.0),
    ),
    _loss(
        name="bits_per_byte",
        definition="negative log-likelihood in bits per byte of text: comparable across tokenizers",
        null="8 for uniform bytes",
        source="Gao et al. 2020, arXiv 2101.00027",
        undefined="no byte has a loss",
        values=partial(_nats_per, unit="bytes", scale=log(2)),
    ),
)

METRICS = {metric.name: metric for metric in ALL}
FAMILIES = tuple(dict.fromkeys(metric.family for metric in ALL))


def select(names: Sequence[str]) -> list[Metric]:
    """Return the metrics that `names` mean, each once, in the order of the table.

    The name of a family means all of its metrics. An unknown name is refused with the nearest ones.
    """
    for name in names:
        if name not in METRICS and name not in FAMILIES:
            raise unknown("metric", name, [*METRICS, *FAMILIES])
    return [metric for metric in ALL if metric.name in names or metric.family in names]


def describe() -> list[dict[str, str]]:
    """Return the table for readers: the columns name, family, definition, range, null and source."""
    columns = ("name", "family", "definition", "range", "null", "source")
    return [{column: getattr(metric, column) for column in columns} for metric in ALL]
