"""Neighbor family: distances to the nearest other rows of the same draw, of fewer rows, of a Gaussian surrogate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from math import inf, nan

import numpy as np

from lmshape.geometry.arrays import Device
from lmshape.geometry.distance_ratios import (
    KEPT_ORDERS,
    gride_from_distances,
    local_mle_from_summary,
    mada_from_distances,
    mle_from_summary,
    twonn_fit_from_distances,
    twonn_from_distances,
)
from lmshape.geometry.neighbors import Neighbors, largest_error, nearest_among, nearest_neighbors
from lmshape.geometry.nulls import gaussian_surrogate, normal_deviates
from lmshape.geometry.spectrum import eigenvalues_of_sums
from lmshape.metrics.layer import Arrays, Found, Layer, Measured
from lmshape.metrics.metric import Family, Metric, kept_array
from lmshape.metrics.rows import ROWS, RowSums, UniqueRows, unique_rows_by_draw
from lmshape.store.hdf5 import Attributes
from lmshape.store.statistics import DRAW

GRIDE_SCALES = (2, 4, 8, 16, 32, 64)  # the further of GRIDE's two neighbors
DECIMATIONS = (2, 4, 8)  # of the rows of a draw, one in so many
NEIGHBORS = 20  # of the Levina-Bickel estimates: the sum of logarithms is over the nearer 19
FEWEST_ROWS = 2 * NEIGHBORS + 1  # with fewer the 20 neighbors are half of the cloud: no local quantity
SPARE = 8  # neighbors of a search for several choices, for the few rows that some of them leave out
SEARCHED_TOGETHER = (("all", "no_sink"), ("one_per_type",))  # the last has too few of the rows of the others
MOST_HELD = 5  # draws whose normal deviates are kept from layer to layer
AUDITED_ROWS = 200  # of each search, over all draws and choices
SMALL = 0.02  # of the variance past the first axis: the last axes, of which the search of a surrogate needs the norm
SEED = 0  # the same deviates, and the same choice of rows, for every layer and checkpoint: no difference by chance


def statistics(layer: Layer) -> dict[str, Found]:
    """Return the neighbor distances of each choice of rows, each of the K draws by itself: O(n² d / K) time.

    The first m unique rows of each draw, in row order, the same m for every draw: `rows_per_draw`, or the
    unique rows of the draw that has the fewest. One draw of the layer is in memory at a time, as it is stored.

    - `distances` (K, m, 9), Euclidean, to the nearest other rows of the orders `KEPT_ORDERS`; NaN from order m
    - `log_distance_sum` (K, m), the sum of ln r over the neighbors 1 to 19
    - `decimated_2`, `_4`, `_8` (K, m // 2, 2), …, to the two nearest among a random half, quarter, eighth of the m rows
    - `surrogate_distances` (K, m, 2), to the two nearest in Gaussian rows with the covariance of all rows taken
    - `duplicate_share` (K,), of the rows of a draw, those that repeat another of it

    Attributes: `recomputed`, the rows whose neighbors could not be certified at first and were searched again;
    `audit_error`, the largest relative error of the distances of random rows, 200 a search, against direct differences.
    Under 41 rows per draw: a flag, and NaN but for the duplicates. 0.7 MB for 5 draws of 1024 rows.

    A draw is searched once for `all` and `no_sink`: the neighbors of a choice, and of a part of its rows, are the known
    ones without the others, and rows that run out of them are searched again.
    """
    width = layer.rows.shape[1]
    found = {name: _Choice(rows, width, layer.device) for name, rows in unique_rows_by_draw(layer).items()}
    large = {name: choice for name, choice in found.items() if choice.rows.size >= FEWEST_ROWS}
    if large:
        _fill_surrogates(list(large.values()), _eigenvalues(layer, large), width)
    for names in SEARCHED_TOGETHER:
        _fill_neighbors(layer, [large[name] for name in names if name in large])
    return {name: (choice.arrays, choice.attributes()) for name, choice in found.items()}


def missing(*, rows: int, width: int, draws: int, rows_per_draw: int | None) -> dict[str, np.ndarray]:
    """Return the arrays of `statistics`, NaN, for rows that have no neighbors."""
    size = rows_per_draw or max(rows // draws, 1)
    shapes = {
        "distances": (size, len(KEPT_ORDERS)),
        "log_distance_sum": (size,),
        "surrogate_distances": (size, 2),
        **{f"decimated_{share}": (size // share, 2) for share in DECIMATIONS},
        "duplicate_share": (),
    }
    return {name: np.full((draws, *shape), np.nan) for name, shape in shapes.items()}


class _Choice:
    """Results for one choice of rows."""

    def __init__(self, rows: UniqueRows, width: int, device: Device) -> None:
        self.rows, self.device = rows, device
        draws = len(rows.index)
        self.arrays = missing(rows=rows.size * draws, width=width, draws=draws, rows_per_draw=rows.size)
        self.arrays["duplicate_share"] = rows.duplicate_share
        self.recomputed, self.audit_error = 0, 0.0

    def attributes(self) -> Attributes:
        if self.rows.size < FEWEST_ROWS:
            flag = f"too few unique rows: {self.rows.size} per draw; id needs {FEWEST_ROWS}"
            return {"flag": flag, "recomputed": 0, "audit_error": np.nan}
        return {"flag": self.rows.flag, "recomputed": self.recomputed, "audit_error": self.audit_error}

    def place(self, draw: int) -> int:
        """Return the place of a draw among those of the choice."""
        return list(self.rows.index).index(draw)


def _fill_neighbors(layer: Layer, choices: list[_Choice]) -> None:
    """Fill in what the neighbors of each draw say, from one search of the rows that any of the choices takes."""
    for draw in sorted({draw for choice in choices for draw in choice.rows.index}):
        own = [choice for choice in choices if draw in choice.rows.index]
        together = np.unique(np.concatenate([choice.rows.index[draw] for choice in own]))
        cloud = layer.rows.take(together)
        # a row of one choice may repeat another's: only within a choice is it known how many differ
        distinct = max(choice.rows.size for choice in own)
        k = min(KEPT_ORDERS[-1] + (SPARE if len(own) > 1 else 0), distinct - 1)
        neighbors = nearest_neighbors(cloud, k, device=layer.device)
        audited = -(-AUDITED_ROWS // sum(len(choice.rows.index) for choice in own))
        for choice in own:
            kept = np.searchsorted(together, choice.rows.index[draw])
            if np.isin(kept, neighbors.unique).all():
                _fill_draw(choice, draw, cloud, neighbors, kept, audited)
            else:  # a row of this choice repeats one of another choice
                alone = cloud[kept]
                most = min(KEPT_ORDERS[-1], len(kept) - 1)
                known = nearest_neighbors(alone, most, device=layer.device)
                _fill_draw(choice, draw, alone, known, np.arange(len(kept)), audited)


def _fill_draw(
    choice: _Choice, draw: int, cloud: np.ndarray, known: Neighbors, kept: np.ndarray, audited: int
) -> None:
    """Fill in what one draw of a choice, the rows `kept` of a cloud, has by the neighbors known in it."""
    among = nearest_among(cloud, known, kept, min(KEPT_ORDERS[-1], choice.rows.size - 1))
    error = largest_error(cloud, among, rows=audited, seed=SEED, device=choice.device)
    choice.audit_error = max(choice.audit_error, error)
    choice.recomputed += known.recomputed
    order = np.random.default_rng(SEED).permutation(len(kept))
    parts = {share: kept[np.sort(order[: len(kept) // share])] for share in DECIMATIONS}
    distances = among.distances
    found = {
        "distances": distances[:, [order - 1 for order in KEPT_ORDERS if order <= distances.shape[1]]],
        "log_distance_sum": np.log(distances[:, : NEIGHBORS - 1]).sum(axis=1),
        **{
            f"decimated_{share}": nearest_among(cloud, among, part, 2).distances
            for share, part in parts.items()
        },
    }
    for name, array in found.items():
        choice.arrays[name][choice.place(draw), ..., : array.shape[-1]] = array


def _eigenvalues(layer: Layer, choices: Mapping[str, _Choice]) -> list[np.ndarray]:
    """Return the eigenvalues of the covariance of the rows that each choice takes."""
    taken = {name: np.zeros(len(layer.draw), dtype=bool) for name in choices}
    for name, choice in choices.items():
        taken[name][np.concatenate(list(choice.rows.index.values()))] = True
    sums = RowSums(layer, taken)
    return [eigenvalues_of_sums(sums.of(name)) for name in choices]


def _fill_surrogates(choices: Sequence[_Choice], eigenvalues: Sequence[np.ndarray], width: int) -> None:
    """Set the two nearest distances in Gaussian clouds of the covariance of each choice, in its unit.

    They stay NaN where the rows differ by no more than the rounding of their mean.
    """
    for j in range(max(len(choice.rows.index) for choice in choices)):
        deviates = _deviates(max(choice.rows.size for choice in choices), width, j)
        for choice, variances in zip(choices, eigenvalues, strict=True):
            if variances.any() and j < len(choice.rows.index):
                sample = gaussian_surrogate(variances, choice.rows.size, deviates=deviates)
                left = variances[::-1].cumsum()[::-1]  # on each axis and those past it
                leading = int(np.count_nonzero(left > SMALL * left[1:2].sum()))
                found = nearest_neighbors(
                    sample, 2, assume_unique=True, leading=leading, device=choice.device
                )
                choice.arrays["surrogate_distances"][j] = found.distances


@lru_cache(MOST_HELD)
def _deviates(rows: int, width: int, draw: int) -> np.ndarray:
    """Return the normal deviates of a draw, which are those of every layer: drawn once, 8 bytes each."""
    return normal_deviates(rows, width, seed=(SEED, draw))


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
    """Return `twonn_from_distances` of the two nearest distances of each draw, kept by themselves; NaN without rows."""
    rows = (nan if not len(r) or np.isnan(r).any() else twonn_from_distances(*r.T) for r in arrays[array])
    return np.array(list(rows))


def _median_mada(half: np.ndarray, full: np.ndarray) -> float:
    return float(np.median(mada_from_distances(half, full)))


def _local(log_sum: np.ndarray, last: np.ndarray, *, summary: Callable[[np.ndarray], float]) -> float:
    """Summarize the estimates of the points; infinite where the summary meets one that is."""
    with np.errstate(invalid="ignore"):  # ∞ − ∞ between two quantiles: the metric is not defined
        return float(summary(local_mle_from_summary(log_sum, last, NEIGHBORS)))


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
        values=partial(_by_draw, orders=(n1, n2), estimator=partial(gride_from_distances, n1=n1, n2=n2)),
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


NEIGHBOR = Family(
    "neighbor",
    measured=Measured(
        name="neighbor",
        statistics=statistics,
        missing=missing,
        rows=ROWS,
        capped=True,
        axes={
            "distances": (DRAW, "row", "order"),
            "log_distance_sum": (DRAW, "row"),
            "surrogate_distances": (DRAW, "row", "nearest"),
            **{
                f"decimated_{share}": (DRAW, word, "nearest")
                for share, word in zip(DECIMATIONS, WORDS, strict=True)
            },
        },
    ),
    metrics=(
        _dimension(
            name="id_twonn",
            definition="(n - 1) / Σ ln(r2/r1) over the unique rows of a draw, mean over draws",
            null="id_twonn_surrogate, a Gaussian's with the same covariance and n; biased low in high dimension",
            source="Facco et al. 2017; Denti et al. 2022",
            undefined="every r2 equals its r1",
            values=partial(_two_neighbors, estimator=twonn_from_distances),
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
            values=partial(_two_neighbors, estimator=partial(twonn_fit_from_distances, share=0.9)),
        ),
        _dimension(
            name="id_twonn_fit20",
            definition="slope through 0 of -ln(1 - i/n) on the sorted ln(r2/r1), lowest 20 %, mean over draws",
            null="as id_twonn; about twice as noisy",
            source="Facco et al. 2017; the share that LLM-Microscope uses, arXiv 2311.05928",
            undefined="in the lowest 20 % every r2 equals its r1",
            values=partial(_two_neighbors, estimator=partial(twonn_fit_from_distances, share=0.2)),
        ),
        *(_gride_at(n2) for n2 in GRIDE_SCALES),
        *(_decimated(share, words) for share, words in zip(DECIMATIONS, WORDS, strict=True)),
        _dimension(
            name="id_mle",
            definition="1 / mean over rows of Σ ln(r20/rj)/19, j = 1 … 19, mean over draws",
            null="as id_twonn, at the scale of 20 neighbors",
            source="Levina & Bickel 2004; averaged as by MacKay & Ghahramani 2005",
            undefined="all neighbors at one distance",
            values=partial(_twenty_neighbors, estimator=partial(mle_from_summary, k=NEIGHBORS)),
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
            values=partial(kept_array, array="duplicate_share"),
        ),
    ),
)
