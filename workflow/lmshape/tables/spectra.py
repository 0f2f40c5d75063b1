"""The table `spectra`: how the variance of a layer is spread over its principal axes, rank by rank."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lmshape.geometry.nulls import spectrum_null
from lmshape.geometry.resample import jackknife
from lmshape.store import LayerStatistics
from lmshape.tables.columns import Value, declare
from lmshape.tables.shape_columns import PLACE_DESCRIPTIONS, PLACE_INTEGERS, PLACE_REALS

FAMILY = "spectral"
ARRAYS = ("eigenvalues",)  # of its archive
MOST_RANKS = 60

SPECTRA_COLUMNS = declare(
    {
        **PLACE_DESCRIPTIONS,
        "rank": "of the eigenvalue, 1 the largest; about 60 ranks, evenly spread on a logarithmic axis",
        "share": "λ_rank / Σλ of the covariance: the share of the variance along this principal axis",
        "ci_low": "lower end of its 95 % interval; NaN where there is none",
        "ci_high": "upper end of its 95 % interval; NaN where there is none",
        "null": "share of this rank in isotropic rows of this number and width: Marchenko-Pastur",
        "draws": "number of independent draws of sequences behind the interval",
        "n_rows": "number of token rows over all draws",
        "d": "width of a row",
        "flag": "the reason of NaN; empty when fine",
    },
    integers=[*PLACE_INTEGERS, "rank", "draws", "n_rows", "d"],
    reals=[*PLACE_REALS, "share", "ci_low", "ci_high", "null"],
)


def log_ranks(last: int, *, most: int = MOST_RANKS) -> np.ndarray:
    """Return whole ranks 1 … `last`, all of the first and then ever fewer, about `most` of them."""
    return np.unique(np.round(np.geomspace(1, last, most)).astype(np.int64))


def spectrum_rows(entry: LayerStatistics) -> Iterator[dict[str, Value | None]]:
    """Yield the rows of one entry of a spectral archive; one row with the reason where it has no spectrum."""
    counts = {name: entry.attributes[name] for name in ("draws", "n_rows", "d")}
    eigenvalues = entry.arrays["eigenvalues"]
    total = eigenvalues.sum(axis=1)
    if not np.isfinite(total[0]) or total[0] <= 0:
        yield {**counts, "rank": 1, "flag": str(entry.attributes["flag"]) or "zero variance"}
        return
    ranks = log_ranks(eigenvalues.shape[1])
    shares = np.divide(
        eigenvalues, total[:, None], out=np.full(eigenvalues.shape, np.nan), where=total[:, None] > 0
    )
    null = spectrum_null(int(counts["n_rows"]), int(counts["d"]), ranks)
    for rank, expected in zip(ranks.tolist(), null.tolist(), strict=True):
        estimate = jackknife(shares[0, rank - 1], shares[1:, rank - 1], bounds=(0.0, 1.0))
        interval = {"ci_low": estimate.low, "ci_high": estimate.high}
        unsure = "" if np.isfinite(estimate.low) else "no interval: not defined without one of its draws"
        flag = "; ".join(filter(None, [str(entry.attributes["flag"]), unsure]))
        yield {
            **counts,
            "rank": rank,
            "share": estimate.value,
            **interval,
            "null": expected,
            "flag": flag,
        }
