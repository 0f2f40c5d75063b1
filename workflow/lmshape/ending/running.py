"""Who is running a study: so that a second run, and `--unlock`, say more than that there is a lock."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

RUNNING = ".snakemake/lmshape-run.json"


@dataclass(frozen=True, slots=True)
class Run:
    """A run of a study: its process, the machine, when it began, and its command."""

    process: int
    host: str
    began: str
    command: str

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}, since {self.began}: {self.command}"


def begin(root: Path, command: str) -> IO[str]:
    """Note that this process runs a study; what is returned must stay open until it ends.

    The note is locked for as long as the process lives, however it ends, so that nobody takes it for another one.
    """
    file = (root / RUNNING).open("a+", encoding="utf-8")
    with contextlib.suppress(OSError):  # a file system without locks: the note itself still helps
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    run = Run(os.getpid(), socket.gethostname(), time.strftime("%Y-%m-%d %H:%M"), command)
    with contextlib.suppress(OSError):  # on a full disk the run has worse troubles than this note
        file.seek(0)
        file.truncate()
        json.dump(asdict(run), file)
        file.flush()
    return file


def last_run(root: Path) -> tuple[Run | None, bool]:
    """Return the last run of a study, None when there was none, and whether it still goes on, as far as can be seen."""
    try:
        with (root / RUNNING).open("r+", encoding="utf-8") as file:
            run = Run(**json.load(file))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return run, True
            except OSError:
                return run, False  # a file system without locks: nobody can tell, and what is known is told
            return run, False
    except (OSError, ValueError, TypeError):
        return None, False


def who_holds_it(root: Path) -> str:
    """Say what to do about a folder that Snakemake has found locked."""
    run, alive = last_run(root)
    if run is None:
        return ""
    if alive:
        return (
            f"This study is being run ({run}).\nWait for it, or end it there with Ctrl-C. Do not use `--unlock`: two "
            "runs would write the same files. Another study can run in a folder of its own, with `--directory`."
        )
    elsewhere = (
        "" if run.host == socket.gethostname() else f" If it is still alive on {run.host}, wait for it."
    )
    return (
        f"The last run of this study ended without unlocking it ({run}).{elsewhere} On a cluster its jobs "
        "run on: `scancel --name` with the SLURM run ID that its log in .snakemake/log begins with.\nThen, and only "
        "then: the same command with `--unlock`, and once more without it. What is done is kept."
    )


def refuse_unlocking(root: Path) -> str:
    """Say why a study must not be unlocked; empty when nothing is known against it."""
    run, alive = last_run(root)
    if not (run and alive):
        return ""
    return (
        f"`--unlock` is refused: this study is being run ({run}). Wait for it, or end it there with Ctrl-C."
    )
