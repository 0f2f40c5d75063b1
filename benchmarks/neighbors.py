"""Time nearest neighbors against their peers on one cloud, and measure the error of each.

    python benchmarks/neighbors.py --rows 20000 --cloud realistic
    python benchmarks/neighbors.py --file activations.npy

Threads are those of the process: set OMP_NUM_THREADS. The error is the largest relative one of the k distances
of 200 random rows, against direct float64 differences. The ratio is the time divided by that of lmshape.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import time
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.distance import cdist

from lmshape.geometry import neighbors

if TYPE_CHECKING:
    from collections.abc import Callable

TILE = 1024
CHECKED_ROWS = 200


def realistic(rows: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Spectrum 1/i^1.2 on random axes, two rogue dimensions, and 0.4 % of the rows at 300 units a coordinate."""
    rotation = np.linalg.qr(rng.standard_normal((width, width)))[0]
    x = (rng.standard_normal((rows, width)) * np.arange(1, width + 1) ** -0.6) @ rotation
    x[:, [5, 17]] += np.array([1500.0, -1500.0]) + 3 * rng.standard_normal((rows, 2))
    x[rng.choice(rows, rows // 250, replace=False)] += 300 * rng.standard_normal(width)
    return x.astype(np.float32)


def isotropic(rows: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Noise, the same in every direction: no axis can be spared."""
    return rng.standard_normal((rows, width)).astype(np.float32)


CLOUDS = {"realistic": realistic, "isotropic": isotropic}


def ours(x: np.ndarray, k: int) -> np.ndarray:
    """What is measured here: large clouds through pruned candidates."""
    return neighbors.nearest_neighbors(x, k).distances


def all_pairs(x: np.ndarray, k: int) -> np.ndarray:
    """What small clouds get: no pruning, no symmetry."""
    points = x.astype(np.float64)[neighbors.unique_rows(x)]
    return neighbors._search_all(points, k, TILE)[0]


def scikit_learn(x: np.ndarray, k: int) -> np.ndarray:
    """Search by brute force in float64."""
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(x.astype(np.float64))
    return search.kneighbors()[0]


def product_alone(x: np.ndarray, k: int) -> None:
    """Multiply x by its transpose in float32, and look at nothing: no neighbors come of it."""
    for start in range(0, len(x), TILE):
        x[start : start + TILE] @ x.T


def faiss(x: np.ndarray, k: int) -> np.ndarray:
    """Search the flat index of faiss, float32."""
    import faiss

    index = faiss.IndexFlatL2(x.shape[1])
    index.add(x)
    return np.sqrt(index.search(x, k + 1)[0][:, 1:])


def largest_error(x: np.ndarray, found: np.ndarray, rng: np.random.Generator) -> float:
    """Return the largest relative error of the distances of some rows."""
    rows = rng.choice(len(x), min(CHECKED_ROWS, len(x)), replace=False)
    exact = cdist(x[rows].astype(np.float64), x.astype(np.float64))
    exact[np.arange(len(rows)), rows] = np.inf
    exact = np.sort(exact, axis=1)[:, : found.shape[1]]
    return float(np.max(np.abs(found[rows] - exact) / exact))


def timed(method: Callable[[np.ndarray, int], np.ndarray | None], x: np.ndarray, k: int, repeats: int):
    """Return the shortest time of some runs, in seconds, and what they found."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        found = method(x, k)
        seconds.append(time.perf_counter() - start)
    return min(seconds), found


def report(name: str, x: np.ndarray, k: int, repeats: int, rng: np.random.Generator) -> None:
    """Print the table of one cloud."""
    print(f"\n{name}: {len(x)} x {x.shape[1]}, k = {k}, threads {os.environ.get('OMP_NUM_THREADS', 'all')}")
    print(f"{'method':16}{'seconds':>9}{'ratio':>8}{'largest error':>16}")
    base, found = timed(ours, x, k, repeats)
    print(f"{'ours':16}{base:9.2f}{1:8.2f}{largest_error(x, found, rng):16.1e}", flush=True)
    others = [all_pairs, scikit_learn, product_alone]
    for method in [*others, faiss] if importlib.util.find_spec("faiss") else others:
        seconds, found = timed(method, x, k, repeats)
        error = "-" if found is None else f"{largest_error(x, found, rng):.1e}"
        print(f"{method.__name__:16}{seconds:9.2f}{seconds / base:8.2f}{error:>16}", flush=True)


def main() -> None:
    """Read the arguments and print a table for each cloud."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--neighbors", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=1, help="runs of each method; the shortest counts")
    parser.add_argument("--cloud", choices=CLOUDS, action="append")
    parser.add_argument("--file", help="an .npy file of activations (rows, width) in place of the clouds")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    if arguments.file:
        clouds = {arguments.file: np.load(arguments.file).astype(np.float32)[: arguments.rows]}
    else:
        names = arguments.cloud or list(CLOUDS)
        clouds = {name: CLOUDS[name](arguments.rows, arguments.width, rng) for name in names}
    ours(isotropic(9000, 512, rng), 2)  # compiles, where that has not been done yet
    for name, x in clouds.items():
        unique = np.ascontiguousarray(x[neighbors.unique_rows(x)])
        report(name, unique, arguments.neighbors, arguments.repeats, rng)


if __name__ == "__main__":
    main()
