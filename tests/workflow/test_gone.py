"""Results outlive their weights: what was measured of checkpoints that are deleted stays, and is said to."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import LOCAL_RUN, StudyFolder
from transformers import LlamaConfig, LlamaForCausalLM

from lmshape.texts.tokenizer import train_tokenizer

TABLE = "results/metrics/mine.parquet"
RUN = "run/checkpoint-{}"
STEPS = (0, 2, 4)
CONFIG = {"study": "gone", **LOCAL_RUN}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study of three checkpoints of a run on this machine."""
    study = StudyFolder(tmp_path_factory.mktemp("measured"))
    tokenizer = train_tokenizer("the cat sat on the mat and the dog sat on the log. " * 50, 300)
    for step in STEPS:
        torch.manual_seed(step)
        config = LlamaConfig(
            vocab_size=300, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            max_position_embeddings=64,
        )  # fmt: skip
        LlamaForCausalLM(config).save_pretrained(study.path / RUN.format(step))
        tokenizer.save_pretrained(study.path / RUN.format(step))
    study.write("models.yaml", {"mine": {"kind": "decoder", "folder": "run", "tokens_per_step": 64}})
    datasets = {"random": {"order": "random"}, "more": {"order": "random"}}
    study.write("datasets.yaml", {"texts": {}, "datasets": datasets})
    study.write("config.yaml", CONFIG)
    run = study.snakemake("--cores", "2", TABLE)
    assert run.returncode == 0, run.stdout
    return study.path


@pytest.fixture
def study(measured: Path, tmp_path: Path) -> StudyFolder:
    return StudyFolder(Path(shutil.copytree(measured, tmp_path / "study", symlinks=True)))


def values(study: StudyFolder) -> pd.DataFrame:
    """The numbers of the table, without what one of another study would lack."""
    return pd.read_parquet(study.path / TABLE).drop(columns=["replicates"])


@pytest.mark.parametrize("checkpoints", ["all", [0, 2, 4], ["checkpoint-0", "checkpoint-4"]])
@pytest.mark.parametrize("gone", [(0,), STEPS])
def test_what_was_measured_stays(
    gone: tuple[int, ...], checkpoints: object, study: StudyFolder, measured: Path
) -> None:
    for step in gone:
        shutil.rmtree(study.path / RUN.format(step))
    study.write("config.yaml", {**CONFIG, "checkpoints": checkpoints})
    (study.path / TABLE).unlink()
    run = study.snakemake("--cores", "2", TABLE)
    assert run.returncode == 0, run.stdout
    assert "checkpoint-0" in run.stdout and "gone from run; what was measured stays." in run.stdout
    before = values(StudyFolder(measured))
    kept = before if len(checkpoints) == 3 else before[before["checkpoint"] != "checkpoint-2"]
    assert "Extract and measure" not in run.stdout
    columns = ["checkpoint", "layer", "metric", "value", "ci_low"]
    pd.testing.assert_frame_equal(values(study)[columns], kept[columns].reset_index(drop=True))


def test_the_weights_alone_may_go(study: StudyFolder) -> None:
    (study.path / RUN.format(0) / "model.safetensors").unlink()
    (study.path / TABLE).unlink()
    run = study.snakemake("--cores", "2", TABLE)
    assert run.returncode == 0, run.stdout
    assert set(values(study)["step"]) == set(STEPS)


def test_new_families_of_what_is_gone_are_refused_by_name(study: StudyFolder) -> None:
    shutil.rmtree(study.path / RUN.format(2))
    study.write("config.yaml", {**CONFIG, "metrics": ["anisotropy", "loss", "angular"]})
    run = study.snakemake("--dry-run", TABLE)
    assert run.returncode == 1
    assert (
        "`mine`: checkpoint-2 is gone from run, and angular of it on random cannot be measured. Bring the checkpoint "
        "back, leave it out under `checkpoints`, or leave angular out of `metrics`."
    ) in run.stdout


def test_new_datasets_leave_it_out_with_a_word_and_by_name_they_are_refused(study: StudyFolder) -> None:
    shutil.rmtree(study.path / RUN.format(2))
    study.write("config.yaml", {**CONFIG, "datasets": ["random", "more"]})
    run = study.snakemake("--dry-run", TABLE)
    assert run.returncode == 0, run.stdout
    assert (
        "checkpoint-2 is gone from run, not measured on all datasets of this study, and left out."
        in run.stdout
    )
    study.write("config.yaml", {**CONFIG, "datasets": ["random", "more"], "checkpoints": [0, 2]})
    run = study.snakemake("--dry-run", TABLE)
    assert run.returncode == 1 and "`mine` has no checkpoint `2`" in run.stdout
