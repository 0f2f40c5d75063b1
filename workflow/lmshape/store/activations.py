"""The activation store: every layer of one (model, checkpoint, dataset), one float32 matrix a site."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

import h5py
import numpy as np

from lmshape.planning.activation_size import chunk_rows, stored_bytes
from lmshape.store.hdf5 import Attributes, open_format, read_attributes, write_attributes, write_format
from lmshape.store.rows import CHUNK_BYTES as PIECE_BYTES
from lmshape.store.rows import Rows
from lmshape.store.site import Site, mark, sited
from lmshape.store.token_file import read_token_group, write_token_group
from lmshape.texts.tokens import Tokens
from lmshape.writing.scratch import written_on_scratch

ACTIVATIONS_FORMAT = "lmshape-activations"


class ActivationWriter:
    """Write the activations of one cell; the file appears under its name only when every row is there.

    Layout: `/tokens/{id,sequence,position,draw,special,nll,sequence_bytes,type_id,type_text}`,
    `/layers/00` … `/layers/NN` and `/final_norm`, each (n, width) float32, chunked by rows, not compressed
    (genuine float32 shrinks by a tenth and costs the disk's speed). Root attributes: `format`,
    `format_version` and `attributes`.

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
        On a site that was not announced, rows of another shape or type, or an end before every row is there.
    """

    def __init__(
        self, path: str | Path, *, sites: Sequence[Site], width: int, tokens: Tokens, attributes: Attributes
    ) -> None:
        self._path = Path(path)
        self._tokens = tokens
        self._attributes = attributes
        self._shape = (len(tokens.ids), width)
        self._missing = dict.fromkeys(sites, len(tokens.ids))

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            partial = stack.enter_context(written_on_scratch(self._path, least_bytes=self._bytes()))
            self._file = stack.enter_context(h5py.File(partial, "w", locking=False))
            self._create()
            stack.push(self._refuse_incomplete)
            self._open = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)

    def write(self, site: Site, start: int, rows: np.ndarray) -> None:
        """Write rows `start`, `start` + 1, … of a site; each row is written exactly once, in any order."""
        if site not in self._missing:
            raise ValueError(f"`site` is {site}; this file was announced with {list(self._missing)}.")
        n, width = self._shape
        if rows.dtype != np.float32 or rows.shape[1:] != (width,) or not 0 <= start <= n - len(rows):
            raise ValueError(
                f"`rows` is {rows.dtype} {rows.shape} from row {start}; "
                f"it must be float32 (m, {width}) within {n} rows."
            )
        self._file[site.path][start : start + len(rows)] = rows
        self._missing[site] -= len(rows)

    def write_nll(self, start: int, values: np.ndarray) -> None:
        """Write the negative log-likelihoods, nats, of tokens `start`, …; what is never written stays NaN."""
        self._file["tokens/nll"][start : start + len(values)] = values

    def _bytes(self) -> int:
        n, width = self._shape
        return stored_bytes(n, width, sites=len(self._missing), types=len(self._tokens.texts))

    def _create(self) -> None:
        n, width = self._shape
        write_format(self._file, ACTIVATIONS_FORMAT)
        write_attributes(self._file, self._attributes)
        tokens = write_token_group(self._file, self._tokens)
        tokens.create_dataset("nll", shape=(n,), dtype=np.float32, fillvalue=np.nan)
        chunks = (chunk_rows(n, width), width)
        for site in self._missing:
            rows = self._file.create_dataset(site.path, shape=self._shape, dtype=np.float32, chunks=chunks)
            mark(rows, site)

    def _refuse_incomplete(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        absent = [f"{count} rows of {site.path}" for site, count in self._missing.items() if count]
        if kind is None and absent:
            raise ValueError(f"`{self._path}` is not whole: {', '.join(absent)} were not written.")


class Activations:
    """Read the activations of one cell; use as a context manager.

    Opened read-only and without file locks. Memory: one site at a time with `read`, two pieces of 64 MiB with
    the chunks of `rows`. `InputError` for a file that is missing, truncated, or of another format or version.
    """

    def __init__(self, path: str | Path) -> None:
        self._file = open_format(Path(path), ACTIVATIONS_FORMAT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @cached_property
    def attributes(self) -> dict[str, str | int | float]:
        """Root attributes, as they were given to the writer."""
        return read_attributes(self._file)

    @cached_property
    def sites(self) -> list[Site]:
        """Sites in the order of the network."""
        return list(sited(self._file))

    @cached_property
    def tokens(self) -> Tokens:
        """The tokens, row by row."""
        return read_token_group(self._file)

    @cached_property
    def nll(self) -> np.ndarray:
        """(n,) float32, nats; NaN where a token has no loss."""
        return self._file["tokens/nll"][:]

    def digest(self, sites: Sequence[Site]) -> str:
        """Hash of the tokens with all that is known of them, their losses, and every row of some sites; 64 digits."""
        digest = hashlib.sha256(self._file["tokens/nll"][:].tobytes())
        for name, column in sorted(self._file["tokens"].items()):
            values = column.asstr()[:] if h5py.check_string_dtype(column.dtype) else column[:]
            digest.update(f"{name} {values.dtype} {values.shape}".encode())
            digest.update("\0".join(values).encode() if values.dtype == object else values.tobytes())
        for site in sites:
            rows = self._rows(site)
            digest.update(f"{site.path} {rows.shape}".encode())
            step = max(1, PIECE_BYTES // (4 * rows.shape[1]))
            for start in range(0, len(rows), step):
                digest.update(rows[start : start + step])
        return digest.hexdigest()

    @property
    def width(self) -> int:
        """Entries of a row, d."""
        return self._file[self.sites[0].path].shape[1]

    def read(self, site: Site) -> np.ndarray:
        """(n, d) float32 rows of a site."""
        return self._rows(site)[:]

    def rows(self, site: Site) -> Rows:
        """The (n, d) float32 rows of a site, in pieces; a site that is no more than one is read at once."""
        cloud = self._rows(site)
        return Rows(cloud[:] if 4 * cloud.size <= PIECE_BYTES else cloud)

    def _rows(self, site: Site) -> h5py.Dataset:
        if site not in self.sites:
            raise ValueError(f"`site` is {site}; `{self._file.filename}` has {self.sites}.")
        return self._file[site.path]
