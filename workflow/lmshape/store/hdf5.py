"""What the three HDF5 formats share: name and version, typed attributes, opening without file locks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from lmshape.errors import InputError

FORMAT_VERSION = 1

Attributes = Mapping[str, str | int | float | bool]


def write_format(file: h5py.File, name: str) -> None:
    """Say in the root attributes which format this is."""
    file.attrs["format"] = name
    file.attrs["format_version"] = FORMAT_VERSION


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
        _check_format(file, path, name)
    except InputError:
        file.close()
        raise
    return file


def _check_format(file: h5py.File, path: str | Path, name: str) -> None:
    found = file.attrs.get("format")
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
        item.attrs[key] = str(value) if isinstance(value, str) else value  # h5py knows no subclass of str


def read_attributes(item: h5py.HLObject) -> dict[str, str | int | float]:
    """Attributes as plain Python values; the format's own name and version are left out."""
    return {
        key: value.item() if isinstance(value, np.generic) else value
        for key, value in item.attrs.items()
        if key not in ("format", "format_version")
    }
