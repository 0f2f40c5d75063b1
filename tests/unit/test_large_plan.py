"""Ten thousand cells, planned twice: the second plan leaves no more memory and no more files than the first."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import pytest
import yaml

from lmshape.jobs import Jobs
from lmshape.study.study import load_study

pytestmark = pytest.mark.slow

CHECKPOINTS, DATASETS = 100, 100
CONFIG = {
    "models": ["mine"],
    "datasets": [f"random-{number}" for number in range(DATASETS)],
    "checkpoints": "all",
    "metrics": ["spectral", "loss"],
    "truncation": False,
    "registry": {"models": "models.yaml", "datasets": "datasets.yaml"},
}
SHAPE = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "max_position_embeddings": 512,
    "vocab_size": 1000,
}


def planned(root: Path) -> int:
    """Plan every job of the study: inputs, outputs, digest, resources; return how many cells there are."""
    jobs = Jobs(load_study(CONFIG, root))
    for name, job in jobs.every():
        rule = jobs.rules[name]
        assert rule.outputs(job) and isinstance(rule.inputs(job), dict)
        assert jobs.whole_digest(name, job)
        assert rule.megabytes(job) and rule.minutes(job, rule.threads(job)) and rule.disk_megabytes(job)
    return len(jobs.study.cells())


def test_planning_again_grows_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for step in range(CHECKPOINTS):
        folder = tmp_path / f"run/checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(SHAPE))
        (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
        (folder / "tokenizer.json").write_text("{}")
    (tmp_path / "models.yaml").write_text(yaml.safe_dump({"mine": {"kind": "decoder", "folder": "run"}}))
    datasets = {name: {"order": "random"} for name in CONFIG["datasets"]}
    (tmp_path / "datasets.yaml").write_text(yaml.safe_dump({"texts": {}, "datasets": datasets}))
    left: list[tuple[int, set[str]]] = []
    for _ in range(2):
        assert planned(tmp_path) == CHECKPOINTS * DATASETS
        gc.collect()
        left.append((len(gc.get_objects()), set(map(str, tmp_path.rglob("*")))))
    (objects, files), (objects_again, files_again) = left
    assert files_again == files
    assert objects_again - objects < 1000, "a plan of 10 000 cells has left something behind"
