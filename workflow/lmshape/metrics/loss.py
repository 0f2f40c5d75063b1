"""Loss family: of the model's output, from the sums of each draw that its loss card keeps."""

from __future__ import annotations

from functools import partial
from math import inf, log, nan

import numpy as np

from lmshape.metrics.layer import Arrays
from lmshape.metrics.metric import Family, Metric


def _nats_per(arrays: Arrays, *, unit: str, scale: float) -> np.ndarray:
    """Return Σ nats / Σ units of all draws, then without each draw, over a scale."""
    nats, count = (_leave_one_out_sums(arrays[name]) for name in ("nats", unit))
    return np.divide(nats, count * scale, out=np.full(len(nats), nan), where=count > 0)


def _leave_one_out_sums(parts: np.ndarray) -> np.ndarray:
    return np.array([parts.sum(), *(np.delete(parts, j).sum() for j in range(len(parts)))], dtype=np.float64)


_loss = partial(Metric, family="loss", interval="jackknife", low=0.0, high=inf, range="[0, ∞)")

LOSS = Family(
    "loss",
    metrics=(
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
    ),
)
