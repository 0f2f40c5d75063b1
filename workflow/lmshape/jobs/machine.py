"""The machine that jobs run on: this one, or a cluster, whose profile is checked before a job is submitted.

SLURM refuses a job of a wrong account or partition only when it is submitted, each one again; a study has thousands.
"""

from __future__ import annotations

import builtins
import getpass
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lmshape.errors import InputError, suggest

PROFILE = "profiles/slurm/config.yaml"
UNSET = "CHANGE_ME"
NO_PARTITION = "none"  # of `gpu_partition`: the cluster has no GPUs for us
ASK = {
    "slurm_account": "sacctmgr --noheader show associations user=$USER format=account",
    "slurm_partition": "sinfo --summarize",
    "gpu_partition": "sinfo --summarize",
}
ANSWER_SECONDS = 30.0  # that SLURM may take to answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where jobs run.

    Attributes
    ----------
    on_cluster : whether jobs are submitted to other machines
    gpus : GPUs of this machine
    partition, gpu_partition : of the cluster; `gpu_partition` is None where it has no GPUs for us
    gpu_gigabytes : memory of one GPU of the cluster
    """

    on_cluster: bool = False
    gpus: int = 0
    partition: str | None = None
    gpu_partition: str | None = None
    gpu_gigabytes: float = 40.0


PROFILE_SETTINGS = ("slurm_account", "slurm_partition", "gpu_partition", "gpu_gigabytes")


def machine_of(settings: Mapping[str, str | None], *, check: bool) -> Machine:
    """Return the machine that default resources of a profile describe.

    Parameters
    ----------
    settings : `PROFILE_SETTINGS` as the profile spells them; a profile that names a partition is a cluster's, and one
        with a `gpu_partition` alone that of another scheduler than SLURM
    check : whether to ask SLURM for the names that it has

    Raises
    ------
    InputError
        When account or partitions are not filled in, or not the cluster's.
    """
    if settings["slurm_partition"] is None and settings["gpu_partition"] is None:
        return Machine(gpus=gpu_count())
    if check and settings["slurm_partition"] is not None:
        check_profile({name: settings[name] for name in PROFILE_SETTINGS[:3]})
    plain = {name: value and str(value).strip("'\"") for name, value in settings.items()}
    gpu_partition = plain["gpu_partition"]
    return Machine(
        on_cluster=True,
        partition=plain["slurm_partition"],
        gpu_partition=None if gpu_partition == NO_PARTITION else gpu_partition,
        gpu_gigabytes=float(plain["gpu_gigabytes"] or 40),
    )


def check_profile(settings: Mapping[str, str | None]) -> None:
    """Refuse an account or a partition that the cluster does not have.

    Where SLURM's commands are missing or do not answer, nothing is checked: SLURM refuses the job later.

    Parameters
    ----------
    settings : `slurm_account`, `slurm_partition` and `gpu_partition`, as the profile has them

    Raises
    ------
    InputError
        Naming the setting, its value, what there is, and the file.
    """
    for name, value in settings.items():
        if value == UNSET:
            raise InputError(
                f"`{name}` is {UNSET} in the SLURM profile. Fill it in, in {PROFILE} or a copy of it: "
                f"`{ASK[name]}` lists what there is."
            )
        if value is not None and hasattr(builtins, value):
            raise InputError(
                f"`{name}` is {value} in the SLURM profile, which Snakemake reads as Python. Write it in two pairs of "
                f"quotes: {name}: \"'{value}'\"."
            )
    partitions = _answer(["sinfo", "--noheader", "--format=%R"])
    of_user = ["show", "associations", f"user={getpass.getuser()}", "format=account"]
    accounts = _answer(["sacctmgr", "--noheader", "--parsable2", *of_user])
    places = {"slurm_partition": partitions, "gpu_partition": partitions, "slurm_account": accounts}
    for name, known in places.items():
        value = settings.get(name) or ""
        if value == NO_PARTITION and known is partitions:
            continue
        # Several may be named, separated by commas: SLURM, or the executor plugin, chooses.
        for one in filter(None, re.split(r"[,\s]+", value.strip("'\""))):
            # SLURM keeps accounts in lower case, and takes them in any
            if known and one.lower() not in map(str.lower, known):
                raise InputError(
                    f"`{name}` is {one} in the SLURM profile; this cluster has no such name.{suggest(one, known)} "
                    f"Correct it in {PROFILE}, or your copy of it; `{ASK[name]}` lists what there is."
                )


def _answer(command: list[str]) -> list[str]:
    """Return the lines that a command of SLURM prints, each once; none where it cannot be asked."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=ANSWER_SECONDS)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return []
    lines = [] if done.returncode else map(str.strip, done.stdout.splitlines())
    return list(dict.fromkeys(filter(None, lines)))


def usable_cores() -> int:
    """Return the CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_megabytes() -> float:
    """Return the memory of this machine that no process uses."""
    import psutil

    return psutil.virtual_memory().available / 10**6


@cache
def gpu_count() -> int:
    """NVIDIA GPUs that processes here may use: by their device files, as far as CUDA_VISIBLE_DEVICES lets them."""
    return visible_gpus(Path("/dev"), os.environ.get("CUDA_VISIBLE_DEVICES"))


def visible_gpus(devices: Path, visible: str | None) -> int:
    """Count the GPUs of a folder of device files of which a list of names lets some be seen; None: all.

    As CUDA reads it: names after -1, and all of an empty list, do not count.
    """
    present = len(list(devices.glob("nvidia[0-9]*")))
    if visible is None:
        return present
    names = [name.strip() for name in visible.split(",")]
    valid = names[: names.index("-1")] if "-1" in names else names
    return min(present, len([name for name in valid if name]))
