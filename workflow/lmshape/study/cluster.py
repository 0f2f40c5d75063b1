"""Check the SLURM profile before a job is submitted.

SLURM refuses a job of a wrong account or partition only when it is submitted, each one again; a study has thousands.
"""

from __future__ import annotations

import builtins
import getpass
import re
import subprocess
from collections.abc import Mapping

from lmshape.errors import InputError, suggest

PROFILE = "profiles/slurm/config.yaml"
UNSET = "CHANGE_ME"
NO_PARTITION = "none"  # of `gpu_partition`: the cluster has no GPUs for us
ASK = {
    "slurm_account": "sacctmgr --noheader show associations user=$USER format=account",
    "slurm_partition": "sinfo --summarize",
    "gpu_partition": "sinfo --summarize",
}
SECONDS = 30.0  # that SLURM may take to answer


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
    for name in ("slurm_partition", "gpu_partition"):
        partition = settings.get(name)
        if partition is not None and partition != NO_PARTITION:
            _check(name, partition, partitions)
    user = getpass.getuser()
    accounts = _answer(
        ["sacctmgr", "--noheader", "--parsable2", "show", "associations", f"user={user}", "format=account"]
    )
    account = settings.get("slurm_account")
    if account is not None:
        _check("slurm_account", account, accounts)


def _check(name: str, value: str, known: list[str]) -> None:
    # Several may be named, separated by commas: SLURM, or the executor plugin, chooses.
    for one in filter(None, re.split(r"[,\s]+", value.strip("'\""))):
        # SLURM keeps accounts in lower case, and takes them in any
        if known and one.lower() not in {other.lower() for other in known}:
            raise InputError(
                f"`{name}` is {one} in the SLURM profile; this cluster has no such name.{suggest(one, known)} "
                f"Correct it in {PROFILE}, or your copy of it; `{ASK[name]}` lists what there is."
            )


def _answer(command: list[str]) -> list[str]:
    """Return the lines that a command of SLURM prints, each once; none where it cannot be asked."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return []
    return (
        list(dict.fromkeys(filter(None, map(str.strip, done.stdout.splitlines()))))
        if done.returncode == 0
        else []
    )
