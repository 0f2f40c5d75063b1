"""64 bits for each row of a matrix: equal rows get equal ones, different rows hardly ever."""

from __future__ import annotations

import numpy as np

HASHED_BYTES = 2**21  # of rows at a time: what is made of them stays in the cache


def row_hashes(rows: np.ndarray) -> np.ndarray:
    """Return 64 bits for each row, the same for equal rows and hardly ever for others.

    Parameters
    ----------
    rows : (n, d) of any real dtype; 0.0 and −0.0 are the same

    Returns
    -------
    (n,) uint64, the same on every run; of rows of different dtypes they do not compare. Two different rows of
    10⁶ meet by chance once in 10⁷ such matrices: compare the rows where one error matters.
    """
    n, d = rows.shape
    words = -(-d * rows.dtype.itemsize // 8)
    # odd factors: a product loses no bit of a word. Two rounds, for the highest bit, the sign of a number, is
    # multiplied to nothing but itself in the first
    factors = np.random.default_rng(0).integers(2**63, size=(2, words), dtype=np.uint64) * np.uint64(2)
    factors += np.uint64(1)
    hashes = np.empty(n, dtype=np.uint64)
    step = max(1, HASHED_BYTES // (8 * words))
    padded = np.zeros((min(step, n), words * 8 // rows.dtype.itemsize), dtype=rows.dtype)
    for start in range(0, n, step):
        block = padded[: min(step, n - start)]
        block[:, d:] = 0
        with np.errstate(invalid="ignore"):  # a signaling NaN is a row like others
            np.add(
                rows[start : start + step], np.zeros((), rows.dtype), out=block[:, :d]
            )  # −0.0 + 0.0 is 0.0
        bits = block.view(np.uint64)
        bits ^= bits >> np.uint64(32)  # a number of few digits has zeros in its lower half
        bits *= factors[0]
        bits ^= bits >> np.uint64(29)
        bits *= factors[1]
        bits ^= bits >> np.uint64(32)
        hashes[start : start + step] = bits.sum(axis=1)
    return hashes
