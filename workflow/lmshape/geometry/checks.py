"""Input of the geometry: NumPy arrays and torch tensors of any real dtype become clean float64 arrays.

The functions behind these checks compute on finite float64 for every storage type: massive activations cost float32
seven digits. torch is never imported here; a tensor can only come from a caller who has imported it.
"""

from __future__ import annotations

import operator
import sys
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


LARGEST = 1e100  # sums of squares stay in float64; float32 ends at 3e38
SMALLEST = 1e-100  # squares of what is smaller vanish; float32 ends at 1e-45


def as_matrix(x: ArrayLike, *, name: str = "x", minimum_rows: int = 2) -> np.ndarray:
    """Return `x` as a float64 matrix whose rows are points.

    Parameters
    ----------
    x : (n, d) array or torch tensor of any real dtype, on any device; not modified
    name : what the errors call it
    minimum_rows : the fewest rows that the caller can work with

    Returns
    -------
    (n, d) float64, C-contiguous; the array itself where it is that already.

    Raises
    ------
    ValueError
        When `x` is complex or not two-dimensional, has no columns or too few rows, or holds entries that are
        not finite or over 1e100, or none over 1e-100 but zeros.
    """
    matrix = np.ascontiguousarray(_refused_unless_matrix(x, name, minimum_rows), dtype=np.float64)
    _refuse_unusable(matrix, name)
    return matrix


def as_stored_matrix(x: ArrayLike, *, name: str = "x", minimum_rows: int = 2) -> np.ndarray:
    """Return `x` as `as_matrix` does, but float32 where it is stored in no more: half the memory, the same numbers.

    For functions that convert a piece of a large cloud at a time. float16 and bfloat16 become float32.
    """
    array = _refused_unless_matrix(x, name, minimum_rows)
    single = array.dtype in (np.float16, np.float32)
    matrix = np.ascontiguousarray(array, dtype=np.float32 if single else np.float64)
    _refuse_unusable(matrix, name)
    return matrix


def as_labels(labels: ArrayLike, count: int, *, name: str, booleans: bool = False) -> np.ndarray:
    """Return `labels` as int64 (count,): one whole number for each row, or with `booleans` one truth value.

    Anything else is a ValueError.
    """
    array = np.asarray(as_array(labels))
    if array.shape != (count,):
        raise ValueError(
            f"`{name}` has shape {array.shape}; one entry for each of the {count} rows is needed."
        )
    if array.dtype.kind not in ("biu" if booleans else "iu"):
        raise ValueError(
            f"`{name}` has dtype {array.dtype}; whole numbers are needed. Cast it to an integer dtype."
        )
    return array.astype(np.int64)


def as_array(x: ArrayLike) -> np.ndarray:
    """Return `x`, an array or a torch tensor on any device, with a gradient or not, as an array; else unchecked."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(x, torch.Tensor):
        return np.asarray(x)
    tensor = x.detach().cpu()
    # bfloat16 has no NumPy dtype; float32 holds it, and float16, without loss
    return (tensor.float() if tensor.is_floating_point() and tensor.itemsize < 4 else tensor).numpy()


def as_floats(x: ArrayLike) -> np.ndarray:
    """Return `x`, an array or a torch tensor, as a float64 array; else unchecked."""
    return np.asarray(as_array(x), dtype=np.float64)


def as_whole(number: int, *, name: str) -> int:
    """Return `number` as an int; 2.0 and "2" are a ValueError that calls it `name`."""
    try:
        return operator.index(number)
    except TypeError:
        raise ValueError(f"`{name}` is {number!r}; a whole number is needed. Pass an int.") from None


def _refused_unless_matrix(x: ArrayLike, name: str, minimum_rows: int) -> np.ndarray:
    array = as_array(x)
    if np.iscomplexobj(array):
        raise ValueError(
            f"`{name}` is complex; real numbers are needed. Pass real and imaginary part as columns."
        )
    if array.ndim != 2:
        raise ValueError(
            f"`{name}` has shape {array.shape}; it must be (rows, columns). Flatten the other axes."
        )
    if array.shape[1] < 1 or len(array) < minimum_rows:
        raise ValueError(
            f"`{name}` has shape {array.shape}; {minimum_rows} rows and 1 column are the least. Add rows."
        )
    return array


def _refuse_unusable(matrix: np.ndarray, name: str) -> None:
    # reductions only: a Boolean copy of a large cloud is made for an error message alone
    low, high = float(matrix.min()), float(matrix.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        bad = np.count_nonzero(~np.isfinite(matrix).all(axis=1))
        raise ValueError(f"`{name}` is not finite in {bad} of {len(matrix)} rows. Remove these rows.")
    size = max(-low, high)
    if size > LARGEST:
        raise ValueError(
            f"`{name}` has an entry of size {size:.1e}; the limit is {LARGEST:.0e}, "
            "since squares are summed. Rescale it."
        )
    if 0 < size < SMALLEST:
        raise ValueError(
            f"`{name}` has no entry over {size:.1e}; {SMALLEST:.0e} is the least, since squares are summed. Rescale it."
        )


# Rows that are all equal leave the rounding of their mean. What is shorter than 8 units in the last place of
# the mean is that rounding: no variance and no direction.
ROUNDING = 8 * np.finfo(np.float64).eps


def centered(rows: np.ndarray, *, overwrite: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows (n, d) less their mean, in their own memory or not, and the mean (d,), in float64.

    The mean of the differences, which is the error of the first mean (a sum of n terms is off by up to n
    units in the last place), is subtracted once more.
    """
    mean = rows.mean(axis=0)
    if overwrite:
        rows -= mean
    differences = rows if overwrite else rows - mean
    correction = differences.mean(axis=0)
    differences -= correction
    return differences, mean + correction


BLOCK_ENTRIES = 2**18  # 2 MiB in float64 at a time: squares are summed in the cache


def lengths(rows: np.ndarray) -> np.ndarray:
    """Return the norms (n,) of rows (n, d), float64; NaN or infinite for a row that is not finite."""
    norms = np.empty(len(rows))
    step = max(1, BLOCK_ENTRIES // rows.shape[1])
    for start in range(0, len(rows), step):
        block = rows[start : start + step].astype(np.float64)
        norms[start : start + step] = np.sqrt(np.einsum("ij,ij->i", block, block))
    return norms
