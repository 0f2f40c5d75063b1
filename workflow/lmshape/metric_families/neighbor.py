"""Metrics of the neighbor family: dimension at several scales, in each point, and what stands beside it.

Functions of the distances that `lmshape.measure.neighbor` keeps, one value for each draw.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf, nan

import numpy as np

from lmshape.geometry.dimension import levina_bickel_from_summary, twonn, twonn_fit
from lmshape.geometry.gride import gride
from lmshape.geometry.local import local_levina_bickel, mada
from lmshape.geometry.ratios import KEPT_ORDERS
from lmshape.metric import Arrays, Metric, kept
from lmshape.metric_families.scales import DECIMATIONS, GRIDE_SCALES, NEIGHBORS

WORDS = ("half", "quarter", "eighth")  # of the rows, for the definitions


def _by_draw(
    arrays: Arrays, *, orders: tuple[int, ...], estimator: Callable[..., float], log_sum: bool = False
) -> np.ndarray:
    """Apply an estimator to the distances of each draw at some orders, after the log sum if it takes it."""
    columns = arrays["distances"][:, :, [KEPT_ORDERS.index(order) for order in orders]]
    sums = arrays["log_distance_sum"]
    return np.array(
        [
            nan if np.isnan(r).any() else estimator(*([s] if log_sum else []), *r.T)
            for r, s in zip(columns, sums, strict=True)
        ]
    )


def _of_pairs(arrays: Arrays, *, array: str) -> np.ndarray:
    """Return `twonn` of the two nearest distances of each draw, kept in an array of their own."""
    return np.array([nan if np.isnan(r).any() else twonn(*r.T) for r in arrays[array]])


def _median_mada(half: np.ndarray, full: np.ndarray) -> float:
    return float(np.median(mada(half, full)))


def _local(log_sum: np.ndarray, last: np.ndarray, *, summary: Callable[[np.ndarray], float]) -> float:
    """Summarize the estimates of the points; infinite where the summary meets one that is."""
    with np.errstate(invalid="ignore"):  # ∞ − ∞ between two quantiles: the metric is not defined
        return float(summary(local_levina_bickel(log_sum, last, NEIGHBORS)))


_dimension = partial(Metric, family="neighbor", interval="draws", low=0.0, high=inf, range="(0, ∞)")
_two_neighbors = partial(_by_draw, orders=(1, 2))
_twenty_neighbors = partial(_by_draw, orders=(NEIGHBORS,), log_sum=True)


def _gride_at(n2: int) -> Metric:
    n1 = n2 // 2
    equal = " (id_twonn)" if n2 == 2 else ""
    return _dimension(
        name=f"id_gride_{n2}",
        definition=f"GRIDE: maximum likelihood from the distribution of r{n2}/r{n1}{equal}, mean over draws",
        null=f"as id_twonn, at the scale of {n2} neighbors; with the others the dimension over scale",
        source="Denti et al. 2022, doi:10.1038/s41598-022-20991-1",
        undefined=f"a draw has under {n2 + 1} unique rows, or every r{n2} equals its r{n1}",
        values=partial(_by_draw, orders=(n1, n2), estimator=partial(gride, n1=n1, n2=n2)),
    )


def _decimated(share: int, words: str) -> Metric:
    return _dimension(
        name=f"id_twonn_decimated_{share}",
        definition=f"id_twonn of a random {words} of the unique rows of a draw, mean over draws",
        null="as id_twonn, at fewer rows; with it the dimension over n",
        source="Facco et al. 2017",
        undefined="every r2 equals its r1",
        values=partial(_of_pairs, array=f"decimated_{share}"),
    )


def _local_summary(name: str, words: str, summary: Callable[[np.ndarray], float]) -> Metric:
    return _dimension(
        name=f"id_local_{name}",
        definition=f"{words} over rows of 18 / Σ ln(r20/rj), j = 1 … 19, a dimension at each row; mean over draws",
        null="as id_mle in the mean; estimates of 19 ratios spread by a quarter of the dimension by chance",
        source="Levina & Bickel 2004, the estimate without bias at each point",
        undefined="a row that counts has its 20 neighbors at one distance",
        values=partial(_twenty_neighbors, estimator=partial(_local, summary=summary)),
    )


NEIGHBOR = (
    _dimension(
        name="id_twonn",
        definition="(n - 1) / Σ ln(r2/r1) over the unique rows of a draw, mean over draws",
        null="id_twonn_surrogate, a Gaussian's with the same covariance and n; biased low in high dimension",
        source="Facco et al. 2017; Denti et al. 2022",
        undefined="every r2 equals its r1",
        values=partial(_two_neighbors, estimator=twonn),
    ),
    _dimension(
        name="id_twonn_surrogate",
        definition="id_twonn of Gaussian rows with the layer's own covariance, as many in each draw",
        null="itself a null: an id_twonn equal to it says nothing beyond the spectrum",
        source="this project; the estimate is that of Facco et al. 2017",
        undefined="the rows differ by no more than rounding",
        values=partial(_of_pairs, array="surrogate_distances"),
    ),
    _dimension(
        name="id_twonn_fit",
        definition="slope through 0 of -ln(1 - i/n) on the sorted ln(r2/r1), lowest 90 %, mean over draws",
        null="as id_twonn",
        source="Facco et al. 2017; scikit-dimension's default",
        undefined="in the lowest 90 % every r2 equals its r1",
        values=partial(_two_neighbors, estimator=partial(twonn_fit, share=0.9)),
    ),
    _dimension(
        name="id_twonn_fit20",
        definition="slope through 0 of -ln(1 - i/n) on the sorted ln(r2/r1), lowest 20 %, mean over draws",
        null="as id_twonn; about twice as noisy",
        source="Facco et al. 2017; the share that LLM-Microscope uses, arXiv 2311.05928",
        undefined="in the lowest 20 % every r2 equals its r1",
        values=partial(_two_neighbors, estimator=partial(twonn_fit, share=0.2)),
    ),
    *(_gride_at(n2) for n2 in GRIDE_SCALES),
    *(_decimated(share, words) for share, words in zip(DECIMATIONS, WORDS, strict=True)),
    _dimension(
        name="id_mle",
        definition="1 / mean over rows of Σ ln(r20/rj)/19, j = 1 … 19, mean over draws",
        null="as id_twonn, at the scale of 20 neighbors",
        source="Levina & Bickel 2004; averaged as by MacKay & Ghahramani 2005",
        undefined="all neighbors at one distance",
        values=partial(_twenty_neighbors, estimator=partial(levina_bickel_from_summary, k=NEIGHBORS)),
    ),
    _dimension(
        name="id_mada",
        definition="median over rows of ln 2 / ln(r20/r10), how fast the ball around a row fills; mean over draws",
        null="as id_twonn, at the scale of 20 neighbors",
        source="Farahmand et al. 2007",
        undefined="r20 equals r10 at half of the rows",
        values=partial(_by_draw, orders=(10, 20), estimator=_median_mada),
    ),
    _local_summary("mean", "mean", np.mean),
    _local_summary("q25", "lower quartile", partial(np.quantile, q=0.25)),
    _local_summary("median", "median", np.median),
    _local_summary("q75", "upper quartile", partial(np.quantile, q=0.75)),
    Metric(
        name="duplicate_share",
        family="neighbor",
        definition="share of a draw's rows that repeat another of it, dropped before neighbors; mean over draws",
        low=0.0,
        high=1.0,
        range="[0, 1 - 1/n]",
        null="0",
        source="this project",
        undefined="no finite rows in two draws",
        interval="draws",
        values=partial(kept, array="duplicate_share"),
    ),
)
