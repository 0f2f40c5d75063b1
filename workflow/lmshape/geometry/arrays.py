"""Dense algebra in float64: NumPy and SciPy in memory, torch on a GPU.

A device is None, which is memory, or a torch device. Sums over rows are matrices on one device from the first product
to their eigenvalues or factors; what is d numbers long, or shorter, is an array in memory. Arithmetic, `@`, slices,
`sum` and `mean` are spelled alike for arrays and tensors; the rest is here. Without a device torch is not imported.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from scipy.linalg import eigh
from scipy.linalg.blas import dtrmm
from scipy.linalg.lapack import dpocon, dpotrf, dtrtrs

from lmshape.geometry.threads import product_threads_of

Device = Any  # a torch.device, or None
Array = Any  # an array, or a tensor on a device
# Kinds of device with float64: Apple's GPU has none, and a CPU's tensors are arrays.
COMPUTED_ON = frozenset({"cuda"})
BLOCK = 256  # columns of a matrix that are worked on at once
FEWEST_COLUMNS_FOR_THREADS = 1024  # of a matrix that several threads decompose


def computing_device(device: Device) -> Device:
    """Return a device if float64 is computed there, None if it is computed in memory."""
    return device if getattr(device, "type", None) in COMPUTED_ON else None


def device_of(x: object) -> Device:
    """Return the device of a tensor that is computed on there; None for all else."""
    torch = sys.modules.get("torch")
    return computing_device(x.device) if torch is not None and isinstance(x, torch.Tensor) else None


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether a GPU ran out of memory."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(error, torch.cuda.OutOfMemoryError)


def on(x: Array, device: Device) -> Array:
    """Move an array or a tensor to a device, unless it is there."""
    if device is None:
        return in_memory(x)
    import torch

    return torch.as_tensor(x, device=device)


def double(x: Array, device: Device) -> Array:
    """Move to a device as stored, and convert to float64 there."""
    x = on(x, device)
    return x.astype(np.float64, copy=False) if device is None else x.double()


def in_memory(x: Array) -> np.ndarray:
    """Return a tensor, or an array, as an array."""
    return x if isinstance(x, np.ndarray) else x.cpu().numpy()


def is_single(x: Array) -> bool:
    """Tell whether an array or a tensor of floats is in float32."""
    return x.dtype.itemsize == 4  # the types of NumPy and torch never equal each other


def stacked(parts: Sequence[Array]) -> Array:
    """Return the rows of arrays, or of tensors on one device, one behind the other; of one part itself."""
    if len(parts) == 1:
        return parts[0]
    return (
        np.concatenate(parts) if isinstance(parts[0], np.ndarray) else sys.modules["torch"].cat(list(parts))
    )


def zeros(shape: tuple[int, ...], device: Device) -> Array:
    """Return zeros in float64."""
    if device is None:
        return np.zeros(shape)
    import torch

    return torch.zeros(shape, dtype=torch.float64, device=device)


def outer(a: np.ndarray, b: np.ndarray, device: Device) -> Array:
    """Return the products of two vectors in memory as a matrix on a device."""
    return on(a, device)[:, None] * on(b, device)


def sum_of_squares(matrix: Array) -> float:
    """Return Σ x² of a matrix."""
    if isinstance(matrix, np.ndarray):
        # without BLAS, whose threads cost more than they save on so little work
        return float(np.einsum("ij,ij->", matrix, matrix))
    return float(matrix.square().sum())


def norm_of(matrix: Array) -> float:
    """Return the root of Σ x² of a matrix."""
    return float(np.linalg.norm(matrix) if isinstance(matrix, np.ndarray) else matrix.norm())


def squared_lengths(rows: Array) -> Array:
    """Return Σ x² of each row (m, d), (m,) on the device of the rows."""
    return np.einsum("ij,ij->i", rows, rows) if isinstance(rows, np.ndarray) else rows.square().sum(1)


def _threads_that_help(matrix: np.ndarray) -> AbstractContextManager:
    """Give a context in which a small matrix is decomposed by one thread.

    At 576 columns a second one saves a quarter of 12 milliseconds on an idle machine. On a busy one both wait for each
    other, and a decomposition takes 300.
    """
    return product_threads_of(1 if len(matrix) < FEWEST_COLUMNS_FOR_THREADS else None)


def eigenvalues_of(matrix: Array) -> np.ndarray:
    """Return the eigenvalues of a symmetric matrix, ascending, in memory."""
    if isinstance(matrix, np.ndarray):
        with _threads_that_help(matrix):
            return np.linalg.eigvalsh(matrix)
    return in_memory(sys.modules["torch"].linalg.eigvalsh(matrix))


def eigenvectors_of(matrix: Array) -> tuple[np.ndarray, Array]:
    """Return the eigenvalues of a symmetric matrix, which is overwritten, ascending in memory, and the vectors."""
    if isinstance(matrix, np.ndarray):
        with _threads_that_help(matrix):
            return eigh(matrix, lower=True, overwrite_a=True, check_finite=False)
    values, vectors = sys.modules["torch"].linalg.eigh(matrix)
    return in_memory(values), vectors


def operator_of(matrix: Array) -> Any:
    """Return a matrix as SciPy's iterations take it: by its products with vectors in memory."""
    if isinstance(matrix, np.ndarray):
        return matrix
    from scipy.sparse.linalg import LinearOperator

    def product(vector: np.ndarray) -> np.ndarray:
        return in_memory(matrix @ on(vector, matrix.device))

    return LinearOperator(tuple(matrix.shape), matvec=product, dtype=np.float64)


def cholesky(matrix: Array) -> Array | None:
    """Return the lower factor of a symmetric matrix, which is overwritten; None where it is not positive definite."""
    if isinstance(matrix, np.ndarray):
        lower, failed = dpotrf(matrix.T, lower=1, overwrite_a=1)
    else:
        lower, failed = sys.modules["torch"].linalg.cholesky_ex(matrix)
    return None if int(failed) else lower


def inverse_size(lower: Array) -> float:
    """Return 1/‖H⁻¹‖₁ of H = lower @ lower', at most its smallest eigenvalue; in memory an estimate from above."""
    if isinstance(lower, np.ndarray):
        return float(dpocon(lower, 1.0, uplo="L")[0])
    return 1 / float(sys.modules["torch"].cholesky_inverse(lower).abs().sum(0).max())


def solved(lower: Array, right: Array, *, transposed: bool = False) -> Array:
    """Return lower⁻¹ @ right, or lower'⁻¹ @ right."""
    if isinstance(lower, np.ndarray):
        return dtrtrs(lower, right, lower=1, trans=int(transposed))[0]
    solve = sys.modules["torch"].linalg.solve_triangular
    return solve(lower.T, right, upper=True) if transposed else solve(lower, right, upper=False)


def solved_lower(lower: Array, right: Array) -> Array:
    """Return lower⁻¹ @ right of two lower triangular matrices, which is a third."""
    d = len(lower)
    found = zeros((d, d), device_of(lower)).T  # BLAS needs contiguous columns
    for own in blocks(d):
        found[own.start :, own] = solved(lower[own.start :, own.start :], right[own.start :, own])
    return found


def blocks(width: int) -> Iterator[slice]:
    """Yield columns by few enough to stay in the cache."""
    return (slice(start, start + BLOCK) for start in range(0, width, BLOCK))


def triangle_with_identity(matrix: Array) -> Array:
    """Return a lower L with LL' = I + matrix' @ matrix: of the rows themselves, whose squares would lose digits."""
    if isinstance(matrix, np.ndarray):
        return np.linalg.qr(np.vstack([matrix, np.eye(matrix.shape[1])])).R.T
    torch = sys.modules["torch"]
    return torch.linalg.qr(torch.vstack([matrix, torch.eye(matrix.shape[1]).to(matrix)])).R.T


def times_transposed(lower: Array, right: Array) -> Array:
    """Return lower' @ right."""
    return dtrmm(1.0, lower, right, lower=1, trans_a=1) if isinstance(lower, np.ndarray) else lower.T @ right
