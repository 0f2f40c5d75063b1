"""A file that exists is a file that is right: it is written under another name and renamed when whole."""

from __future__ import annotations

import os
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
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{path.name}.partial-"
    remove_leftovers(path.parent, prefix)
    partial = path.with_name(f"{prefix}{owner()}")
    try:
        yield partial
        _to_disk(partial)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _to_disk(path.parent)


def _to_disk(path: Path) -> None:
    """Flush a file, or the names in a folder: else a power cut could leave the new name on old bytes."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
