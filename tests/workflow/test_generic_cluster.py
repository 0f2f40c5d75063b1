"""A cluster of no known scheduler: jobs go through a `qsub` that runs them, and GPUs are what the profile says."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from conftest import StudyFolder

QSUB = """#!/bin/sh
# takes the options of PBS, runs the script behind them, and prints an id
for script; do :; done
echo "$@" >> "{log}"
sh "$script" > "{log}.out" 2>&1
echo 1
"""
SUBMIT = "{qsub} -l nodes=1:ppn={{threads}}:gpus={{resources.gpu}},mem={{resources.mem_mb}}mb"


def test_jobs_are_submitted_with_the_gpus_of_the_profile(new_study: StudyFolder, tmp_path: Path) -> None:
    pytest.importorskip("snakemake_executor_plugin_cluster_generic")
    qsub, log = tmp_path / "qsub", tmp_path / "submitted"
    qsub.write_text(QSUB.format(log=log))
    qsub.chmod(0o755)
    profile = {
        "executor": "cluster-generic",
        "cluster-generic-submit-cmd": SUBMIT.format(qsub=qsub),
        "default-resources": {"gpu": 0, "gpu_partition": "yes"},
        "jobs": 2,
    }
    (new_study.path / "pbs").mkdir()
    (new_study.path / "pbs/config.yaml").write_text(yaml.safe_dump(profile))
    target = "results/pretrained/small-decoder/summary.json"
    run = new_study.snakemake("--workflow-profile", "pbs", "--latency-wait", "10", target)
    assert run.returncode == 0, run.stdout
    assert (new_study.path / target).is_file()
    submitted = log.read_text().splitlines()
    assert len(submitted) == 1 and "gpus=0" in submitted[0]  # the training; texts and tokens are made here
