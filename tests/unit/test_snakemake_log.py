"""What Snakemake's log, as real runs have left it, says of each cell that is missing."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

import pytest
import yaml

from lmshape.jobs import Jobs
from lmshape.jobs.missing import NOT_REACHED, Missing, describe_missing, go_on, missing_of
from lmshape.study.study import Cell, study_of

RUN = {"width": 32, "blocks": 2, "heads": 2, "learning_rate": 0.01, "architecture": "gpt_neox"}
FILES = {
    "models": {"decoder": {"kind": "decoder", "folder": "results/pretrained/decoder"}},
    "datasets": {"texts": {"text": {"path": "text.txt"}}, "datasets": {"wiki": {"text": "text"}}},
    "config": {
        "study": "log",
        "models": ["decoder"],
        "checkpoints": [0, 16],
        "datasets": ["wiki"],
        "metrics": ["spectral"],
        "sampling": {"window": 32, "draws": 2, "rows_per_draw": 64},
        "truncation": False,
        "registry": {"models": "models.yaml", "datasets": "datasets.yaml"},
        "pretraining": {"text": "text", "steps": 16, "sequences": 4, "window": 32, "vocabulary": 400},
    },
}
BEGAN = datetime(2026, 11, 29, 10, 40, 55).timestamp()
HEAD = """
SNAKEMAKE
=========
  Date: 2026-11-29 10:40:55
  Command: /home/me/.venv/bin/snakemake --cores 2 results/tables/metrics.parquet
  Working directory: /home/me/study
Building DAG of jobs...
Select jobs to execute...
[Sun Nov 29 10:41:02 2026]
Job 3: Extract activations of decoder at checkpoint-0 on wiki
"""
SBATCH_FAILED = """[Sun Nov 29 10:41:03 2026]
Error in rule extract:
    message: SLURM sbatch failed. The error message was 'sbatch: error: invalid partition specified: gpus
sbatch: error: Batch job submission failed: Invalid partition name specified'.
    sbatch call:
        sbatch --parsable --job-name f46a4096 -A lab -p gpus -t 10 --mem 800 -D /home/me/study --wrap="python"
For further error details see the cluster/cloud log and the log files of the involved rule(s).
    jobid: 3
    output: results/activations/decoder/checkpoint-0/wiki.h5, results/losses/decoder/checkpoint-0/wiki.json
    log: results/logs/extract/decoder/checkpoint-0/wiki.log (check log file(s) for error details)
Logfile results/logs/extract/decoder/checkpoint-0/wiki.log not found.
"""
ON_SLURM = """[Sun Nov 29 10:41:06 2026]
Error in rule extract:
    message: SLURM-job '3' failed, SLURM status is: '{status}'. Detailed failure reason unavailable (status command is \
not 'sacct').For further error details see the cluster/cloud log and the log files of the involved rule(s).
    jobid: 3
    input: results/pretrained/decoder/checkpoint-0/model.safetensors, results/tokens/decoder/wiki.h5
    output: results/activations/decoder/checkpoint-0/wiki.h5, results/losses/decoder/checkpoint-0/wiki.json
    log: results/logs/extract/decoder/checkpoint-0/wiki.log, {root}/results/logs/slurm/rule_extract/3.log \
(check log file(s) for error details)
    shell:
        python -m lmshape run extract --cell decoder/checkpoint-0/wiki > \
results/logs/extract/decoder/checkpoint-0/wiki.log 2>&1
        (command exited with non-zero exit code)
    external_jobid: 3
Logfile results/logs/extract/decoder/checkpoint-0/wiki.log:
==================================
decoder checkpoint-0 wiki: 0/480 tokens
==================================
Logfile {root}/results/logs/slurm/rule_extract/3.log:
==================================
"""
# The Snakemake within a SLURM job says the same of it once more, and so does that of a job of this machine.
COMMAND_FAILED = """RuleException:
CalledProcessError in file "/home/me/lmshape/workflow/rules/measure.smk", line 9:
Command 'set -euo pipefail; python -m lmshape run extract --cell decoder/checkpoint-0/wiki > \
results/logs/extract/decoder/checkpoint-0/wiki.log 2>&1' {ended}.
[Sun Nov 29 10:41:06 2026]
Error in rule extract:
    message: None
    jobid: 0
    output: results/activations/decoder/checkpoint-0/wiki.h5, results/losses/decoder/checkpoint-0/wiki.json
    log: results/logs/extract/decoder/checkpoint-0/wiki.log (check log file(s) for error details)
    shell:
        python -m lmshape run extract --cell decoder/checkpoint-0/wiki > \
results/logs/extract/decoder/checkpoint-0/wiki.log 2>&1
        (command exited with non-zero exit code)
Logfile results/logs/extract/decoder/checkpoint-0/wiki.log: empty file
"""
NO_OUTPUT = """Waiting at most 5 seconds for missing files:
results/losses/decoder/checkpoint-0/wiki.json (missing locally)
MissingOutputException in rule extract in file "/home/me/lmshape/workflow/rules/measure.smk", line 9:
Job 3  completed successfully, but some output files are missing. Missing files after 5 seconds. This might be due to \
filesystem latency. If that is the case, consider to increase the wait time with --latency-wait:
results/losses/decoder/checkpoint-0/wiki.json (missing locally, parent dir contents: logs)
"""
TAIL = "[Sun Nov 29 10:42:00 2026]\nFinished jobid: 5 (Rule: fetch_text)\nExiting because a job execution failed.\n"
TOO_MUCH = (
    "slurmstepd-node1: error: StepId=3.batch exceeded memory limit (79165440 > 62914560), being killed\n"
)


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    """A study whose cells are ready to be extracted."""
    files = {**FILES, "config": {**FILES["config"], "pretraining": {**FILES["config"]["pretraining"]}}}
    files["config"]["pretraining"]["runs"] = {"decoder": RUN}
    for name, content in files.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "text.txt").write_text("A text. " * 1000)
    jobs = Jobs(study_of(tmp_path / "config.yaml", tmp_path))
    first = missing_of(jobs, tmp_path)[0]
    while first.step[0] != "extract":
        for file in jobs.rules[first.step[0]].outputs(first.step[1]):
            path = tmp_path / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        first = missing_of(jobs, tmp_path)[0]
    return jobs


def of_first_cell(jobs: Jobs, root: Path, said: str, log: str | None = None) -> Missing:
    file = root / "results/logs/extract/decoder/checkpoint-0/wiki.log"
    file.parent.mkdir(parents=True, exist_ok=True)
    if log is not None:
        file.write_text(log)
    first, second, *_ = missing_of(jobs, root, said=f"{HEAD}{said}{TAIL}")
    assert first.what == Cell("decoder", "checkpoint-0", "wiki")
    assert second.reason == NOT_REACHED
    return first


@pytest.mark.parametrize("status", ["TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL"])
@pytest.mark.parametrize("nested", ["", COMMAND_FAILED.format(ended="returned non-zero exit status 143")])
def test_slurms_word_counts_whatever_the_log_of_its_job_says(
    jobs: Jobs, tmp_path: Path, status: str, nested: str
) -> None:
    said = ON_SLURM.format(root=tmp_path, status=status) + nested
    assert of_first_cell(jobs, tmp_path, said, log="0/480 tokens\n").reason.startswith(
        f"SLURM ended it ({status})"
    )


def test_memory_that_slurm_itself_looks_at_is_told_by_the_log_of_its_job(jobs: Jobs, tmp_path: Path) -> None:
    log = tmp_path / "results/logs/slurm/rule_extract/3.log"
    log.parent.mkdir(parents=True)
    log.write_text(TOO_MUCH)
    said = ON_SLURM.format(root=tmp_path, status="FAILED") + TOO_MUCH
    assert "(OUT_OF_MEMORY)" in of_first_cell(jobs, tmp_path, said, log="0/480 tokens\n").reason


def test_a_job_that_slurm_did_not_take_needs_no_log(jobs: Jobs, tmp_path: Path) -> None:
    reason = of_first_cell(jobs, tmp_path, SBATCH_FAILED).reason
    assert reason.startswith(
        "SLURM did not take it: sbatch: error: invalid partition specified: gpus sbatch:"
    )
    assert reason.endswith("Invalid partition name specified")


@pytest.mark.parametrize(
    ("ended", "reason"),
    [
        ("died with <Signals.SIGKILL: 9>", "it was killed (SIGKILL); its log ends with: 0/480 tokens"),
        ("returned non-zero exit status 137", "it was killed (SIGKILL); its log ends with: 0/480 tokens"),
        ("returned non-zero exit status 1", "0/480 tokens"),
    ],
)
def test_a_command_that_was_killed_here_is_told_from_one_that_failed(
    jobs: Jobs, tmp_path: Path, ended: str, reason: str
) -> None:
    said = COMMAND_FAILED.format(ended=ended)
    assert of_first_cell(jobs, tmp_path, said, log="0/480 tokens\n").reason == reason


def test_the_last_attempt_counts(jobs: Jobs, tmp_path: Path) -> None:
    last = COMMAND_FAILED.format(ended="returned non-zero exit status 2")
    killed = COMMAND_FAILED.format(ended="returned non-zero exit status 137")
    assert of_first_cell(jobs, tmp_path, killed + last, log="error: no\n").reason == "no"
    assert of_first_cell(jobs, tmp_path, killed + last, log="").reason == "exit code 2, and its log is empty"
    slow, failed = (ON_SLURM.format(root=tmp_path, status=status) for status in ("TIMEOUT", "FAILED"))
    assert of_first_cell(jobs, tmp_path, slow + failed, log="error: no\n").reason == "no"
    assert "(TIMEOUT)" in of_first_cell(jobs, tmp_path, failed + slow, log="error: no\n").reason


def test_files_that_did_not_appear_are_named(jobs: Jobs, tmp_path: Path) -> None:
    reason = of_first_cell(jobs, tmp_path, NO_OUTPUT, log="").reason
    assert reason.startswith("it ended well, but its files did not appear in time: results/losses/decoder")


def test_a_log_of_an_earlier_run_says_nothing(jobs: Jobs, tmp_path: Path) -> None:
    log = tmp_path / "results/logs/extract/decoder/checkpoint-0/wiki.log"
    for seconds, reason in ((-1, NOT_REACHED), (1, "an old error")):
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("error: an old error\n")
        os.utime(log, (BEGAN + seconds, BEGAN + seconds))
        assert of_first_cell(jobs, tmp_path, "").reason == reason
    assert missing_of(jobs, tmp_path)[0].reason == "an old error"  # no run is known to have followed it


def test_the_advice_names_the_rule_that_the_command_line_takes(jobs: Jobs, tmp_path: Path) -> None:
    said = ON_SLURM.format(root=tmp_path, status="TIMEOUT").replace(
        "rule extract:", "rule measure_cell_3_layers:"
    )
    told = describe_missing(missing_of(jobs, tmp_path, said=said), jobs.study, command="snakemake")
    assert "--set-resources measure_cell_3_layers:runtime=…" in told


def test_the_command_of_the_run_goes_on(jobs: Jobs, tmp_path: Path) -> None:
    said = HEAD + SBATCH_FAILED + TAIL
    told = describe_missing(missing_of(jobs, tmp_path, said=said), jobs.study, command=go_on(said))
    assert told.startswith("2 of 2 cells are missing")
    assert "Correct `slurm_account` and `slurm_partition` in your profile" in told
    assert told.endswith("  snakemake --cores 2 results/tables/metrics.parquet")
    assert go_on(said.replace("bin/snakemake", "lib/snakemake/__main__.py")).startswith(
        "python -m snakemake --cores"
    )
