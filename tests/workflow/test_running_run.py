"""A study of a run that is still running, called as cron does: new checkpoints are measured, gone ones stay."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Semaphore, Thread

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from conftest import LOCAL_RUN, StudyFolder
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

from lmshape.tables.columns import CHECKPOINTS_KEY
from lmshape.texts.tokenizer import train_tokenizer

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


class Paced(TrainerCallback):
    """Save one checkpoint more for each call, so that it is saved while the study runs; stop when told to."""

    def __init__(self) -> None:
        self.due, self.saved, self.over = Semaphore(0), Event(), Event()

    def on_save(self, args: object, state: object, control: object, **_: object) -> None:
        self.saved.set()
        self.due.acquire()
        control.should_training_stop = self.over.is_set()


@contextmanager
def training(folder: Path) -> Iterator[Paced]:
    """Train in a thread meanwhile; Trainer keeps three checkpoints."""
    tokenizer = train_tokenizer("the cat sat on the mat and the dog sat on the log. " * 50, 300)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=300, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64,
    )  # fmt: skip
    rows = [{"input_ids": ids, "labels": ids} for ids in torch.randint(0, 300, (64, 32))]
    arguments = TrainingArguments(
        output_dir=str(folder), max_steps=1000, per_device_train_batch_size=2, save_steps=2, save_total_limit=3,
        logging_steps=1, learning_rate=1e-2, report_to=[], use_cpu=True, disable_tqdm=True,
        dataloader_pin_memory=False,
    )  # fmt: skip
    paced = Paced()
    trainer = Trainer(
        LlamaForCausalLM(config), arguments, train_dataset=rows, processing_class=tokenizer, callbacks=[paced]
    )
    thread = Thread(target=trainer.train)
    thread.start()
    try:
        assert paced.saved.wait(timeout=120)
        yield paced
    finally:
        paced.over.set()
        paced.due.release()
        thread.join()


def test_calls_beside_a_training_run(study: StudyFolder) -> None:
    said = []
    with training(study.path / "run") as paced:
        for _ in range(CALLS):
            paced.due.release()  # one more is saved meanwhile, and later the oldest deleted
            said.append(study.snakemake("--cores", "2", TABLE).stdout)
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
