"""Rows of a site: the pieces are the matrix, whatever their size, and the next is read while one is in use."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from lmshape.errors import InputError
from lmshape.store.activations import Rows

X = np.random.default_rng(0).standard_normal((23, 5)).astype(np.float32)


@pytest.fixture(params=["array", "file"])
def source(request: pytest.FixtureRequest, tmp_path: Path):
    if request.param == "array":
        yield X
        return
    with h5py.File(tmp_path / "x.h5", "w") as file:
        yield file.create_dataset("x", data=X, chunks=(4, 5))


@pytest.mark.parametrize("rows", [1, 3, 22, 23, 1000])
def test_pieces_are_the_rows_in_order(source, rows: int) -> None:
    cloud = Rows(source, chunk_bytes=20 * rows)
    assert cloud.shape == (23, 5)
    for _ in range(2):  # as often as needed
        pieces = list(cloud.chunks())
        assert [(piece.start, piece.stop) for piece, _ in pieces] == [
            (start, min(start + rows, 23)) for start in range(0, 23, rows)
        ]
        assert np.concatenate([part for _, part in pieces]).tobytes() == X.tobytes()


@pytest.mark.parametrize("rows", [1, 4, 30])
@pytest.mark.parametrize("index", [[], [0], [3, 4, 5, 22], range(23)])
def test_rows_of_an_index_are_taken(source, rows: int, index) -> None:
    index = np.array(index, dtype=np.int64)
    taken = Rows(source, chunk_bytes=20 * rows).take(index)
    assert taken.dtype == np.float32 and taken.tobytes() == X[index].tobytes()


def test_a_piece_smaller_than_a_row_is_a_row() -> None:
    assert len(list(Rows(X, chunk_bytes=1).chunks())) == 23


class Recorded:
    """A source that says when each piece is read."""

    shape, dtype = X.shape, X.dtype
    file = SimpleNamespace(filename="x.h5")

    def __init__(self) -> None:
        self.read: list[int] = []
        self.begun = threading.Semaphore(0)

    def __getitem__(self, piece: slice) -> np.ndarray:
        self.read.append(piece.start)
        self.begun.release()
        return X[piece]


def test_the_next_piece_is_read_before_it_is_asked_for() -> None:
    source = Recorded()
    pieces = Rows(source, chunk_bytes=20 * 5).chunks()
    next(pieces)
    assert source.begun.acquire(timeout=120) and source.begun.acquire(timeout=120)
    assert source.read == [0, 5]
    list(pieces)
    assert source.read == [0, 5, 10, 15, 20]


def test_pieces_without_a_row_that_is_taken_are_not_read() -> None:
    source = Recorded()
    Rows(source, chunk_bytes=20 * 5).take(np.array([1, 2, 21]))
    assert source.read == [0, 20]


def test_an_error_of_the_source_is_that_of_the_reader() -> None:
    class Broken(Recorded):
        def __getitem__(self, piece: slice) -> np.ndarray:
            if piece.start:
                raise OSError("truncated")
            return X[piece]

    with pytest.raises(InputError, match=r"`x\.h5` is damaged \(.*truncated"):
        list(Rows(Broken(), chunk_bytes=20 * 5).chunks())
