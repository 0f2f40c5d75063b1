"""A cluster of no known scheduler: jobs go through a `qsub` that runs them, and GPUs are what the profile says."""

from __future__ import annotations

from pathlib import Path

import yaml
from conftest import StudyFolder

QSUB = """#!/bin/sh
# takes the options of PBS, runs the script behind them, and prints an id
for script; do :; done
echo "$@" >> "{log}"
sh "$script" > "{log}.out" 2>&1
echo 1
"""
ENCODER = "results/metrics/small-encoder.parquet"  # of one cell
SUBMIT = "{qsub} -l nodes=1:ppn={{threads}}:gpus={{resources.gpu}},mem={{resources.mem_mb}}mb"


def test_jobs_are_submitted_with_the_gpus_of_the_profile(study_copy: StudyFolder, tmp_path: Path) -> None:
    qsub, log = tmp_path / "qsub", tmp_path / "submitted"
    qsub.write_text(QSUB.format(log=log))
    qsub.chmod(0o755)
    profile = {
        "executor": "cluster-generic",
        "cluster-generic-submit-cmd": SUBMIT.format(qsub=qsub),
        "default-resources": {"gpu": 0, "gpu_partition": "yes"},
        "jobs": 2,
    }
    (study_copy.path / "pbs").mkdir()
    (study_copy.path / "pbs/config.yaml").write_text(yaml.safe_dump(profile))
    run = study_copy.snakemake(
        "--workflow-profile", "pbs", "--latency-wait", "10", "--forcerun", "measure", "--", ENCODER
    )
    assert run.returncode == 0, run.stdout
    submitted = log.read_text().splitlines()
    assert len(submitted) == 1 and "gpus=0" in submitted[0]  # the measuring; what is short runs here
