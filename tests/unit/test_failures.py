"""Why a job failed and what to do about it, from what its log and the scheduler say."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from lmshape.jobs.missing import TAIL_BYTES, ends_with_an_error, is_interruption, remedy, why

FOR_DETAILS = "For further error details see the cluster/cloud log and the log files of the involved rule(s)."
TRACEBACK = """Traceback (most recent call last):
  File "a.py", line 1, in <module>
    read()
    ^^^^^^
  File "b.py", line 2, in read
{error}
"""
ENDED = "Command 'python -m lmshape' returned non-zero exit status 1."
BATCH = (
    "SLURM sbatch failed. The error message was 'sbatch: error: Batch job submission failed: {error}'.\n"
    "    sbatch call:\n        sbatch --parsable\n"
)


def of_log(content: str | None, folder: Path, **options: object) -> str:
    if content is not None:
        (folder / "job.log").write_text(content)
    return why(folder, **{"logs": ["job.log"], **options})


# ---- why -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("reading\nerror: `x`: no weights. Save them.\n", "`x`: no weights. Save them."),
        (TRACEBACK.format(error="KeyError: 'width'"), "KeyError: 'width'"),
        (TRACEBACK.format(error="ValueError: two\nlines"), "ValueError: two"),
        (
            TRACEBACK.format(error="OSError: first")
            + "\nDuring handling of the above exception, another exception occurred:\n\n"
            + TRACEBACK.format(error="RuntimeError: second"),
            "RuntimeError: second",
        ),
        (TRACEBACK.format(error="A: b") + "error: the sentence behind it\n", "the sentence behind it"),
        ("10 %\r20 %\rsh: python: not found\n\n══════\n", "sh: python: not found"),
        ("Traceback (most recent call last):\n  File", "a traceback that breaks off"),
        (
            TRACEBACK.format(error="OSError: [Errno 28] No space left on device")
            + TRACEBACK.format(error="RuntimeError: cannot close the file"),
            "No space left on device: RuntimeError: cannot close the file",
        ),
    ],
)
def test_the_log_says_why(log: str, reason: str, tmp_path: Path) -> None:
    assert of_log(log, tmp_path) == reason


def test_only_the_end_of_a_long_log_is_read(tmp_path: Path) -> None:
    log, end = tmp_path / "job.log", "a line of the end\n"
    for distance, reason in ((TAIL_BYTES, "old"), (TAIL_BYTES + 1, end.strip())):
        log.write_text("error: old\n" + (end * TAIL_BYTES)[len("error: old\n") - distance :])
        assert why(tmp_path, ["job.log"]) == reason


def test_a_log_that_says_nothing_is_told_as_that(tmp_path: Path) -> None:
    assert of_log(None, tmp_path, said=ENDED) == "exit code 1, and its log does not exist"
    assert of_log("", tmp_path, said=ENDED) == "exit code 1, and its log is empty"
    assert of_log("", tmp_path) == "its log is empty"


def test_an_empty_log_on_a_full_disk_is_the_disks_doing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    assert of_log("", tmp_path) == "No space left on device: 1.00 kB are free, and its log is empty"


@pytest.mark.parametrize(
    ("said", "signal"),
    [
        ("Command 'x' died with <Signals.SIGKILL: 9>.", "SIGKILL"),
        ("Command 'x' returned non-zero exit status 137.", "SIGKILL"),
        ("Command 'x' returned non-zero exit status 139.", "SIGSEGV"),
    ],
)
def test_a_killed_process_left_no_error(said: str, signal: str, tmp_path: Path) -> None:
    assert of_log("tiny step4: 50 %\n", tmp_path, said=said) == (
        f"it was killed ({signal}); its log ends with: tiny step4: 50 %"
    )
    assert of_log("", tmp_path, said=said) == f"it was killed ({signal})"


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (TRACEBACK.format(error="KeyboardInterrupt"), ""),
        ("Aborted!\n", ""),
        ("", "returned non-zero exit status 130."),
    ],
)
def test_what_ctrl_c_does_to_a_job_is_no_failure_of_it(log: str, said: str, tmp_path: Path) -> None:
    assert is_interruption(of_log(log, tmp_path, said=said))
    assert not is_interruption(of_log("error: it failed\n", tmp_path))


@pytest.mark.parametrize("status", ["TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL", "CANCELLED", "PREEMPTED"])
def test_what_slurm_did_counts_more_than_the_log(status: str, tmp_path: Path) -> None:
    said = f"SLURM-job '12' failed, SLURM status is: '{status}'. Reason: Unknown.{FOR_DETAILS}"
    assert of_log("tiny step4: 50 %\n", tmp_path, said=said).startswith(f"SLURM ended it ({status}): ")


def test_a_job_that_just_failed_on_slurm_is_told_by_its_log(tmp_path: Path) -> None:
    said = f"SLURM-job '12' failed, SLURM status is: 'FAILED'. Reason: Unknown.{FOR_DETAILS}"
    assert of_log("error: the sentence\n", tmp_path, said=said) == "the sentence"


def test_a_job_that_the_kernel_killed_on_a_node_is_out_of_memory(tmp_path: Path) -> None:
    (tmp_path / "12.log").write_text("slurmstepd: error: Detected 1 oom_kill event in StepId=12.batch.\n")
    assert "(OUT_OF_MEMORY)" in of_log("", tmp_path, logs=("job.log", "12.log"), said="exit status 137")


def test_a_submission_that_slurm_refuses_is_told_without_the_call(tmp_path: Path) -> None:
    said = BATCH.format(error="Invalid account or account/partition combination specified") + FOR_DETAILS
    assert of_log(None, tmp_path, said=said) == (
        "SLURM did not take it: sbatch: error: Batch job submission failed: "
        "Invalid account or account/partition combination specified"
    )
    said = f"Job submission failed with exception: The given account x appears to be invalid.{FOR_DETAILS}"
    assert (
        of_log(None, tmp_path, said=said)
        == "SLURM did not take it: The given account x appears to be invalid."
    )


def test_files_that_come_late_are_named(tmp_path: Path) -> None:
    said = "Job 3  completed successfully, but some output files are missing. Missing files after 5 seconds:\nc.h5"
    reason = of_log("", tmp_path, said=said)
    assert reason == "it ended well, but its files did not appear in time: c.h5"
    assert "--latency-wait" in remedy(reason, rule="extract")
    assert of_log("error: the sentence\n", tmp_path, said=said) == "the sentence"


def test_a_log_with_an_error_in_it(tmp_path: Path) -> None:
    for text, found in (("", False), ("50 %\n", False), ("error: x\n", True), (TRACEBACK, True)):
        (tmp_path / "job.log").write_text(text)
        assert ends_with_an_error(tmp_path / "job.log") == found
    assert not ends_with_an_error(tmp_path / "none.log")


# ---- what to do ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_and_a_full_quota_have_their_own_words(number: int, tmp_path: Path) -> None:
    reason = of_log(TRACEBACK.format(error=f"OSError: {OSError(number, os.strerror(number))}"), tmp_path)
    advice = remedy(reason, rule="extract")
    assert os.strerror(number) in reason
    assert ("Free space" in advice) == (number == errno.ENOSPC)
    assert ("Your quota is used up" in advice) == (number == errno.EDQUOT)
    assert "`disk_budget_gb`" in advice
    assert "`keep_activations: false`" in advice


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        ("SLURM ended it (TIMEOUT): it ran longer", "--set-resources extract:runtime="),
        ("SLURM ended it (OUT_OF_MEMORY): it needed more", "--set-resources extract:mem_mb="),
        ("it was killed (SIGKILL)", "`--cores`"),
        (
            "SLURM did not take it: sbatch: error: Invalid partition name specified",
            "profiles/slurm/config.yaml",
        ),
        ("SLURM did not take it: The given account x appears to be invalid.", "`slurm_account`"),
    ],
)
def test_the_remedy_names_what_to_set(reason: str, advice: str) -> None:
    assert advice in remedy(reason, rule="extract")


def test_a_sentence_that_says_what_to_do_gets_no_second_one() -> None:
    assert remedy("`x`: the partition of unity has no weights. Save them.", rule="extract") == ""
