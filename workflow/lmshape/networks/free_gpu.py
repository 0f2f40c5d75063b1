"""Which of several GPUs a job takes: jobs that run beside each other on one machine must not all take the first.

A cluster gives each job its own; a workstation gives all of them to everybody.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import TextIO

LOCKS = Path("/tmp")  # and not $TMPDIR, of which jobs may have one each
_held: list[TextIO] = []  # a lock is held as long as its file is open: until the process ends


def free_gpu(count: int, *, visible: str | None = None, folder: Path = LOCKS) -> int:
    """Take the first of `count` GPUs that no other process of this machine has taken, for as long as this one lives.

    Where all are taken, as when `--resources gpu=…` lets more jobs run than there are GPUs, they are shared by turns.

    Parameters
    ----------
    count : GPUs that this process sees
    visible : CUDA_VISIBLE_DEVICES, which names them; None: all of the machine's
    folder : where the lock files lie, the same for all processes

    Returns
    -------
    0 … count - 1
    """
    names = visible.split(",") if visible else [str(number) for number in range(count)]
    # two allocations on one node may both call their GPUs 0 and 1
    owner = f"{os.getuid()}-{os.environ.get('SLURM_JOB_ID', '')}"
    for number, name in enumerate(names[:count]):
        # named after the user, since another's file cannot be opened for writing
        file = (folder / f"lmshape-{owner}-gpu-{name.strip().replace('/', '-')}.lock").open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            continue
        _held.append(file)
        return number
    return os.getpid() % count
