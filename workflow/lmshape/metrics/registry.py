"""The table of metrics: what each means, in which range, where it is from, and how it is computed.

`measure` keeps of a layer the statistics of a family; a metric is a function of them. A new metric over kept
statistics is one entry and runs no model again. The documentation is made from this table. Its entries stand by
family in `spectral_metrics`, `angular_metrics`, `leading_metrics`, `neighbor_metrics`, `linearity_metrics` and
`released_metrics`, those of the loss here. A user's own metrics join it from their file: `lmshape.metrics.own`. The
bare names stand a second time, by family, in `lmshape.metrics.families`, which planning a study reads
without importing what
is here; a new metric is named there too, and a test compares the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import inf, log, nan
from pathlib import Path

import numpy as np

from lmshape.errors import InputError
from lmshape.metrics.angular import ANGULAR
from lmshape.metrics.families import OWN_FAMILY, family_and_metric_names, metric_names
from lmshape.metrics.leading import LEADING
from lmshape.metrics.linearity import LINEARITY
from lmshape.metrics.metric import Arrays, Metric
from lmshape.metrics.neighbor import NEIGHBOR
from lmshape.metrics.own import OwnMetric, load_own, read_own
from lmshape.metrics.released import RELEASED
from lmshape.metrics.spectral import SPECTRAL


def _nats_per(arrays: Arrays, *, unit: str, scale: float) -> np.ndarray:
    nats, count = (_leave_one_out_sums(arrays[name]) for name in ("nats", unit))
    return np.divide(nats, count * scale, out=np.full(len(nats), nan), where=count > 0)


def _leave_one_out_sums(parts: np.ndarray) -> np.ndarray:
    return np.array([parts.sum(), *(np.delete(parts, j).sum() for j in range(len(parts)))], dtype=np.float64)


_loss = partial(Metric, family="loss", interval="jackknife", low=0.0, high=inf, range="[0, ∞)")

ALL = (
    *SPECTRAL,
    *ANGULAR,
    *LEADING,
    *NEIGHBOR,
    *LINEARITY,
    *RELEASED,
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


def own_metrics(path: Path | None) -> tuple[Metric, ...]:
    """Return the metrics of a user's file, which is run; none without a file."""
    if path is None:
        return ()
    read_own(path, taken=family_and_metric_names())
    return tuple(_own(metric) for metric in load_own(path))


def _own(metric: OwnMetric) -> Metric:
    declared = metric.declaration
    return Metric(
        name=metric.name,
        family=OWN_FAMILY,
        definition=metric.definition,
        low=declared.low,
        high=declared.high,
        range=declared.range or declared.bounds(),
        null=declared.null,
        source=declared.source,
        undefined="not finite",
        interval=declared.interval,
        values=partial(_kept, name=metric.name),
    )


def _kept(arrays: Arrays, *, name: str) -> np.ndarray:
    if name not in arrays:
        raise InputError(f"the archive of the family `own` holds no `{name}`; measure it again.")
    return arrays[name]


def select(names: Sequence[str], own: Sequence[Metric] = ()) -> list[Metric]:
    """Return the metrics that `names` mean, each once, in the order of the table.

    The name of a family means all of its metrics. `own` are the user's, which come last. An unknown name is
    refused with the nearest ones.
    """
    table = METRICS | {metric.name: metric for metric in own}
    return [table[name] for name in metric_names(names, [metric.name for metric in own])]


def describe(own: Sequence[Metric] = ()) -> list[dict[str, str]]:
    """Return the table for readers: the columns name, family, definition, range, null and source."""
    columns = ("name", "family", "definition", "range", "null", "source")
    return [{column: getattr(metric, column) for column in columns} for metric in (*ALL, *own)]
