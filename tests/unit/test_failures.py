"""Why a job failed and what to do about it, from what its log and the scheduler say; and the last words of a run."""

from __future__ import annotations

import csv
import errno
import logging
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from lmshape.ending import running
from lmshape.ending.aftermath import ENDED_EARLY, Aftermath, command_line, last_words
from lmshape.ending.error_records import ErrorRecords
from lmshape.ending.failures import TAIL_BYTES, Failure, is_interruption, remedy, why
from lmshape.ending.missing import INTERRUPTED, Cause, causes_of, missing_cells, write_missing

from lmshape.study.study import Cell

CELL = {"model": "tiny", "checkpoint": "step4", "dataset": "wiki"}
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
    return why(Failure("extract", CELL, **{"logs": ("job.log",), **options}), folder)


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
        assert why(Failure("extract", CELL, logs=("job.log",)), tmp_path) == reason


def test_a_log_that_says_nothing_is_told_as_that(tmp_path: Path) -> None:
    assert of_log(None, tmp_path, said=ENDED) == "exit code 1, and its log does not exist"
    assert of_log("", tmp_path, said=ENDED) == "exit code 1, and its log is empty"
    assert of_log("", tmp_path) == "its log is empty"
    assert of_log(None, tmp_path, logs=()) == "it has no log"


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


# ---- Snakemake's records ---------------------------------------------------------------------------------


def record(text: str, level: int = logging.ERROR, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("snakemake", level, "", 0, text, None, None)
    made.__dict__.update(extra)
    return made


def job_error(number: int, said: str | None = None, *logs: str) -> logging.LogRecord:
    return record("Error in rule x", event="job_error", jobid=number, rule_msg=said, log=list(logs))


def test_the_error_before_that_of_a_job_is_its_own() -> None:
    records = ErrorRecords()
    for one in (
        record(ENDED, event="error"),
        job_error(3, None, "a.log"),
        job_error(4, "SLURM-job", "b.log", "s.log"),
    ):
        records.handle(one)
    assert records.told.said == {3: ENDED, 4: "SLURM-job"}
    assert records.told.logs == {3: ("a.log",), 4: ("b.log", "s.log")}


def test_only_the_last_attempt_counts() -> None:
    records = ErrorRecords()
    for said in ("first", "second"):
        records.handle(job_error(3, said))
    assert records.told.said == {3: "second"}


def test_files_that_did_not_appear_are_an_error_of_their_job() -> None:
    records = ErrorRecords()
    records.handle(
        record("Job 7  completed successfully, but some output files are missing.\nc.h5", event="error")
    )
    assert list(records.told.said) == [7]


def test_a_lock_and_an_interruption_are_seen() -> None:
    records = ErrorRecords()
    records.handle(record("LockException", event="error", exception="LockException"))
    assert records.told.locked
    assert not records.told.interrupted
    records.handle(record("Terminating processes on user request, this might take some time.", logging.INFO))
    assert records.told.interrupted


# ---- which cells -----------------------------------------------------------------------------------------


def study(models: dict[str, str | None], texts: dict[str, str | None]) -> SimpleNamespace:
    """As much of a study as is looked at: model → its training run, dataset → its text."""
    return SimpleNamespace(
        models={name: SimpleNamespace(pretraining=run) for name, run in models.items()},
        pretraining=SimpleNamespace(text="taught"),
        text_of=lambda dataset: SimpleNamespace(name=texts[dataset]) if texts[dataset] else None,
    )


STUDY = study({"tiny": None, "own": "run-1"}, {"wiki": "wikipedia", "random": None})
CELLS = [Cell(m, c, d) for m in ("tiny", "own") for c in ("step0", "step4") for d in ("wiki", "random")]

OF_TINY, OF_OWN = (
    {f"{c.model}/{c.checkpoint}/{c.dataset}" for c in CELLS if c.model == m} for m in STUDY.models
)


@pytest.mark.parametrize(
    ("failure", "waiting"),
    [
        (Failure("extract", CELL), {"tiny/step4/wiki"}),
        (
            Failure("download", {"model": "tiny", "checkpoint": "step4"}),
            {"tiny/step4/wiki", "tiny/step4/random"},
        ),
        (Failure("tokenize", {"model": "own", "dataset": "wiki"}), {"own/step0/wiki", "own/step4/wiki"}),
        (Failure("resolve", {"model": "tiny"}), OF_TINY),
        (Failure("pretrain", {"run": "run-1"}), OF_OWN),
        (Failure("train_tokenizer", {}), OF_OWN),
        (Failure("fetch_text", {"text": "taught"}), OF_OWN),
        (Failure("fetch_text", {"text": "wikipedia"}), {one for one in OF_TINY | OF_OWN if "wiki" in one}),
    ],
)
def test_a_cell_waits_for_what_it_is_made_of(failure: Failure, waiting: set[str]) -> None:
    found = missing_cells(CELLS, [Cause(failure, "why")], STUDY)
    named = {f"{one.cell.model}/{one.cell.checkpoint}/{one.cell.dataset}" for one in found if one.cause}
    assert named == waiting


def test_the_first_failure_counts() -> None:
    causes = [
        Cause(Failure("tokenize", {"model": "tiny", "dataset": "wiki"}), ""),
        Cause(Failure("extract", CELL), ""),
    ]
    (one,) = missing_cells([Cell(**CELL)], causes, STUDY)
    assert one.cause is causes[0]


# ---- the last words --------------------------------------------------------------------------------------


def many(n: int, folder: Path) -> list[Cause]:
    """Extractions of n checkpoints that fail alike, each with its name in the reason."""
    failures = []
    for step in range(n):
        log = f"{step}.log"
        (folder / log).write_text(f"error: `step{step}` of `tiny` is broken at byte {step}.\n")
        failures.append(Failure("extract", {**CELL, "checkpoint": f"step{step}"}, logs=(log,), attempts=2))
    return causes_of(failures, folder)


def words_of(missing: list, causes: list[Cause], **options: object) -> str:
    end = Aftermath(**{"missing": missing, "causes": causes, "cells": 900, "later": {}, **options})
    return last_words(end, "snakemake --cores all")


def test_alike_failures_are_told_once(tmp_path: Path) -> None:
    causes = many(600, tmp_path)
    missing = missing_cells([Cell("tiny", f"step{step}", "wiki") for step in range(600)], causes, STUDY)
    later = {"gather": {"tiny"}, "report": set(), "figure": {"controls"}, "tables": set()}
    assert words_of(missing, causes, later=later) == (
        "\n"
        "600 of 900 cells are missing (a cell: one checkpoint of a model, one dataset):\n"
        "  tiny: 600 checkpoints (step0, step1, …, step599) on wiki (600 cells)\n"
        "    extract failed 2 times: `step0` of `tiny` is broken at byte 0.\n"
        "    log: 0.log and 599 more like it\n"
        "  Not made: metrics of tiny, tables, figures, report.\n"
        "  Every missing cell with its reason and log: results/missing.tsv\n"
        "What is done is kept; the same command makes the rest:\n"
        "  snakemake --cores all"
    )


def test_unlike_failures_stop_at_a_screen(tmp_path: Path) -> None:
    failures = [Failure("extract", {**CELL, "checkpoint": f"step{step}"}) for step in range(40)]
    causes = [
        Cause(one, f"reason {chr(65 + number // 26)}{chr(65 + number % 26)}")
        for number, one in enumerate(failures)
    ]
    missing = missing_cells([Cell("tiny", f"step{step}", "wiki") for step in range(40)], causes, STUDY)
    lines = words_of(missing, causes).splitlines()
    assert len(lines) < 30
    assert "  … and 30 more cells, for other reasons; 30 more jobs failed." in lines


def test_a_figure_that_failed_misses_no_cell() -> None:
    words = words_of(
        [], [Cause(Failure("figure", {"figure": "controls"}), "KeyError: 'x'")], later={"report": ()}
    )
    assert (
        "No cell is missing, but 1 job failed:\n  figure controls\n    figure failed: KeyError: 'x'\n"
        in words
    )
    assert "missing.tsv" not in words


@pytest.mark.parametrize(
    ("stopped", "said"),
    [
        (INTERRUPTED, "interrupted, or not begun"),
        (ENDED_EARLY, f"not reached: {ENDED_EARLY}"),
        (
            "Snakemake ended: OSError: No space left on device",
            "not reached: Snakemake ended: OSError: No space left on device\n    Free space",
        ),
    ],
)
def test_what_was_not_reached_says_why(stopped: str, said: str) -> None:
    words = words_of(missing_cells(CELLS[:2], [], STUDY), [], stopped=stopped)
    assert f"  tiny: step0 on wiki, random (2 cells)\n    {said}" in words
    assert words.startswith("\nThe run was interrupted. 2 of 900") == (stopped == INTERRUPTED)


def test_a_long_reason_is_cut() -> None:
    words = words_of([], [Cause(Failure("report", {}), "x" * 5000)])
    assert len(words) < 1000


def calls_to_sum_up(jobs: int, path: Path) -> int:
    """Count the calls, of Python's functions and others, that the summary of so many failed jobs takes."""
    causes = [
        Cause(Failure("extract", {**CELL, "checkpoint": f"step{n}"}), f"reason {n}") for n in range(jobs)
    ]
    cells = [Cell("tiny", f"step{n}", "wiki") for n in range(jobs)]
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        missing = missing_cells(cells, causes, STUDY)
        write_missing(path, missing, stopped="")
        words_of(missing, causes)
    finally:
        sys.setprofile(before)
    return calls


def test_twice_as_many_jobs_are_twice_the_work(tmp_path: Path) -> None:
    few, many = (calls_to_sum_up(jobs, tmp_path / "missing.tsv") for jobs in (500, 1000))
    assert few > 500 and many < 2.2 * few


def test_the_list_is_whole_and_goes_when_nothing_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "results/missing.tsv"
    cause = Cause(Failure("extract", CELL, logs=("a.log", "slurm.log"), attempts=3), "tab\there")
    write_missing(path, missing_cells([Cell(**CELL), CELLS[0]], [cause], STUDY), stopped="it was so")
    with path.open(newline="") as file:
        rows = list(csv.reader(file, dialect="excel-tab"))
    assert rows == [
        ["model", "checkpoint", "dataset", "failed", "attempts", "why", "log"],
        ["tiny", "step4", "wiki", "extract", "3", "tab\there", "a.log"],
        ["tiny", "step0", "wiki", "", "0", "not reached: it was so", ""],
    ]
    write_missing(path, [], stopped="")
    assert not path.exists()


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["/env/bin/snakemake", "--cores", "all"], "snakemake --cores all"),
        ([".venv/bin/snakemake", "--cores", "2"], ".venv/bin/snakemake --cores 2"),
        (["/lib/snakemake/__main__.py", "--config", "a=b c"], "python -m snakemake --config 'a=b c'"),
    ],
)
def test_the_command_is_spelt_as_it_was_typed(argv: list[str], command: str) -> None:
    assert command_line(argv) == command


# ---- who runs it -----------------------------------------------------------------------------------------


def test_a_run_is_known_for_as_long_as_it_lives(tmp_path: Path) -> None:
    (tmp_path / ".snakemake").mkdir()
    assert running.who_holds_it(tmp_path) == ""
    note = running.begin(tmp_path, "snakemake --cores 2")
    held = running.who_holds_it(tmp_path)
    assert held.startswith(f"This study is being run (process {os.getpid()} on ")
    assert "snakemake --cores 2" in held
    assert "Do not use `--unlock`" in held
    assert running.refuse_unlocking(tmp_path).startswith("`--unlock` is refused")
    note.close()
    assert running.who_holds_it(tmp_path).startswith("The last run of this study ended without unlocking it")
    assert running.refuse_unlocking(tmp_path) == ""


def test_a_note_that_is_no_note_says_nothing(tmp_path: Path) -> None:
    (tmp_path / ".snakemake").mkdir()
    (tmp_path / running.RUNNING).write_text("{")
    assert running.who_holds_it(tmp_path) == ""
