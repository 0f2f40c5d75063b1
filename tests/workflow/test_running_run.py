"""A study of a run that is still running, called as cron does: new checkpoints are measured, gone ones stay."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from conftest import LOCAL_RUN, StudyFolder

from lmshape.tables.columns import CHECKPOINTS_KEY

CALLS = 9  # and one when the training has ended
TABLE = "results/metrics/mine.parquet"
CONFIG = {"study": "running", **LOCAL_RUN}


@pytest.fixture
def study(tmp_path: Path) -> StudyFolder:
    study = StudyFolder(tmp_path)
    study.write("models.yaml", {"mine": {"kind": "decoder", "folder": "run", "tokens_per_step": 64}})
    study.write("datasets.yaml", {"texts": {}, "datasets": {"random": {"order": "random"}}})
    study.write("config.yaml", CONFIG)
    return study


def test_calls_beside_a_training_run(study: StudyFolder) -> None:
    calls, script = study.path / "calls", Path(__file__).with_name("trainer_run.py")
    calls.touch()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    training = subprocess.Popen([sys.executable, script, study.path / "run", calls], **quiet)
    said = []
    try:
        while not list(study.path.glob("run/checkpoint-*/trainer_state.json")):
            assert training.poll() is None
            time.sleep(0.1)
        for number in range(1, CALLS + 1):
            calls.write_text("." * number)  # one more is saved meanwhile, and later the oldest deleted
            said.append(study.snakemake("--cores", "2", TABLE).stdout)
    finally:
        training.kill()
        training.wait()
    last = study.snakemake("--cores", "2", TABLE)
    assert last.returncode == 0, last.stdout
    runs = [
        re.findall(r"Extract and measure mine at (\S+) on", one, re.MULTILINE) for one in [*said, last.stdout]
    ]
    measured = [name for names in runs for name in names]
    assert len(measured) >= CALLS and len(set(measured)) == len(measured), "each cell once"
    there = {path.name for path in study.path.glob("run/checkpoint-*")}
    identities = json.loads(pq.read_schema(study.path / TABLE).metadata[CHECKPOINTS_KEY])
    assert set(identities) == set(measured) and set(measured) - there, "some of them are gone"
    assert {name for name, one in identities.items() if one["note"]} == set(measured) - there
    loss = pd.read_parquet(study.path / TABLE).query("metric == 'loss'")
    assert loss["value"].notna().all() and loss["checkpoint"].is_unique and len(loss) == len(measured)
    assert study.planned(TABLE) == {}
