"""The common part of the three HDF5 formats: name and version, typed attributes, checksums, opening without locks.

A flipped bit is noticed when a file is read: HDF5 has checksums of all that describes the data since its version 1.10,
and of the data themselves by the filter fletcher32. It has none of strings of variable length, which are not used.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from lmshape.errors import InputError, first_line
from lmshape.writing import written_on_scratch

FORMAT_VERSION = 1
CHECKED = ("v110", "v110")  # the version of HDF5's own format
WHOLE_CHUNK_BYTES = 2**24  # up to this size an array is one chunk
DAMAGED = (
    OSError,
    RuntimeError,
    KeyError,
    ValueError,
    TypeError,
    UnicodeError,
)  # what h5py raises when it reads

Attributes = Mapping[str, str | int | float | bool]


@contextmanager
def new_file(
    path: str | Path, name: str, attributes: Attributes | None = None, *, least_bytes: int = 0
) -> Iterator[h5py.File]:
    """Give a new file of the format `name`; it appears under its path when the block ends well.

    It is open without file locks; its names, shapes and attributes have checksums. No chunk waits in a cache: on a full
    disk HDF5 fails to write it when the file is closed, and h5py ignores that.

    Parameters
    ----------
    path, least_bytes : as `written_on_scratch` takes them
    name, attributes : root attributes
    """
    with written_on_scratch(path, least_bytes=least_bytes) as partial, _new(partial) as file:
        write_attributes(file, {"format": name, "format_version": FORMAT_VERSION, **(attributes or {})})
        yield file


@contextmanager
def _new(path: Path) -> Iterator[h5py.File]:
    """Open a new file; what the system refuses is an OSError, also on closing, where h5py raises a RuntimeError."""
    try:
        with h5py.File(path, "w", locking=False, libver=CHECKED, rdcc_nbytes=0) as file:
            yield file
    except (OSError, RuntimeError) as error:
        if refused := re.search(r"errno = (\d+)", str(error)):
            raise OSError(int(refused[1]), os.strerror(int(refused[1])), str(path)) from error
        raise


def write_array(group: h5py.Group, name: str, array: np.ndarray) -> h5py.Dataset:
    """Write an array with a checksum; one without entries has nothing to check."""
    array = np.asarray(array)
    chunks = True if array.nbytes > WHOLE_CHUNK_BYTES else array.shape
    checked = {"chunks": chunks, "fletcher32": True} if array.size and array.ndim else {}
    return group.create_dataset(name, data=array, **checked)


def name_axes(item: h5py.Dataset, *names: str, place: h5py.Group | None = None) -> None:
    """Name the axes of a dataset as netCDF does, by scales without coordinates in a group; None: the root."""
    place = item.file if place is None else place
    for axis, name, size in zip(item.dims, names, item.shape, strict=True):
        if name not in place:
            # never written: takes no room
            scale = place.create_dataset(name, shape=(size,), dtype=np.float32)
            scale.make_scale(f"This is a netCDF dimension but not a netCDF variable.{size:10d}")
        axis.attach_scale(place[name])


@contextmanager
def noticed(path: str | Path) -> Iterator[None]:
    """Turn h5py's error for a damaged file into one sentence that names the file and the remedy."""
    try:
        yield
    except InputError:
        raise
    except DAMAGED as error:
        raise InputError(
            f"`{path}` is damaged ({first_line(error)}). Delete it, `rm {shlex.quote(str(path))}`, and run the study "
            "again."
        ) from error


def open_format(path: str | Path, name: str) -> h5py.File:
    """Open a file read-only, without file locks (network file systems), if it has the format `name`.

    Raises
    ------
    InputError
        For a file that is missing, truncated, of another format or of a version that this code does not know.
    """
    try:
        file = h5py.File(path, "r", locking=False)
    except FileNotFoundError as error:
        raise InputError(f"`{path}` does not exist; run the job that makes it.") from error
    except OSError as error:
        raise InputError(
            f"`{path}` cannot be read as HDF5 ({error}); it is truncated or not HDF5. "
            "Delete it and run the job that makes it."
        ) from error
    try:
        with noticed(path):
            _check_format(file, path, name)
    except InputError:
        file.close()
        raise
    return file


def _check_format(file: h5py.File, path: str | Path, name: str) -> None:
    found = _plain(file.attrs.get("format"))
    if found != name:
        what = "no format" if found is None else f"the format `{found}`"
        raise InputError(f"`{path}` has {what}; `{name}` is needed. Delete it and run the job that makes it.")
    version = int(file.attrs["format_version"])
    if version != FORMAT_VERSION:
        raise InputError(
            f"`{path}` is `{name}` version {version}; this lmshape reads version {FORMAT_VERSION}. "
            "Delete it and run the job that makes it, or use the lmshape that wrote it."
        )


def write_attributes(item: h5py.HLObject, attributes: Attributes) -> None:
    """Store text, numbers and truth values as attributes."""
    for key, value in attributes.items():
        if isinstance(value, str):
            text = value.encode()
            item.attrs.create(key, text, dtype=h5py.string_dtype("utf-8", max(1, len(text))))
        else:
            item.attrs[key] = value


def read_attributes(item: h5py.HLObject) -> dict[str, str | int | float]:
    """Attributes as plain Python values; the format's own name and version are left out."""
    return {
        key: _plain(value) for key, value in item.attrs.items() if key not in ("format", "format_version")
    }


def _plain(value: object) -> str | int | float:
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if isinstance(value, np.generic) else value  # type: ignore[return-value]
