"""The clouds that methods are compared on, as files, and what is true of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.distance import cdist

from benchmarks import BENCH
from benchmarks.assets import DECODER, ENCODER, Asset, activations
from lmshape.geometry import unique_rows
from lmshape.store.activations import Activations

ROWS = 20_000
CHECKED_ROWS = 500
MOST_NEIGHBORS = 64


@dataclass(frozen=True, slots=True)
class Cloud:
    """Rows of one site of a model; without a model, isotropic noise of the decoder's width.

    Attributes
    ----------
    name, title : of its file, and in the tables
    asset, layer : where the rows come from
    neighbors : the k to search
    """

    name: str
    title: str
    asset: Asset | None
    layer: int
    neighbors: tuple[int, ...]


CLOUDS = (
    Cloud("decoder-00", "SmolLM2, embedding", DECODER, 0, (2,)),
    Cloud("decoder-05", "SmolLM2, block 5", DECODER, 5, (2,)),
    Cloud("decoder-15", "SmolLM2, block 15, massive activations", DECODER, 15, (2, 64)),
    Cloud("decoder-30", "SmolLM2, block 30, the last", DECODER, 30, (2,)),
    Cloud("encoder-03", "MiniLM, block 3", ENCODER, 3, (2, 64)),
    Cloud("isotropic", "isotropic noise", None, 0, (2,)),
)


def rows_of(cloud: Cloud, rows: int = ROWS) -> np.ndarray:
    """Return the first unique rows of a cloud, (at most `rows`, d) float32, contiguous."""
    if cloud.asset is None:
        return np.random.default_rng(0).standard_normal((rows, 576), dtype=np.float32)
    with Activations(activations(cloud.asset)) as reader:
        site = next(site for site in reader.sites if site.path == f"layers/{cloud.layer:02d}")
        x = reader.read(site)
    return np.ascontiguousarray(x[unique_rows(x)][:rows])


def saved(cloud: Cloud, rows: int = ROWS, folder: Path = BENCH / "clouds") -> Path:
    """Return the file of a cloud, written the first time."""
    path = folder / f"{cloud.name}-{rows}.npy"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, rows_of(cloud, rows))
    return path


@dataclass(frozen=True, slots=True)
class Exact:
    """The distances of some rows of a cloud to their nearest others, by direct float64 differences.

    Attributes
    ----------
    rows : (m,) which rows
    distances : (m, k) ascending
    """

    rows: np.ndarray
    distances: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, *, k: int = MOST_NEIGHBORS, checked: int = CHECKED_ROWS) -> Exact:
        """Measure `checked` random rows of x (n, d) against all."""
        rows = np.random.default_rng(0).choice(len(x), min(checked, len(x)), replace=False)
        distances = cdist(x[rows].astype(np.float64), x.astype(np.float64))
        distances[np.arange(len(rows)), rows] = np.inf
        return cls(rows, np.sort(np.partition(distances, k - 1, axis=1)[:, :k], axis=1))

    def largest_error(self, found: np.ndarray) -> float:
        """Return the largest relative error of found distances (n, k) at these rows; infinite where NaN."""
        exact = self.distances[:, : found.shape[1]]
        errors = np.abs(found[self.rows] - exact) / exact
        return float(np.nan_to_num(errors, nan=np.inf).max())
