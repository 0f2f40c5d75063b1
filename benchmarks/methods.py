"""What is compared: one function for each way to the same numbers, ours among them, all of one signature.

Each takes the rows (n, d), float32, and the number of neighbors k, which only neighbor searches look at. It returns
float64: distances (n, k), or one dimension (1,), or anisotropy and effective rank (2,), or nothing (0,) where the
method makes no result. Everything is imported inside: each runs in a process, and DADApy in an environment, of its
own, without the packages of the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

Task = Literal["neighbors", "dimension", "spectrum", "rate"]

TILE = 1024
BATCH = 8192  # rows at a time of the streamed covariance


@dataclass(frozen=True, slots=True)
class Method:
    """A way to a result, and where it comes from.

    Attributes
    ----------
    title : what the tables call it
    run : (rows, k) → result
    package : the distribution whose version the tables name; "" for none
    environment : folder below `.bench` whose Python runs it; "" for the project's own
    """

    title: str
    run: Callable[[np.ndarray, int], np.ndarray]
    package: str = ""
    environment: str = ""


def ours(x: np.ndarray, k: int) -> np.ndarray:
    """Find exact neighbors as the project does."""
    from lmshape.geometry import nearest_neighbors

    return nearest_neighbors(x, k).distances


def scikit_learn(x: np.ndarray, k: int) -> np.ndarray:
    """Search by brute force in float64."""
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=k, algorithm="brute", n_jobs=-1).fit(x.astype(np.float64))
    return search.kneighbors()[0]


def faiss(x: np.ndarray, k: int) -> np.ndarray:
    """Search the flat index, float32; the first answer is taken for the row itself."""
    import faiss

    index = faiss.IndexFlatL2(x.shape[1])
    index.add(x)
    return np.sqrt(index.search(x, k + 1)[0][:, 1:].astype(np.float64))


def dadapy(x: np.ndarray, k: int) -> np.ndarray:
    """Search with DADApy's `compute_distances`."""
    from dadapy import Data

    data = Data(coordinates=x.astype(np.float64), maxk=k)
    data.compute_distances(maxk=k)
    return np.asarray(data.distances)[:, 1 : k + 1]


def product_numpy(x: np.ndarray, k: int) -> np.ndarray:
    """Multiply x by its transpose in float32 over tiles, and look at nothing: no neighbors come of it."""
    tile = np.empty((TILE, len(x)), dtype=np.float32)
    for start in range(0, len(x), TILE):
        block = x[start : start + TILE]
        np.matmul(block, x.T, out=tile[: len(block)])
    return np.empty(0)


def product_torch(x: np.ndarray, k: int) -> np.ndarray:
    """Do the same with PyTorch's matrix product."""
    import torch

    rows = torch.from_numpy(x)
    tile = torch.empty((TILE, len(x)))
    for start in range(0, len(x), TILE):
        block = rows[start : start + TILE]
        torch.matmul(block, rows.T, out=tile[: len(block)])
    return np.empty(0)


def ours_fit(x: np.ndarray, k: int) -> np.ndarray:
    """Estimate TwoNN by the fit to the lowest 90 %, from rows to dimension."""
    from lmshape.geometry import intrinsic_dimension

    return np.array([intrinsic_dimension(x, "twonn_fit")])


def ours_fit20(x: np.ndarray, k: int) -> np.ndarray:
    """Estimate it by the fit to the lowest 20 %."""
    from lmshape.geometry import intrinsic_dimension

    return np.array([intrinsic_dimension(x, "twonn_fit20")])


def llm_microscope(x: np.ndarray, k: int) -> np.ndarray:
    """Run the loop that LLM-Microscope publishes."""
    import torch
    from llm_microscope import intrinsic_dimension

    return np.array([intrinsic_dimension(torch.from_numpy(x), "cpu")])


def scikit_dimension(x: np.ndarray, k: int) -> np.ndarray:
    """Estimate with scikit-dimension's TwoNN as it comes."""
    from skdim.id import TwoNN

    return np.array([TwoNN().fit(x.astype(np.float64)).dimension_])


def dadapy_twonn(x: np.ndarray, k: int) -> np.ndarray:
    """Estimate with DADApy's TwoNN as it comes."""
    from dadapy import Data

    return np.array([Data(coordinates=x.astype(np.float64), maxk=3).compute_id_2NN()[0]])


def ours_spectrum(x: np.ndarray, k: int) -> np.ndarray:
    """Decompose the covariance."""
    from lmshape.geometry import anisotropy_of, covariance_eigenvalues, effective_rank_of

    eigenvalues = covariance_eigenvalues(x)
    return np.array([float(anisotropy_of(eigenvalues)), float(effective_rank_of(eigenvalues))])


def ours_spectra(x: np.ndarray, k: int) -> np.ndarray:
    """Decompose it for all rows and without each of 5 draws, centered, uncentered and standardized."""
    from lmshape.geometry import anisotropy_of, effective_rank_of, leave_one_out_spectra

    draw = np.arange(len(x)) * 5 // len(x)
    eigenvalues = leave_one_out_spectra(x, draw).eigenvalues[0]
    return np.array([float(anisotropy_of(eigenvalues)), float(effective_rank_of(eigenvalues))])


def svd(x: np.ndarray, k: int) -> np.ndarray:
    """Decompose the centered rows themselves in float64: the reference."""
    import scipy.linalg

    rows = x.astype(np.float64)
    return _of_singular_values(scipy.linalg.svdvals(rows - rows.mean(axis=0), overwrite_a=True))


def llm_microscope_anisotropy(x: np.ndarray, k: int) -> np.ndarray:
    """Run the float32 decomposition that LLM-Microscope publishes; it knows no effective rank."""
    import torch
    from llm_microscope import calculate_anisotropy_torch

    return np.array([calculate_anisotropy_torch(torch.from_numpy(x)), np.nan])


def representation_geometry(x: np.ndarray, k: int) -> np.ndarray:
    """Stream the covariance and decompose it as representation-geometry does, in its default float32."""
    import torch
    from representation_geometry.metrics import metric_from_eigenvalues
    from representation_geometry.online import RunningCovariance

    sums = RunningCovariance(x.shape[1])
    for start in range(0, len(x), BATCH):
        sums.update(torch.from_numpy(x[start : start + BATCH]))
    values = torch.linalg.eigh(sums.covariance())[0].clamp_min(0).numpy()
    found = metric_from_eigenvalues(values)
    return np.array([found["top1_share"], found["d_entropy"]])


def rates(x: np.ndarray, k: int) -> np.ndarray:
    """Measure this machine's matrix product: GFLOP/s of float32 and float64, NumPy's or PyTorch's, the faster."""
    import time

    import torch

    found = []
    for dtype in (np.float32, np.float64):
        square = np.random.default_rng(0).standard_normal((k, k)).astype(dtype)
        shared = torch.from_numpy(square)
        seconds = []
        for factor in (square, shared, square, shared):
            start = time.perf_counter()
            factor @ factor
            seconds.append(time.perf_counter() - start)
        found.append(2e-9 * k**3 / min(seconds))
    return np.array(found)


def _of_singular_values(values: np.ndarray) -> np.ndarray:
    shares = np.square(values) / np.square(values).sum()
    shares = shares[shares > 0]
    return np.array([shares.max(), np.exp(-(shares * np.log(shares)).sum())])


METHODS: dict[Task, dict[str, Method]] = {
    "neighbors": {
        "ours": Method("lmshape", ours),
        "product_numpy": Method("float32 `x @ x.T` alone, NumPy", product_numpy, "numpy"),
        "product_torch": Method("float32 `x @ x.T` alone, PyTorch", product_torch, "torch"),
        "faiss": Method("faiss `IndexFlatL2`, float32", faiss, "faiss-cpu"),
        "scikit_learn": Method("scikit-learn brute force, float64", scikit_learn, "scikit-learn"),
        "dadapy": Method("DADApy `compute_distances`", dadapy, "dadapy", "dadapy"),
    },
    "dimension": {
        "ours_fit": Method("lmshape", ours_fit),
        "ours_fit20": Method("lmshape", ours_fit20),
        "scikit_dimension": Method("scikit-dimension `TwoNN`", scikit_dimension, "scikit-dimension"),
        "dadapy": Method("DADApy `compute_id_2NN`", dadapy_twonn, "dadapy", "dadapy"),
        "llm_microscope": Method("LLM-Microscope's loop", llm_microscope, "llm-microscope"),
    },
    "spectrum": {
        "ours": Method("lmshape, one spectrum", ours_spectrum),
        "ours_spectra": Method("lmshape, 3 kinds of spectrum and each without one of 5 draws", ours_spectra),
        "svd": Method("SciPy `svdvals`, float64", svd, "scipy"),
        "llm_microscope": Method("LLM-Microscope, float32 SVD", llm_microscope_anisotropy, "llm-microscope"),
        "representation_geometry": Method(
            "representation-geometry, float32 covariance", representation_geometry, "representation-geometry"
        ),
    },
    "rate": {"rates": Method("matrix product", rates)},
}
