"""What a study lacks and why: its cells against the files, the logs of its jobs, and Snakemake's log."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from test_jobs import CONFIG, all_jobs, job_of, jobs_of, write_study

from lmshape.jobs import Jobs, Wildcards
from lmshape.jobs.missing import INTERRUPTED, NOT_REACHED, Missing, describe_missing, go_on, missing_of
from lmshape.study.study import Cell, load_study

MEASURE_LOG = "results/logs/measure/local/checkpoint-4/book/layers-00-02.log"
MEASURED = "results/statistics/local/checkpoint-4/book/measured-layers-00-02"
FOUR = Cell("local", "checkpoint-4", "book")
SKIPPED = {True: {"measure_cell"}, False: {"extract", "measure", "measure_own"}}  # by `keep_activations`
COMMAND = "snakemake --cores all"

# As Snakemake 9 writes them.
PREFIX = "Command 'set -euo pipefail;  python -m lmshape run {rule} > {log} 2>&1' "
ENDED = 'RuleException:\nCalledProcessError in file "x.smk", line 9:\n' + PREFIX + "{end}.\n"
ERROR = """[Sun Nov 29 10:39:50 2026]
Error in rule {rule}:
    message: {said}
    jobid: 11
    output: results/x.h5 (update)
    log: {log} (check log file(s) for error details)
    shell:
        python -m lmshape run {rule} > {log} 2>&1
        (command exited with non-zero exit code)
Logfile {log}:
======
error: somebody else's
======
Trying to restart job 11.
"""
LATE = """MissingOutputException in rule measure in file "x.smk", line 4:
Job 11  completed successfully, but some output files are missing. Missing files after 5 seconds. This might be due to \
filesystem latency. If that is the case, consider to increase the wait time with --latency-wait:
{file} (missing locally, parent dir contents: x.h5)
Trying to restart job 11.
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """A study of which every file is there, empty, with and without activations that are kept."""
    folders = {}
    with pytest.MonkeyPatch.context() as patch:
        for keep in (True, False):
            root = tmp_path_factory.mktemp("made") / "study"
            write_study(root)
            patch.chdir(root)
            jobs = jobs_of(root, keep_activations=keep)
            for name in jobs.rules.keys() - SKIPPED[keep]:
                for job in all_jobs(jobs, name):
                    for file in jobs.rules[name].outputs(job):
                        path = root / file
                        path.parent.mkdir(parents=True, exist_ok=True)
                        if not path.exists():
                            path.touch()
            shutil.rmtree(root / "results/staged")  # it goes once the weights have been read
            folders[keep] = root
    return folders


@pytest.fixture
def root(made: dict[bool, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy = shutil.copytree(made[True], tmp_path / "study")
    monkeypatch.chdir(copy)
    return copy


def missing(root: Path, said: str = "", **changes: object) -> list[Missing]:
    return missing_of(jobs_of(root, **changes), root, said=said)


def take(root: Path, *files: str) -> None:
    for file in files:
        path = root / file
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def log(root: Path, text: str, file: str = MEASURE_LOG) -> None:
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(text)


def why(root: Path, said: str = "") -> str:
    """Why the cell lacks its statistics."""
    (one,) = missing(root, said)
    assert (one.what, one.step[0]) == (FOUR, "measure")
    return one.reason


# ---- what ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [True, False])
def test_of_a_whole_study_nothing_is_missing(
    keep: bool, made: dict[bool, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made[keep])
    jobs = jobs_of(made[keep], keep_activations=keep)
    assert missing_of(jobs, made[keep]) == []
    assert describe_missing([], jobs.study, command=COMMAND).startswith("Nothing is missing")


def test_of_a_study_that_has_not_run_everything_is_missing(root: Path) -> None:
    take(root, "results")
    write = Path(root, "results/revisions")
    assert not write.exists()
    found = missing(root, models=["local", "trained"])
    study = jobs_of(root, models=["local", "trained"]).study
    assert [one.what for one in found if isinstance(one.what, Cell)] == study.cells()
    assert {(one.reason, one.log) for one in found} == {(NOT_REACHED, "")}
    words = describe_missing(found, study, command=COMMAND).splitlines()
    assert words[0] == "8 of 8 cells are missing (a cell: one checkpoint of a model, one dataset)."
    assert words[-1] == f"  {COMMAND}" and len(words) < 10


@pytest.mark.parametrize("name", sorted(SKIPPED[False] | {"pretrain", "gather", "spikes"}
    | {"tables", "truncation_tables", "claims", "figures", "model_figures", "explore", "index", "report", "truncate"}
    | {"resolve", "fetch_tokenizer", "download", "release", "fetch_text", "train_tokenizer", "tokenize"}))  # fmt: skip
def test_every_job_that_fails_is_told_with_its_log(name: str, root: Path) -> None:
    """Whatever fails takes what comes after it along, and is told wherever it stands."""
    jobs = jobs_of(root)
    job = job_of(name)
    if name == "pretrain":
        job = Wildcards(run="shaky")  # no model is made of it, and its spikes are looked for
    if name == "truncate":
        (job,) = all_jobs(jobs, name)[:1]
    take(root, *(file for file in jobs.rules[name].outputs(job) if (root / file).exists()))
    log(root, "error: it failed\n", jobs.rules[name].log(job))
    found = [one for one in missing_of(jobs, root) if one.reason != NOT_REACHED]
    assert found
    assert {(one.step[0], one.reason, one.log) for one in found} == {
        (name, "it failed", jobs.rules[name].log(job))
    }


def test_one_job_of_a_cell_where_activations_pass(
    made: dict[bool, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = shutil.copytree(made[False], tmp_path / "study")
    monkeypatch.chdir(root)
    take(root, "results/losses/local/checkpoint-4/book.json")
    log(root, "error: it failed\n", "results/logs/extract/local/checkpoint-4/book.log")
    (one,) = missing(root, keep_activations=False)
    assert (one.what, one.step[0], one.reason) == (FOUR, "measure_cell", "it failed")


def test_a_job_counts_by_what_is_written_last(root: Path) -> None:
    """The archives that a failed job found are there again; what it did not come to write is not."""
    take(root, MEASURED)
    log(root, "error: the activations cannot be read\n")
    assert why(root) == "the activations cannot be read"


def test_a_cell_that_is_only_extracted_is_missing_without_its_loss(root: Path) -> None:
    take(root, "results/losses/local/checkpoint-4/book.json")
    study = {name: value for name, value in CONFIG.items() if name != "own_metrics"} | {"metrics": ["loss"]}
    (one,) = missing_of(Jobs(load_study(study, root)), root)
    assert (one.what, one.step[0], one.reason) == (FOUR, "extract", NOT_REACHED)


@pytest.mark.parametrize(
    "file",
    ["results/activations/local/checkpoint-4/book.h5", "results/texts/book.txt", "results/tokens/local/book.h5"],
)  # fmt: skip
def test_what_was_deleted_on_the_way_is_not_missed_as_long_as_nothing_fails(file: str, root: Path) -> None:
    """Snakemake makes no file again that only finished jobs have read."""
    take(root, file)
    for rule, text in (("extract/local/checkpoint-4/book", "done\n"), ("fetch_text/book", "")):
        log(root, text, f"results/logs/{rule}.log")
    assert missing(root) == []


def test_a_text_that_cannot_be_fetched_again_is_told_although_old_results_are_there(root: Path) -> None:
    take(root, "results/texts/book.txt")
    log(root, "error: the checksum is another\n", "results/logs/fetch_text/book.log")
    found = missing(root)
    assert {
        one.what.dataset for one in found if isinstance(one.what, Cell) and one.what.model == "local"
    } == {"book"}
    assert {one.reason for one in found} == {"the checksum is another"}


# ---- why -------------------------------------------------------------------------------------------------


def test_why_as_the_log_has_it(root: Path) -> None:
    take(root, MEASURED)
    assert why(root) == NOT_REACHED
    for text, reason in (
        ("", "its log is empty"),
        ("layers/01 measured\n", "layers/01 measured"),
        ("error: a sentence. Do this.\n", "a sentence. Do this."),
        ("Traceback (most recent call last):\n  File x\nKeyError: 'a'\n", "KeyError: 'a'"),
        ("OSError: [Errno 28] No space left on device\nerror: x\n", "No space left on device: x"),
        ("Aborted!\n", INTERRUPTED),
    ):
        log(root, text)
        assert why(root) == reason


def told(end: str = "returned non-zero exit status 1", said: str = "None", log: str = MEASURE_LOG) -> str:
    return (ENDED + ERROR).format(rule="measure", log=log, end=end, said=said)


KILLED = "it was killed (SIGKILL)"
OTHER_LOG = MEASURE_LOG.replace("checkpoint-4", "checkpoint-0")


@pytest.mark.parametrize(
    ("text", "said", "reason"),
    [
        ("step 50 %\n", told("died with <Signals.SIGKILL: 9>"), KILLED + "; its log ends with: step 50 %"),
        ("", told("returned non-zero exit status 137"), "it was killed (SIGKILL)"),
        (None, told("returned non-zero exit status 3"), "exit code 3, and its log does not exist"),
        ("", told("returned non-zero exit status 130"), INTERRUPTED),
        ("error: a\n", told(), "a"),
        ("step 50 %\n", told(said="SLURM-job '7' failed, SLURM status is: 'TIMEOUT'."), "SLURM ended it (TIMEOUT)"),
        ("", told(said="SLURM-job '7' failed, SLURM status is: 'OUT_OF_MEMORY'."), "SLURM ended it (OUT_OF_MEMORY)"),
        ("error: a\n", told(said="SLURM-job '7' failed, SLURM status is: 'FAILED'. Reason: x."), "a"),
        (
            None,
            told(
                said="SLURM sbatch failed. The error message was 'sbatch: error: invalid account\nsbatch: error: x'.\n"
                "    sbatch call:\n        sbatch --parsable"
            ),
            "SLURM did not take it: sbatch: error: invalid account sbatch: error: x",
        ),
        ("", LATE.format(file=MEASURED), "it ended well, but its files did not appear in time: results/"),
        # what another job has met is not this one's
        ("step 50 %\n", told() + told("returned non-zero exit status 137", log=OTHER_LOG), "step 50 %"),
        ("step 50 %\n", told("returned non-zero exit status 137", log=OTHER_LOG) + told(), "step 50 %"),
        # the last attempt counts
        ("error: a\n", told(said="SLURM status is: 'TIMEOUT'.") + told(said="SLURM status is: 'FAILED'."), "a"),
        ("step 50 %\n", told("returned non-zero exit status 137") + told(), "step 50 %"),
    ],
)  # fmt: skip
def test_why_as_snakemakes_log_has_it(text: str | None, said: str, reason: str, root: Path) -> None:
    take(root, MEASURED)
    if text is not None:
        log(root, text)
    found = why(root, "Building DAG of jobs...\n" + said + "Exiting because a job execution failed.\n")
    assert found == reason or (reason.startswith(("SLURM ended", "it ended")) and found.startswith(reason))


def test_the_schedulers_own_log_is_read(root: Path) -> None:
    take(root, MEASURED)
    scheduler = root / ".snakemake/slurm_logs/rule_measure/x/7.log"
    scheduler.parent.mkdir(parents=True)
    scheduler.write_text("slurmstepd: error: Detected 1 oom_kill event in StepId=7.batch.\n")
    said = told(said="SLURM-job '7' failed, SLURM status is: 'FAILED'.", log=f"{MEASURE_LOG}, {scheduler}")
    assert "(OUT_OF_MEMORY)" in why(root, said)


def test_a_group_of_jobs_that_fails(root: Path) -> None:
    take(root, MEASURED)
    said = (
        "Error in group 1:\n    message: SLURM status is: 'NODE_FAIL'.\n    jobs:\n        rule measure:\n"
        f"            jobid: 3\n            log: {MEASURE_LOG} (check log file(s))\n[Sun Nov 29]\n"
    )
    assert why(root, said).startswith("SLURM ended it (NODE_FAIL)")


# ---- in words --------------------------------------------------------------------------------------------


def words(root: Path, found: list[Missing], jobs: Jobs | None = None) -> list[str]:
    return describe_missing(found, (jobs or jobs_of(root)).study, command=COMMAND).splitlines()


def test_a_cell_its_reason_its_log_and_what_was_not_made(root: Path) -> None:
    take(root, MEASURED, "results/metrics/local.parquet", "results/index.html", "results/tables/claims.csv")
    log(root, "Traceback (most recent call last):\n  x\nOSError: No space left on device\n")
    assert words(root, missing(root)) == [
        "1 of 12 cells is missing (a cell: one checkpoint of a model, one dataset).",
        "  local: checkpoint-4 on book",
        "    measure: OSError: No space left on device",
        "    Free space on the disk, limit downloads with `disk_budget_gb`, or let activations be deleted once "
        "measured: `keep_activations: false`.",
        f"    log: {MEASURE_LOG}",
        "  Not made: metrics of local, claims, results/index.html.",
        "What is done is kept. To make the rest:",
        f"  {COMMAND}",
    ]


def test_a_figure_that_failed_misses_no_cell(root: Path) -> None:
    take(root, "results/figures/controls.png", "results/index.html")
    log(root, "KeyError\nerror: x is not there\n", "results/logs/figures.log")
    assert words(root, missing(root))[:4] == [
        "0 of 12 cells are missing (a cell: one checkpoint of a model, one dataset).",
        "  figures",
        "    figures: x is not there",
        "    log: results/logs/figures.log",
    ]


def failed(step: int, reason: str) -> Missing:
    cell = {"model": "local", "checkpoint": f"step{step}", "dataset": "book"}
    return Missing(Cell(**cell), ("extract", Wildcards(**cell)), reason, f"{step}.log", "extract")


def test_alike_failures_are_told_once(root: Path) -> None:
    """Also where each has the name of its checkpoint in the reason."""
    found = words(root, [failed(step, f"`step{step}` of `local` is broken") for step in range(600)])
    assert found[1:4] == [
        "  local: 600 checkpoints (step0, step1, …, step599) on book (600 cells)",
        "    extract: `step0` of `local` is broken",
        "    log: 0.log and 599 more like it",
    ]


def test_unlike_failures_stop_at_a_screen(root: Path) -> None:
    reasons = [f"reason {chr(65 + number // 26)}{chr(65 + number % 26)}" for number in range(40)]
    found = words(root, [failed(step, reason) for step, reason in enumerate(reasons)])
    assert len(found) < 32
    assert "  … and 32 other reasons." in found


def test_a_long_reason_is_cut(root: Path) -> None:
    assert len("\n".join(words(root, [failed(0, "x" * 5000)]))) < 1000


def test_many_models_are_one_line(root: Path) -> None:
    found = [
        Missing(Cell(f"m{n}", "c", "d"), ("extract", Wildcards(model=f"m{n}")), "a", "a.log", "extract")
        for n in range(9)
    ]
    assert words(root, found)[1] == "  9 models (m0, m1, …, m8): 9 cells"


def calls_to_tell(checkpoints: int, root: Path) -> int:
    """Count the calls, of Python's functions and others, that the summary of so many failed cells takes."""
    said = "".join(told(log=f"results/logs/extract/local/step{step}/book.log") for step in range(checkpoints))
    jobs = jobs_of(root, models=["local"], datasets=["book"])
    model = jobs.study.models["local"]
    of_model = {f"step{step}": model.checkpoints["checkpoint-4"] for step in range(checkpoints)}
    object.__setattr__(model, "checkpoints", of_model)
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        found = missing_of(jobs, root, said=said)
        describe_missing(found, jobs.study, command=COMMAND)
    finally:
        sys.setprofile(before)
    assert len([one for one in found if isinstance(one.what, Cell)]) == checkpoints
    return calls


def test_twice_as_many_cells_are_twice_the_work(root: Path) -> None:
    few, many = (calls_to_tell(cells, root) for cells in (250, 500))
    assert few > 250 and many < 2.2 * few


@pytest.mark.parametrize(
    ("logged", "command"),
    [
        ("/env/bin/snakemake --cores 2", "snakemake --cores 2"),
        ("/lib/snakemake/__main__.py --cores 2 -k", "python -m snakemake --cores 2 -k"),
    ],
)
def test_the_command_is_that_of_the_last_run(logged: str, command: str) -> None:
    assert go_on(f"  Python version: 3\n  Command: {logged}\n  Snakefile: x\n") == command


def test_without_a_run_the_command_names_the_study() -> None:
    assert go_on("", "--directory", "my study") == "snakemake --cores all --directory 'my study'"
