"""The table of metrics: the one place that says which exist, what each means, and how it is computed.

`measure` keeps of a layer the statistics of a family; a metric is a function of them. A new metric over kept
statistics is one entry here and runs no model again. The documentation is made from this table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf, log, nan
from typing import Literal

import numpy as np

from lmshape.errors import unknown
from lmshape.geometry.dimension import levina_bickel_from_summary, twonn, twonn_fit
from lmshape.geometry.resample import Estimate, jackknife, over_draws
from lmshape.geometry.spectrum import anisotropy_of, effective_rank_of, participation_ratio_of

NEIGHBORS = 20  # of the Levina-Bickel estimate; the last order that the neighbor family keeps


Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One number of a layer, with its interval and what a reader must know to read it.

    From the arrays of the family `values` gives the K + 1 numbers of the jackknife (all rows; then without
    each draw) or the K numbers of the draws, as `interval` says. `low` and `high` bound value and interval;
    `range` is the tighter truth in words. `null` is the value that means "nothing there"; `undefined` is the
    reason where there is no number.
    """

    name: str
    family: str
    definition: str
    low: float
    high: float
    range: str
    null: str
    source: str
    undefined: str
    interval: Literal["jackknife", "draws"]
    values: Callable[[Arrays], np.ndarray]

    def compute(self, arrays: Arrays) -> Estimate:
        """Estimate the metric with its 95 % interval from the arrays of its family.

        NaN where it is not defined; a value without an interval where it is not defined with a draw left out.
        """
        values = np.asarray(self.values(arrays), dtype=np.float64)
        jackknifed = self.interval == "jackknife"
        pooled = float(values[0] if jackknifed else values.mean())
        if not np.isfinite(values).all():
            return Estimate(pooled if np.isfinite(pooled) else nan, nan, nan, len(values) - jackknifed)
        if jackknifed:
            return jackknife(pooled, values[1:], bounds=(self.low, self.high))
        return over_draws(values, bounds=(self.low, self.high))


def _spectral(arrays: Arrays, *, array: str, scalar: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    return scalar(arrays[array])


def _angular(arrays: Arrays, *, array: str) -> np.ndarray:
    return arrays[array]


def _by_draw(arrays: Arrays, *, estimator: Callable[[np.ndarray, np.ndarray], float]) -> np.ndarray:
    draws = zip(arrays["distances"], arrays["log_distance_sum"], strict=True)
    return np.array([nan if np.isnan(r).any() else estimator(r, log_sum) for r, log_sum in draws])


def _twonn(distances: np.ndarray, _: np.ndarray) -> float:
    return twonn(distances[:, 0], distances[:, 1])


def _twonn_fit20(distances: np.ndarray, _: np.ndarray) -> float:
    return twonn_fit(distances[:, 0], distances[:, 1], share=0.2)


def _levina_bickel(distances: np.ndarray, log_sum: np.ndarray) -> float:
    return levina_bickel_from_summary(log_sum, distances[:, 2], NEIGHBORS)


def _nats_per(arrays: Arrays, *, unit: str, scale: float) -> np.ndarray:
    nats, count = (_leave_one_out_sums(arrays[name]) for name in ("nats", unit))
    return np.divide(nats, count * scale, out=np.full(len(nats), nan), where=count > 0)


def _leave_one_out_sums(parts: np.ndarray) -> np.ndarray:
    return np.array([parts.sum(), *(np.delete(parts, j).sum() for j in range(len(parts)))], dtype=np.float64)


_spectrum = partial(Metric, family="spectral", interval="jackknife")
_cosine = partial(Metric, family="angular", interval="jackknife", low=-1.0, high=1.0, range="[-1/(n - 1), 1]")
_dimension = partial(Metric, family="neighbor", interval="draws", low=0.0, high=inf, range="(0, ∞)")
_loss = partial(Metric, family="loss", interval="jackknife", low=0.0, high=inf, range="[0, ∞)")

ALL = (
    _spectrum(
        name="anisotropy",
        definition="λ1 / Σλ, λ the eigenvalues of the covariance of the rows; no row normalization",
        low=0.0,
        high=1.0,
        range="[1/min(n - 1, d), 1]",
        null="1/d for isotropic rows as n → ∞; at finite n (1 + √(d/n))²/d",
        source="Razzhigaev et al. 2024, arXiv 2311.05928",
        undefined="zero variance",
        values=partial(_spectral, array="eigenvalues", scalar=anisotropy_of),
    ),
    _spectrum(
        name="anisotropy_uncentered",
        definition="λ1 / Σλ without subtracting the mean: the control for a cone that is only the mean",
        low=0.0,
        high=1.0,
        range="[1/min(n, d), 1]",
        null="that of anisotropy where the mean is zero; → 1 where the mean outweighs the spread",
        source="Razzhigaev et al. 2024, arXiv 2311.05928",
        undefined="all rows zero",
        values=partial(_spectral, array="eigenvalues_uncentered", scalar=anisotropy_of),
    ),
    _spectrum(
        name="effective_rank",
        definition="exp(-Σ p ln p), p = λ/Σλ of the covariance",
        low=1.0,
        high=inf,
        range="[1, min(n - 1, d)]",
        null="d for isotropic rows as n → ∞, less at finite n",
        source="Roy & Vetterli 2007, on eigenvalues; arXiv 2509.23024",
        undefined="zero variance",
        values=partial(_spectral, array="eigenvalues", scalar=effective_rank_of),
    ),
    _spectrum(
        name="participation_ratio",
        definition="(Σλ)² / Σλ² of the covariance",
        low=1.0,
        high=inf,
        range="[1, min(n - 1, d)]",
        null="d for isotropic rows as n → ∞; at finite n about d/(1 + d/n)",
        source="Gao et al. 2017, bioRxiv 214262; at finite n arXiv 2509.26560",
        undefined="zero variance",
        values=partial(_spectral, array="eigenvalues", scalar=participation_ratio_of),
    ),
    _cosine(
        name="mean_cosine",
        definition="mean cosine between two different rows, as they are",
        null="0 for directions without preference",
        source="Ethayarajh 2019, arXiv 1909.00512",
        undefined="fewer than two rows that are not zero",
        values=partial(_angular, array="mean_cosine"),
    ),
    _cosine(
        name="mean_cosine_centered",
        definition="mean cosine between two different rows after subtracting the mean row",
        null="0, and near 0 for most clouds: what the mean row leaves of mean_cosine",
        source="Ethayarajh 2019, arXiv 1909.00512",
        undefined="fewer than two rows that differ from the mean",
        values=partial(_angular, array="mean_cosine_centered"),
    ),
    _dimension(
        name="id_twonn",
        definition="(n - 1) / Σ ln(r2/r1) over the unique rows of a draw, mean over draws",
        null="that of a Gaussian with the same covariance at the same n; biased low in high dimension",
        source="Facco et al. 2017; Denti et al. 2022",
        undefined="every r2 equals its r1",
        values=partial(_by_draw, estimator=_twonn),
    ),
    _dimension(
        name="id_twonn_fit20",
        definition="slope through 0 of -ln(1 - i/n) on the sorted ln(r2/r1), lowest 20 %, mean over draws",
        null="as id_twonn; about twice as noisy",
        source="Facco et al. 2017; the share that LLM-Microscope uses, arXiv 2311.05928",
        undefined="in the lowest 20 % every r2 equals its r1",
        values=partial(_by_draw, estimator=_twonn_fit20),
    ),
    _dimension(
        name="id_mle",
        definition="1 / mean over rows of Σ ln(r20/rj)/19, j = 1 … 19, mean over draws",
        null="as id_twonn, at the scale of 20 neighbors",
        source="Levina & Bickel 2004; averaged as by MacKay & Ghahramani 2005",
        undefined="all neighbors at one distance",
        values=partial(_by_draw, estimator=_levina_bickel),
    ),
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
