"""Scratch: where a study's file system is slow, files are written on the node's own disk and copied when whole.

A study says so by `scratch: tmpdir`, and its workflow by an environment variable: it is no part of any result.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from lmshape.errors import InputError
from lmshape.sizes import size_text
from lmshape.writing.atomic import replaced_when_whole
from lmshape.writing.leftovers import owner, remove_leftovers

VARIABLE = "LMSHAPE_SCRATCH"  # what the study's `scratch` says
NAME = "lmshape-scratch-"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def written_on_scratch(path: str | Path, *, least_bytes: int = 0) -> Iterator[Path]:
    """Give a name to write under, on scratch if there is one; `path` appears when the block ends well.

    From scratch it is copied in one sequential write. See `replaced_when_whole`, which is all of it without scratch.

    Parameters
    ----------
    path : file to write
    least_bytes : what it will take, as far as that is known; scratch that lacks this room is refused at once

    Raises
    ------
    InputError
        When there is no room on scratch, or none at the destination for the copy; neither keeps anything then.
    """
    scratch = scratch_folder()
    if scratch is None:
        with replaced_when_whole(path) as partial:
            yield partial
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with own_folder(scratch, NAME) as folder:
        _check_room(scratch, Path(path), least_bytes)
        written = folder / Path(path).name
        try:
            yield written
        except OSError as error:
            if error.errno in NO_ROOM:  # h5py reads it off HDF5's words
                raise InputError(_no_room(scratch, Path(path), "has no room left")) from error
            raise
        with replaced_when_whole(path) as partial:
            _copy(written, partial, Path(path))


@contextmanager
def working_folder(beside: Path, word: str) -> Iterator[Path]:
    """Make a folder for as long as the block lasts: on scratch if there is one, else beside a file that is written."""
    scratch = scratch_folder()
    beside.parent.mkdir(parents=True, exist_ok=True)
    place = (scratch, NAME) if scratch else (beside.parent, f".{beside.name}.{word}-")
    with own_folder(*place) as folder:
        yield folder


@contextmanager
def own_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Make a folder that nobody else may look into; those that killed processes left there are removed."""
    remove_leftovers(parent, prefix)
    with TemporaryDirectory(prefix=f"{prefix}{owner()}.", dir=parent) as folder:
        yield Path(folder)


def scratch_folder() -> Path | None:
    """Name the folder for scratch, None where the study has none.

    Raises
    ------
    InputError
        When the study says `tmpdir`, and $TMPDIR is no folder that can be written to.
    """
    if os.environ.get(VARIABLE, "none") == "none":
        return None
    named = os.environ.get("TMPDIR", "")
    if not named or not os.path.isdir(named) or not os.access(named, os.W_OK | os.X_OK):
        raise InputError(
            f"`scratch: tmpdir` and $TMPDIR is `{named}`, which is no folder that can be written to. "
            "Name one under `default-resources` of the profile, `tmpdir: …`, or set `scratch: none` in the study's "
            "configuration."
        )
    return Path(named)


def _check_room(scratch: Path, path: Path, least_bytes: int) -> None:
    free = shutil.disk_usage(scratch).free
    if free < least_bytes:
        why = f"has {size_text(free)} free of the {size_text(least_bytes)} that it takes"
        raise InputError(_no_room(scratch, path, why))


def _no_room(scratch: Path, path: Path, why: str) -> str:
    return (
        f"`{path}` is written on scratch first, and $TMPDIR, `{scratch}`, {why}. Name a larger folder under "
        "`default-resources` of the profile, `tmpdir: …`, or set `scratch: none` in the study's configuration."
    )


def _copy(written: Path, partial: Path, path: Path) -> None:
    try:
        shutil.copyfile(written, partial)
    except OSError as error:
        if error.errno in NO_ROOM:
            size = size_text(written.stat().st_size)
            raise InputError(
                f"`{path}`: no room on its disk for {size} ({error.strerror}). Nothing of it was kept; make room, or "
                "bound what waits there with `disk_budget_gb`, and run again."
            ) from error
        raise
