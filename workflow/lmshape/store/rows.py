"""The rows of one site, read in pieces as often as needed, the next piece while the last is worked on."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import h5py

CHUNK_BYTES = 2**26  # 64 MiB: long enough for matrix products at full rate, short beside any machine's memory


class Rows:
    """An (n, d) matrix of rows that need not fit into memory.

    Parameters
    ----------
    source : an array, or a dataset of an open HDF5 file
    chunk_bytes : size of the pieces, as they are stored

    Attributes
    ----------
    shape : (n, d)
    """

    def __init__(self, source: np.ndarray | h5py.Dataset, *, chunk_bytes: int = CHUNK_BYTES) -> None:
        self._source = source
        self.shape: tuple[int, int] = source.shape
        self._step = max(1, chunk_bytes // (source.dtype.itemsize * source.shape[1]))

    def chunks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield which rows, and these rows (m, d) in the stored dtype, in order; one piece of a file is read ahead.

        Pieces of an array are views of it: not to be written to.
        """
        yield from self._read(self._pieces())

    def take(self, index: np.ndarray) -> np.ndarray:
        """Return the rows of an ascending index (m,) as (m, d) in the stored dtype; other pieces are not read."""
        if isinstance(self._source, np.ndarray):
            return self._source[index]
        taken = np.empty((len(index), self.shape[1]), dtype=self._source.dtype)
        bounds = [np.searchsorted(index, [piece.start, piece.stop]) for piece in self._pieces()]
        wanted = [piece for piece, (first, last) in zip(self._pieces(), bounds, strict=True) if first < last]
        for piece, rows in self._read(wanted):
            first, last = np.searchsorted(index, [piece.start, piece.stop])
            taken[first:last] = rows[index[first:last] - piece.start]
        return taken

    def _pieces(self) -> list[slice]:
        n, _ = self.shape
        return [slice(start, min(start + self._step, n)) for start in range(0, n, self._step)]

    def _read(self, pieces: list[slice]) -> Iterator[tuple[slice, np.ndarray]]:
        if isinstance(self._source, np.ndarray):
            yield from ((piece, self._source[piece]) for piece in pieces)
            return
        with ThreadPoolExecutor(1) as reader:
            ahead = None
            for piece, following in zip_longest(pieces, pieces[1:]):
                rows = self._source[piece] if ahead is None else ahead.result()
                if following is not None:
                    ahead = reader.submit(self._source.__getitem__, following)
                yield piece, rows
