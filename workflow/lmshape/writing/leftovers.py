"""What killed processes leave behind under names that say whose it was: removed when nobody goes on with it.

Such a name ends in the host and the number of its process. Where several machines share a file system, only those of
this host can be looked up; what another host has left is judged by its age.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from socket import gethostname
from tempfile import NamedTemporaryFile

# Without a touch, of another host's: whoever writes a file does so more often than once a day.
ABANDONED_SECONDS = 24 * 3600.0
OWNER = re.compile(r"(?:(?P<host>.+)-)?(?P<process>\d+)(?:\.\w+)?")


def owner() -> str:
    """Spell this process for the end of a name: `{host}-{pid}`."""
    return f"{gethostname()}-{os.getpid()}"


def is_abandoned(path: Path, process: int, host: str, *, silence: float = ABANDONED_SECONDS) -> bool:
    """Whether nobody goes on with a file or folder.

    Parameters
    ----------
    path : what is being written
    process, host : who writes it
    silence : seconds without a write after which that of another host, which cannot be looked up, is given up
    """
    if host == gethostname():
        return not _is_alive(process)
    return _seconds_untouched(path) > silence


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # somebody else's
    return True


def remove_leftovers(folder: Path, prefix: str) -> None:
    """Remove files and folders `{prefix}{host}-{pid}`, with or without an ending, that nobody writes any more.

    What belongs to another user stays.
    """
    for leftover in folder.glob(f"{prefix}*"):
        name = OWNER.fullmatch(leftover.name.removeprefix(prefix))
        if name and is_abandoned(leftover, int(name["process"]), name["host"] or ""):
            _remove(leftover)


def _seconds_untouched(path: Path) -> float:
    """Tell how long ago a file, or the newest file of a folder, was written, by the clock of its file system.

    The clock is read off a new file beside it: that of this machine may be wrong by minutes.
    """
    with NamedTemporaryFile(prefix=".clock-", dir=path.parent) as probe:
        now = os.fstat(probe.fileno()).st_mtime
    return now - max(_times(path), default=now)


def _times(path: Path) -> Iterator[float]:
    inside = (os.path.join(parent, name) for parent, _, names in os.walk(path) for name in names)
    for one in (path, *inside):
        with suppress(FileNotFoundError):  # between the listing and the look
            yield os.lstat(one).st_mtime


def _remove(path: Path) -> None:
    with suppress(FileNotFoundError, PermissionError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
