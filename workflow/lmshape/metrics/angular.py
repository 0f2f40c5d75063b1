"""Angular family: mean cosine and norms of the rows of a layer, pooled and with each draw left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import accumulate
from math import inf

import numpy as np

from lmshape.geometry.angular import (
    MASSIVE,
    DirectionSums,
    Norms,
    count_over,
    massive_limits,
    median_magnitudes,
    peaks,
    summaries,
)
from lmshape.geometry.checks import lengths
from lmshape.geometry.threads import product_threads_of
from lmshape.metrics.layer import Arrays, Found, Layer, Measured
from lmshape.metrics.metric import Family, Metric, kept_array
from lmshape.metrics.rows import BLOCK_ENTRIES, parts_of, robust_center
from lmshape.store.hdf5 import Attributes

NORMS = ("rows", "norm_median", "norm_max", "activation_max", "massive_count")


def statistics(layer: Layer) -> dict[str, Found]:
    """Return mean cosines and norms of the rows of each choice, rows in K draws: O(K n d) time, O(K d + n) memory.

    `mean_cosine` (K + 1,): entry 0 of all rows, entry j without draw j - 1; `mean_cosine_centered` the same
    after subtracting the mean of the rows. Zero rows have no direction and are left out; the attribute
    `zero_rows` counts them, and `flag_mean_cosine` says so where there are any. The others, (K + 1,) too, are
    those of `lmshape.geometry.angular.Norms`.

    Two passes, the second about the means that the first has found; where an entry is over 100, three more for the
    median magnitude and the count.
    """
    with product_threads_of(1):  # products of a dozen columns: threads would only wait
        measured = _Angles(layer)
        plain, centered, norms = measured.plain(), measured.centered(), measured.norms()
    found: dict[str, Found] = {}
    for name, own in measured.spans.items():
        arrays = {"mean_cosine": plain[own], "mean_cosine_centered": centered[own]}
        arrays |= {key: np.array([getattr(part, key) for part in norms[own]], np.float64) for key in NORMS}
        found[name] = arrays, _attributes(norms[own][0].zero_rows)
    return found


def _attributes(zero_rows: int) -> Attributes:
    # `gather` shows it beside this metric alone: the others count the row, which has a norm
    flag = {"flag_mean_cosine": f"{zero_rows} zero rows left out"} if zero_rows else {}
    return {"flag": "", "zero_rows": zero_rows, **flag}


def missing(*, rows: int, width: int, draws: int, rows_per_draw: int | None = None) -> Arrays:
    """Return the arrays of `statistics`, NaN, for rows that have no mean cosine."""
    return {name: np.full(draws + 1, np.nan) for name in ("mean_cosine", "mean_cosine_centered", *NORMS)}


class _Angles:
    """The passes over the rows of a layer; `subsets` are the entries of all choices, one after the other.

    Attributes
    ----------
    spans : name of the choice → which of `subsets` are its own
    """

    def __init__(self, layer: Layer) -> None:
        self._rows = layer.rows
        self._parts = parts_of(layer.draw, layer.kept)
        by_choice = {name: self._parts.subsets(name) for name in layer.kept}
        self._subsets = [subset for subsets in by_choice.values() for subset in subsets]
        ends = list(accumulate(map(len, by_choice.values())))
        self.spans = {name: slice(a, b) for name, a, b in zip(by_choice, [0, *ends], ends, strict=False)}
        self._center = robust_center(layer.rows, layer.kept)
        self._first_pass()

    def _first_pass(self) -> None:
        """Take the norms and peaks of the rows, and of each part its count, its sum and that of its directions."""
        n, width = self._rows.shape
        self._norms, self._peaks = np.zeros(n), np.zeros(n)
        self._counts, self._sums = np.zeros(self._parts.count), np.zeros((self._parts.count, width))
        self._directions = DirectionSums(np.zeros(width), np.zeros((self._parts.count, width)))
        for part, where, rows in self._parts.blocks(self._rows, BLOCK_ENTRIES):
            self._norms[where], self._peaks[where] = lengths(rows), peaks(rows)
            self._counts[part] += len(rows)
            self._sums[part] += (rows - self._center).sum(axis=0)
            self._directions.update(rows, [part])

    def plain(self) -> np.ndarray:
        """Return the mean cosine of the rows as they are, for each subset."""
        return self._directions.mean_cosines(self._subsets)

    def centered(self) -> np.ndarray:
        """Return the mean cosine of the rows less the mean of their subset, for each subset."""
        means = [self._sums[own].sum(axis=0) / self._counts[own].sum() for own in self._subsets]
        directions = DirectionSums(self._center, self._center + np.stack(means))
        members = [
            [own for own, subset in enumerate(self._subsets) if part in subset]
            for part in range(self._parts.count)
        ]
        for part, rows in self._blocks():
            directions.update(rows, members[part])
        return directions.mean_cosines([[own] for own in range(len(self._subsets))])

    def norms(self) -> list[Norms]:
        """Return the lengths of the rows and the massive entries, for each subset."""
        masks = [np.isin(self._parts.label, subset) for subset in self._subsets]
        return summaries(self._norms, self._peaks, masks, self._massive())

    def _massive(self) -> Sequence[int]:
        if self._peaks.max() <= MASSIVE:  # no median is needed to know that there are none
            return [0] * len(self._subsets)
        limits = massive_limits(median_magnitudes(self._blocks, self._subsets))
        return count_over(self._blocks, limits, self._subsets).tolist()

    def _blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        for part, _, rows in self._parts.blocks(self._rows, BLOCK_ENTRIES):
            yield part, rows


def _count(arrays: Arrays, *, array: str) -> np.ndarray:
    """Return a count; without a draw, per as many rows as there are in all: else fewer rows would be fewer hits."""
    return arrays[array] * (arrays["rows"][0] / arrays["rows"])


_angular = partial(Metric, family="angular", interval="jackknife")
_cosine = partial(_angular, low=-1.0, high=1.0, range="[-1/(n - 1), 1]")
_magnitude = partial(_angular, low=0.0, high=inf, range="[0, ∞)", undefined="no rows")
# A draw either holds the largest row or does not: left out in turn, draws say nothing of how it varies. Such
# intervals cover 66 and 72 % in place of 95 %: tests/unit/test_coverage.py.
_maximum = partial(_magnitude, interval="none", no_interval="a maximum of a sample has none")

ANGULAR = Family(
    "angular",
    measured=Measured(name="angular", statistics=statistics, missing=missing),
    metrics=(
        _cosine(
            name="mean_cosine",
            definition="mean cosine between two different rows, as they are",
            null="0 for directions without preference",
            source="Ethayarajh 2019, arXiv 1909.00512",
            undefined="fewer than two rows that are not zero",
            values=partial(kept_array, array="mean_cosine"),
        ),
        _cosine(
            name="mean_cosine_centered",
            definition="mean cosine between two different rows after subtracting the mean row",
            null="0, and near 0 for most clouds: what the mean row leaves of mean_cosine",
            source="Ethayarajh 2019, arXiv 1909.00512",
            undefined="fewer than two rows that differ from the mean",
            values=partial(kept_array, array="mean_cosine_centered"),
        ),
        _magnitude(
            name="norm_median",
            definition="median Euclidean norm of the rows, as they are",
            null="about s√d for coordinates of mean 0 and standard deviation s",
            source="Ethayarajh 2019, arXiv 1909.00512",
            values=partial(kept_array, array="norm_median"),
        ),
        _maximum(
            name="norm_max",
            definition="largest Euclidean norm of a row, as it is",
            null="slightly above norm_median; a row over 10 × norm_median is a sink",
            source="Sun et al. 2024, arXiv 2402.17762",
            values=partial(kept_array, array="norm_max"),
        ),
        _maximum(
            name="activation_max",
            definition="largest magnitude of an entry",
            null="about s√(2 ln nd) for Gaussian entries of standard deviation s",
            source="Sun et al. 2024, arXiv 2402.17762",
            values=partial(kept_array, array="activation_max"),
        ),
        _magnitude(
            name="massive_count",
            definition="entries of magnitude over 100 and over 1000 × the median magnitude of the layer",
            range="[0, nd], whole; its interval is not",
            null="0: no Gaussian entry is that far out",
            source="Sun et al. 2024, arXiv 2402.17762; Owen et al. 2025",
            values=partial(_count, array="massive_count"),
        ),
    ),
)
