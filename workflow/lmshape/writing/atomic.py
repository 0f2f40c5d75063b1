"""A file or folder that exists is right: it is written under another name and renamed when whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lmshape.writing.leftovers import owner, remove_leftovers


@contextmanager
def replaced_when_whole(path: str | Path) -> Iterator[Path]:
    """Give a name to write under; rename it to `path` when the block ends well, remove it otherwise.

    The name is `.{name}.partial-{host}-{pid}` in the folder of `path`, which is made if it does not exist. What a
    killed process left behind under such a name is removed by the next writer of the same file.
    """
    path = Path(path)
    partial = _partial_of(path)
    try:
        yield partial
        _to_disk(partial)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _to_disk(path.parent)


@contextmanager
def folder_when_whole(path: Path) -> Iterator[Path]:
    """Give a new folder to write into; rename it to `path` when the block ends well, remove it otherwise."""
    partial = _partial_of(path)
    shutil.rmtree(partial, ignore_errors=True)  # of a dead process that had the number of this one
    partial.mkdir()
    try:
        yield partial
        name_whole_folder(partial, path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def name_whole_folder(partial: Path, path: Path) -> None:
    """Give a folder its final name, once all that it holds is on the disk; what is there under that name goes.

    For folders that a killed process goes on with, whose names are not its own; see `folder_when_whole`.
    """
    for parent, _, names in os.walk(partial):
        for name in names:
            _to_disk(Path(parent, name))
        _to_disk(Path(parent))
    shutil.rmtree(path, ignore_errors=True)  # Snakemake makes the folders of its outputs beforehand
    os.replace(partial, path)
    _to_disk(path.parent)


def _partial_of(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{path.name}.partial-"
    remove_leftovers(path.parent, prefix)
    return path.with_name(f"{prefix}{owner()}")


def _to_disk(path: Path) -> None:
    """Flush a file, or the names in a folder: else a power cut could leave the new name on old bytes."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
