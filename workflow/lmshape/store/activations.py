"""The activations of one (model, checkpoint, dataset), one matrix per site: in a file, or held in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Self

import h5py
import numpy as np

from lmshape.site import Site, chunk_rows, mark, sited, stored_bytes
from lmshape.store.hdf5 import (
    Attributes,
    name_axes,
    new_file,
    noticed,
    open_format,
    read_attributes,
)
from lmshape.store.tokens import Tokens, read_token_group, token_columns, write_token_group

if TYPE_CHECKING:
    import torch

    from lmshape.geometry.arrays import Array, Device

PIECE_BYTES = 2**26  # 64 MiB: long enough for matrix products at full rate, short beside any machine's memory


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

    def __init__(self, source: np.ndarray | h5py.Dataset, *, chunk_bytes: int = PIECE_BYTES) -> None:
        self._source = source
        self.shape: tuple[int, int] = source.shape
        self._step = max(1, chunk_bytes // (source.dtype.itemsize * source.shape[1]))

    def chunks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield indices and rows (m, d) in the stored dtype, in order; one piece of a file is read ahead.

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

    def on(self, device: Device) -> Rows:
        """Return the rows such that pieces which are held in memory or on a GPU come as tensors on a device."""
        return self

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
                with noticed(self._source.file.filename):
                    rows = self._source[piece] if ahead is None else ahead.result()
                if following is not None:
                    ahead = reader.submit(self._source.__getitem__, following)
                yield piece, rows


class HeldRows(Rows):
    """An (n, d) tensor, whose pieces are converted to float32 when they are read.

    Parameters
    ----------
    tensor : in the number type of the model, in memory or on a GPU
    device : where pieces are tensors; None: they are arrays
    """

    def __init__(self, tensor: torch.Tensor, device: Device = None) -> None:
        self._tensor, self._device = tensor, device
        n, d = tensor.shape
        self.shape = (n, d)
        self._step = max(1, PIECE_BYTES // (4 * d))  # pieces as those of a file: sums round alike

    def take(self, index: np.ndarray) -> Array:
        """Return the rows of an index (m,) as (m, d) float32."""
        return self._given(self._tensor[index])

    def on(self, device: Device) -> Rows:
        """Return the rows with pieces on a device."""
        return HeldRows(self._tensor, device)

    def _read(self, pieces: list[slice]) -> Iterator[tuple[slice, Array]]:
        return ((piece, self._given(self._tensor[piece])) for piece in pieces)

    def _given(self, rows: torch.Tensor) -> Array:
        # leaves a GPU as it is: fewer bytes to move, and one that is full has no room for float32
        return rows.cpu().float().numpy() if self._device is None else rows.to(self._device).float()


ACTIVATIONS_FORMAT = "lmshape-activations"


def refuse_missing(missing: Mapping[Site, int], place: str | Path) -> None:
    """Refuse activations of which rows are missing, so many of each site."""
    absent = [f"{count} rows of {site.path}" for site, count in missing.items() if count]
    if absent:
        raise ValueError(f"`{place}` is not whole: {', '.join(absent)} were not written.")


class ActivationWriter(ExitStack):
    """Write the activations of one cell; the file appears under its name only when every row is there.

    Layout: `/tokens/{id,sequence,position,draw,special,nll,sequence_bytes,type_id,type_text}`,
    `/layers/00` … `/layers/NN` and `/final_norm`, each (n, width) float32, chunked by rows, not compressed
    (genuine float32 shrinks by a tenth and costs the disk's speed). Axes are named `row` and `entry`. Root
    attributes: `format`, `format_version` and `attributes`.

    Parameters
    ----------
    path : file to write
    sites : the sites that will be written, every one completely
    width : d, entries of a row
    tokens : the n tokens, one row each
    attributes : what makes the file self-describing: model, checkpoint, dataset, versions, …

    Raises
    ------
    ValueError
        On an end before every row is there.
    """

    def __init__(
        self, path: str | Path, *, sites: Sequence[Site], width: int, tokens: Tokens, attributes: Attributes
    ) -> None:
        super().__init__()
        self._path = Path(path)
        self._tokens = tokens
        self._attributes = attributes
        self._shape = (len(tokens.ids), width)
        self._missing = dict.fromkeys(sites, len(tokens.ids))

    def __enter__(self) -> Self:
        self._file = self.enter_context(self._whole_file())
        return self

    @contextmanager
    def _whole_file(self) -> Iterator[h5py.File]:
        n, width = self._shape
        size = stored_bytes(n, width, sites=len(self._missing), types=len(self._tokens.texts))
        with new_file(self._path, ACTIVATIONS_FORMAT, self._attributes, least_bytes=size) as file:
            self._create(file)
            yield file
            refuse_missing(self._missing, self._path)

    def write(self, site: Site, start: int, rows: np.ndarray) -> None:
        """Write rows `start`, `start` + 1, … of a site; each row is written exactly once, in any order."""
        self._file[site.path][start : start + len(rows)] = rows
        self._missing[site] -= len(rows)

    def write_nll(self, start: int, values: np.ndarray) -> None:
        """Write the negative log-likelihoods, nats, of tokens `start`, …; what is never written stays NaN."""
        self._file["tokens/nll"][start : start + len(values)] = values

    def _create(self, file: h5py.File) -> None:
        n, width = self._shape
        tokens = write_token_group(file, self._tokens)
        nll = tokens.create_dataset("nll", shape=(n,), dtype=np.float32, fillvalue=np.nan, fletcher32=True)
        name_axes(nll, "row")
        chunks = (chunk_rows(n, width), width)
        for site in self._missing:
            rows = file.create_dataset(
                site.path, shape=self._shape, dtype=np.float32, chunks=chunks, fletcher32=True
            )
            name_axes(rows, "row", "entry")
            mark(rows, site)


class Activations(ExitStack):
    """Read the activations of one cell; use as a context manager.

    Opened read-only and without file locks. Memory: one site at a time with `read`, two pieces of 64 MiB with
    the chunks of `rows`. `InputError` for a file that is missing, truncated, or of another format or version.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self._file = self.enter_context(open_format(Path(path), ACTIVATIONS_FORMAT))

    @cached_property
    def attributes(self) -> dict[str, str | int | float]:
        """Root attributes, as they were given to the writer."""
        with noticed(self._file.filename):
            return read_attributes(self._file)

    @cached_property
    def sites(self) -> list[Site]:
        """Sites in the order of the network."""
        with noticed(self._file.filename):
            return list(sited(self._file))

    @cached_property
    def tokens(self) -> Tokens:
        """The tokens, row by row."""
        with noticed(self._file.filename):
            return read_token_group(self._file)

    @cached_property
    def nll(self) -> np.ndarray:
        """(n,) float32, nats; NaN where a token has no loss."""
        with noticed(self._file.filename):
            return self._file["tokens/nll"][:]

    def digest(self, sites: Sequence[Site]) -> str:
        """Hash of the tokens with all that is known of them, their losses, and every row of some sites; 64 digits."""
        digest = hashlib.sha256(self.nll.tobytes())
        for name, column in sorted({**token_columns(self.tokens), "nll": self.nll}.items()):
            digest.update(f"{name} {column.dtype} {column.shape}".encode())
            digest.update(column.tobytes())
        for site in sites:
            rows = self.rows(site)
            digest.update(f"{site.path} {rows.shape}".encode())
            for _, piece in rows.chunks():
                digest.update(piece.data)
        return digest.hexdigest()

    @property
    def width(self) -> int:
        """Entries of a row, d."""
        return self.rows(self.sites[0]).shape[1]

    def read(self, site: Site) -> np.ndarray:
        """(n, d) float32 rows of a site."""
        return self.rows(site).take(np.arange(len(self.tokens.ids)))

    def rows(self, site: Site) -> Rows:
        """The (n, d) float32 rows of a site, in pieces; a site that is no more than one is read at once."""
        with noticed(self._file.filename):
            cloud = self._file[site.path]
            return Rows(cloud[:] if 4 * cloud.size <= PIECE_BYTES else cloud)


class HeldActivations(Activations):
    """The activations of one cell in memory or on a GPU: what `Activations` reads from a file, equal to the last bit.

    Parameters
    ----------
    clouds : site → (n, d) rows, in the number type of the model
    tokens, nll, attributes : as they are written to a file
    """

    def __init__(
        self, clouds: Mapping[Site, torch.Tensor], tokens: Tokens, nll: np.ndarray, attributes: Attributes
    ) -> None:
        ExitStack.__init__(self)  # nothing to close
        self._clouds, self.sites = clouds, list(clouds)
        self.tokens, self.nll = tokens, nll
        self.attributes = dict(sorted(attributes.items()))  # in the order of a file

    def rows(self, site: Site) -> Rows:
        """The (n, d) rows of a site, in pieces of float32."""
        return HeldRows(self._clouds[site])


def open_activations(source: Path | HeldActivations) -> Activations:
    """Open a file of activations; those that are held are open."""
    return source if isinstance(source, HeldActivations) else Activations(source)
