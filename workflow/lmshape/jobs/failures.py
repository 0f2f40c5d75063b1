"""Jobs that failed: what Snakemake told of them, why in one sentence, and what to do about it.

The sentence comes from the job's own log, which ends with `error: …` or a traceback, unless the process was killed:
then the scheduler knows more than the log.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from lmshape.progress import size_text

TAIL_BYTES = 1 << 16  # of a log: a traceback is shorter, and a log may be long
LITTLE_ROOM_BYTES = 4 << 20  # no job gets far with less
TRACEBACK = "Traceback (most recent call last):"
NO_ROOM = ("No space left on device", "Disk quota exceeded")

KILLED = re.compile(r"died with <Signals\.(\w+)|exit status (130|137|139|143)\b")
SIGNALS = {"130": "SIGINT", "137": "SIGKILL", "139": "SIGSEGV", "143": "SIGTERM"}
# The kernel's words, and SLURM's where it looks at memory itself; the state of the job is then FAILED.
OUT_OF_MEMORY = re.compile(r"oom[_-]kill|exceeded (?:job )?memory limit", re.IGNORECASE)
SLURM_STATUS = re.compile(r"SLURM status is: '(\w+)'")
SLURM_WORDS = {
    "TIMEOUT": "it ran longer than the time it had asked for",
    "DEADLINE": "it could not end before its deadline",
    "OUT_OF_MEMORY": "it needed more memory than it had asked for",
    "NODE_FAIL": "its node failed",
    "BOOT_FAIL": "its node did not start",
    "CANCELLED": "somebody cancelled it",
    "PREEMPTED": "another job took its place",
}
NOT_SUBMITTED = re.compile(
    r"sbatch failed\. The error message was '(.*?)'\.\n|submission failed[^:]*: (.*)", re.DOTALL
)
MISSING_OUTPUT = re.compile(r"Job (\d+) +completed successfully, but some output files are missing")

REMEDIES = (
    (
        re.compile(r"No space left on device|no room on the disk \(No space"),
        "Free space on the disk, bound what waits there with `disk_budget_gb`, or let activations be deleted "
        "once measured: `keep_activations: false`.",
    ),
    (
        re.compile(r"Disk quota exceeded"),
        "Your quota is used up: delete what you no longer need, bound what waits on the disk with "
        "`disk_budget_gb`, or let activations be deleted once measured: `keep_activations: false`.",
    ),
    (
        re.compile(r"SLURM did not take it.*(account|partition|qos)", re.IGNORECASE),
        "Correct `slurm_account` and `slurm_partition` in your profile: profiles/slurm/config.yaml.",
    ),
    (
        re.compile(r"\(TIMEOUT\)|\(DEADLINE\)"),
        "Give it more minutes: `--set-resources {rule}:runtime=…`, or `retries` in the profile.",
    ),
    (
        re.compile(r"\(OUT_OF_MEMORY\)"),
        "Give it more megabytes: `--set-resources {rule}:mem_mb=…`, or `retries` in the profile.",
    ),
    (
        re.compile(r"killed \(SIGKILL\)"),
        "If memory ran out, take fewer jobs at once (`--cores`) or a smaller `extraction: batch_tokens`.",
    ),
    (
        re.compile(r"did not appear in time"),
        "On a slow network disk, wait longer for files: `--latency-wait 60`.",
    ),
)


def why(root: Path, logs: Sequence[str], said: str = "") -> str:
    """Say in one sentence why a job's last attempt failed.

    Parameters
    ----------
    root : the study's folder, to which log files are relative
    logs : the job's own log file, then those of the scheduler
    said : what Snakemake and the scheduler said of the attempt; empty when nothing

    Returns
    -------
    One line: what the scheduler did to the job, else the last error of its log, else what is known at all.
    """
    scheduler = _what_the_scheduler_did(said)
    if scheduler:
        return scheduler
    tails = [_tail(root / log) for log in logs]
    if any(OUT_OF_MEMORY.search(tail or "") for tail in tails):
        return f"SLURM ended it (OUT_OF_MEMORY): {SLURM_WORDS['OUT_OF_MEMORY']}"
    own = tails[0]
    if error := last_error(own or ""):
        return _with_its_cause(error, own or "")
    if MISSING_OUTPUT.search(said):
        return f"it ended well, but its files did not appear in time: {one_line(said.splitlines()[-1])}"
    if killed := KILLED.search(said):
        return f"it was killed ({killed[1] or SIGNALS[killed[2]]}){_ending_with(own)}"
    return _last_line(own or "") or _nothing_in_the_log(said, own, root)


def remedy(reason: str, *, rule: str) -> str:
    """Say what to do about a reason; empty when the reason says it itself, or nothing is known.

    Parameters
    ----------
    reason : as `why` gives it
    rule : name of the rule that failed
    """
    for pattern, advice in REMEDIES:
        if pattern.search(reason):
            return advice.format(rule=rule)
    return ""


def last_error(log: str) -> str:
    """Return the last error of a log: the sentence behind `error: `, or the exception of a traceback.

    Returns
    -------
    One line, empty when the log holds neither.
    """
    lines = re.split(r"[\r\n]+", log)
    for number in range(len(lines) - 1, -1, -1):
        if lines[number].startswith("error: "):
            return lines[number].removeprefix("error: ").strip()
        if lines[number].startswith(TRACEBACK):
            behind = (line.strip() for line in lines[number + 1 :] if not line.startswith((" ", "\t")))
            return next(filter(None, behind), "a traceback that breaks off")
    return ""


def _what_the_scheduler_did(said: str) -> str:
    """Return why a job never ran, or was ended from outside; empty when it just failed."""
    status = SLURM_STATUS.search(said)
    if status and status[1] in SLURM_WORDS:
        return f"SLURM ended it ({status[1]}): {SLURM_WORDS[status[1]]}"
    if refused := NOT_SUBMITTED.search(said):
        text = (refused[1] or refused[2]).split("For further error details")[0]
        return f"SLURM did not take it: {one_line(text)}"
    return ""


def is_interruption(reason: str) -> bool:
    """Whether a reason only says that the user ended the job, as Ctrl-C does to all that run."""
    return reason.startswith(("KeyboardInterrupt", "Aborted", "it was killed (SIGINT)"))


def ends_with_an_error(log: Path) -> bool:
    """Whether a log holds an error or a traceback."""
    return bool(last_error(_tail(log) or ""))


def _with_its_cause(error: str, log: str) -> str:
    """Say first that a disk is full: libraries say it last, behind numbers of their own, or in an earlier error."""
    causes = [words for words in NO_ROOM if words in log]
    short = error.partition(" (file write failed")[0]  # what HDF5 goes on with is a page
    return f"{causes[0]}: {short}" if causes and causes[0] not in short else error


def one_line(text: str) -> str:
    """Put a text into one line."""
    return " ".join(text.split())


def _tail(log: Path) -> str | None:
    """Read the end of a log; None when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            return file.read().decode("utf-8", errors="replace")
    except OSError:
        return None


def _last_line(log: str) -> str:
    """Return the last line with a letter in it: frames of boxes and bars have none."""
    lines = (line.strip() for line in reversed(re.split(r"[\r\n]+", log)))
    return next((line for line in lines if any(map(str.isalpha, line))), "")


def _ending_with(log: str | None) -> str:
    line = _last_line(log or "")
    return f"; its log ends with: {line}" if line else ""


def _nothing_in_the_log(said: str, log: str | None, root: Path) -> str:
    """Say that a log says nothing: perhaps since the disk had no room for it."""
    kind = "its log does not exist" if log is None else "its log is empty"
    free = shutil.disk_usage(root).free
    if free < LITTLE_ROOM_BYTES:
        return f"No space left on device: {size_text(free)} are free, and {kind}"
    status = re.search(r"exit status (\d+)", said)
    return f"exit code {status[1]}, and {kind}" if status else kind
