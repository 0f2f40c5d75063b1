"""Write whole files and folders: under a temporary name, renamed when complete.

HDF5 files, which are written in many small pieces, may be written on scratch first (`scratch: tmpdir`). Names of
unfinished files hold host and process, so that what killed processes left behind is found and removed.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import gethostname
from tempfile import NamedTemporaryFile, TemporaryDirectory

from lmshape.errors import InputError
from lmshape.progress import size_text
from lmshape.receipt import RECEIPT, digest_of, foreign_files, place_of, write_receipt

VARIABLE = "LMSHAPE_SCRATCH"  # what the study's `scratch` says
NAME = "lmshape-scratch-"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
# Of another host's file: its writer touches it more often than once a day.
ABANDONED_SECONDS = 24 * 3600.0
OWNER = re.compile(r"(?:(?P<host>.+)-)?(?P<process>\d+)(?:\.\w+)?")


@contextmanager
def replaced_when_whole(path: str | Path) -> Iterator[Path]:
    """Give a name to write under; rename it to `path` when the block ends well, remove it otherwise.

    The name is `.{name}.partial-{host}-{pid}` in the folder of `path`, which is made if it does not exist. What a
    killed process left behind under such a name is removed by the next writer of the same file.
    """
    path = Path(path)
    with _partial_of(path) as partial:
        yield partial
        _to_disk(partial)
        os.replace(partial, path)
    _to_disk(path.parent)


@contextmanager
def folder_when_whole(path: Path) -> Iterator[Path]:
    """Give a new folder to write into; rename it to `path` when the block ends well, remove it otherwise."""
    with _partial_of(path) as partial:
        partial.mkdir()
        yield partial
        name_whole_folder(partial, path)


@contextmanager
def _partial_of(path: Path) -> Iterator[Path]:
    """Give a name beside a path; what is there is removed when the block fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{path.name}.partial-"
    remove_leftovers(path.parent, prefix)
    partial = path.with_name(f"{prefix}{owner()}")
    _remove(partial)  # of a dead process that had the number of this one
    try:
        yield partial
    except BaseException:
        _remove(partial)
        raise


def name_whole_folder(partial: Path, path: Path, digests: Mapping[str, str] | None = None) -> None:
    """Give a folder its final name, with a receipt, once all that it holds is on the disk.

    What is there under that name goes as far as its receipt names it, or the new folder has the same; all other files
    are the user's, and move into the new folder. For folders that a killed process goes on with, whose names are not
    its own; see `folder_when_whole`.

    Parameters
    ----------
    partial, path : the folder as it is named now, and as it will be
    digests : of its files by name, as `digest_of` takes them; None takes them
    """
    if digests is None:
        files = (file for file in partial.iterdir() if file.is_file() and file.name != RECEIPT)
        digests = {file.name: digest_of(file) for file in files}
    write_receipt(partial, place=place_of(path), digests=digests)
    for parent, _, names in os.walk(partial):
        for name in names:
            _to_disk(Path(parent, name))
        _to_disk(Path(parent))
    with suppress(OSError):  # there is none, or it is not empty
        path.rmdir()  # Snakemake makes the folders of its outputs beforehand
    if path.exists():
        _replace_folder(partial, path)
    else:
        os.replace(partial, path)
    _to_disk(path.parent)


def _replace_folder(partial: Path, path: Path) -> None:
    """Exchange a folder for a new one, and bring over the files that are not ours."""
    before = path.with_name(f".{path.name}.before-{owner()}")
    foreign = [file.relative_to(path) for file in foreign_files(path)]
    os.replace(path, before)
    os.replace(partial, path)
    for file in foreign:
        if not os.path.lexists(path / file):
            (path / file).parent.mkdir(parents=True, exist_ok=True)
            os.replace(before / file, path / file)
    _remove(before)


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
    path, scratch = Path(path), scratch_folder()
    with replaced_when_whole(path) as partial:
        if scratch is None:
            yield partial
            return
        with own_folder(scratch, NAME) as folder:
            free = shutil.disk_usage(scratch).free
            if free < least_bytes:
                lacks = f"has {size_text(free)} free of the {size_text(least_bytes)} that it takes"
                raise InputError(_no_room(scratch, path, lacks))
            written = folder / path.name
            with _full_disk_told(lambda error: _no_room(scratch, path, "has no room left")):
                yield written
            size = size_text(written.stat().st_size)
            with _full_disk_told(
                lambda error: (
                    f"`{path}`: no room on its disk for {size} ({error.strerror}). Nothing of it was kept; make room, "
                    "or limit downloads with `disk_budget_gb`, and run again."
                )
            ):
                shutil.copyfile(written, partial)


@contextmanager
def _full_disk_told(tell: Callable[[OSError], str]) -> Iterator[None]:
    """Raise an error of a full disk in our words."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:  # h5py reads it off HDF5's words
            raise InputError(tell(error)) from error
        raise


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
    """Make a folder that only its owner can read; those that killed processes left there are removed."""
    remove_leftovers(parent, prefix)
    with TemporaryDirectory(prefix=f"{prefix}{owner()}.", dir=parent) as folder:
        yield Path(folder)


def scratch_folder() -> Path | None:
    """Name the folder for scratch, None where the study has none.

    Raises
    ------
    InputError
        When the study says `tmpdir`, and $TMPDIR is not a folder that can be written to.
    """
    if os.environ.get(VARIABLE, "none") == "none":
        return None
    named = os.environ.get("TMPDIR", "")
    if not os.path.isdir(named) or not os.access(named, os.W_OK | os.X_OK):
        raise InputError(
            f"`scratch: tmpdir` and $TMPDIR is `{named}`, which is not a writable folder. "
            "Name one under `default-resources` of the profile, `tmpdir: …`, or set `scratch: none` in the study's "
            "configuration."
        )
    return Path(named)


def owner() -> str:
    """Spell this process for the end of a name: `{host}-{pid}`."""
    return f"{gethostname()}-{os.getpid()}"


def is_abandoned(path: Path, process: int, host: str, *, silence: float = ABANDONED_SECONDS) -> bool:
    """Whether the process that writes a file or folder has ended.

    Parameters
    ----------
    path : what is being written
    process, host : who writes it
    silence : seconds without a write after which a process of another host, which cannot be looked up, has ended
    """
    if host != gethostname():
        return _seconds_untouched(path) > silence
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # of another user
        pass
    # Linux: a zombie has ended, and stays until its parent asks, which the first process of some containers never does
    with suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].startswith("Z")
    return False


def remove_leftovers(folder: Path, prefix: str) -> None:
    """Remove files and folders `{prefix}{host}-{pid}`, with any suffix, whose process has ended.

    What belongs to another user stays.
    """
    for leftover in folder.glob(f"{prefix}*"):
        name = OWNER.fullmatch(leftover.name.removeprefix(prefix))
        if name and is_abandoned(leftover, int(name["process"]), name["host"] or ""):
            _remove(leftover)


def _remove(path: Path) -> None:
    """Remove a file or folder, as far as it may be."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    with suppress(FileNotFoundError, PermissionError):
        path.unlink()


def _seconds_untouched(path: Path) -> float:
    """Return how long ago a file, or the newest file of a folder, was written, by the clock of its file system.

    The clock is read off a new file beside it: that of this machine may be wrong by minutes.
    """
    with NamedTemporaryFile(prefix=".clock-", dir=path.parent) as probe:
        now = os.fstat(probe.fileno()).st_mtime
    newest = []
    for one in (path, *(Path(parent, name) for parent, _, names in os.walk(path) for name in names)):
        with suppress(FileNotFoundError):  # between the listing and the look
            newest.append(one.lstat().st_mtime)
    return now - max(newest, default=now)


def _to_disk(path: Path) -> None:
    """Flush a file, or the names in a folder: else a power cut could leave the new name on old bytes."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _no_room(scratch: Path, path: Path, why: str) -> str:
    return (
        f"`{path}` is written on scratch first, and $TMPDIR, `{scratch}`, {why}. Name a larger folder under "
        "`default-resources` of the profile, `tmpdir: …`, or set `scratch: none` in the study's configuration."
    )
