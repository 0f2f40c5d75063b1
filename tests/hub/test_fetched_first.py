"""What a network is needed for can be fetched first, and the rest be done without one."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from hub_process import HubProcess
from runs import ENTRY, published
from studies import make_study

TARGET = "results/tables/metrics.parquet"


def test_a_study_goes_on_without_a_network_once_its_weights_are_there(tmp_path: Path) -> None:
    hub = HubProcess(tmp_path / "hub")
    published(hub)
    study = make_study(tmp_path / "study", hub.endpoint, {"tiny": ENTRY})
    study.configure(models=[{"tiny": {"checkpoints": [2, 16], "datasets": ["wiki"]}}], keep_weights=True)
    try:
        study.run(TARGET, "--until", "download", "fetch_tokenizer", "tokenize")
    finally:
        hub.stop()
    assert len(list(study.path.glob("results/weights/tiny/*/*.safetensors"))) == 2
    assert not list(study.path.glob("results/losses/**/*.json"))
    study.run(TARGET)
    table = pd.read_parquet(study.path / TARGET).query("metric == 'loss'")
    assert list(table["step"]) == [2, 16] and (table["flag"] == "").all()
