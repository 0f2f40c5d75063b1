"""Results outlive their weights, which may be deleted, but not other weights in their place."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import LOCAL_RUN, StudyFolder
from transformers import LlamaConfig, LlamaForCausalLM

from lmshape.errors import InputError
from lmshape.paths import TOKENS_FILE
from lmshape.store.tokens import read_tokens
from lmshape.study.study import study_of
from lmshape.texts.tokenizer import train_tokenizer

TABLE = "results/metrics/mine.parquet"
RUN = "run/checkpoint-{}"
STEPS = (0, 2, 4)
CONFIG = {"study": "gone", **LOCAL_RUN}


def network(seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=300, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study of three checkpoints of a run on this machine."""
    study = StudyFolder(tmp_path_factory.mktemp("measured"))
    tokenizer = train_tokenizer("the cat sat on the mat and the dog sat on the log. " * 50, 300)
    for step in STEPS:
        network(step).save_pretrained(study.path / RUN.format(step))
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


def chosen(study: StudyFolder, **changes: object) -> list[str]:
    """The checkpoints that a study with other keys takes."""
    study.write("config.yaml", CONFIG | changes)
    return list(study_of(study.path / "config.yaml", study.path).models["mine"].checkpoints)


@pytest.mark.parametrize(
    ("gone", "checkpoints"),
    [
        (["checkpoint-0"], ["checkpoint-0", "checkpoint-4"]),
        (["checkpoint-0/model.safetensors"], [0, 2, 4]),  # the weights alone
        ([f"checkpoint-{step}" for step in STEPS], "all"),
    ],
)
def test_what_was_measured_stays(
    gone: list[str], checkpoints: object, study: StudyFolder, measured: Path
) -> None:
    for name in gone:
        path = study.path / "run" / name
        path.unlink() if path.is_file() else shutil.rmtree(path)
    for choice in ("all", list(STEPS)):
        assert chosen(study, checkpoints=choice) == [f"checkpoint-{step}" for step in STEPS]
    kept = chosen(study, checkpoints=checkpoints)
    (study.path / TABLE).unlink()
    run = study.snakemake("--cores", "2", TABLE)
    assert run.returncode == 0, run.stdout
    assert "checkpoint-0" in run.stdout and "gone from run; the numbers stay." in run.stdout
    assert "Extract and measure" not in run.stdout
    before = values(StudyFolder(measured)).query("checkpoint in @kept").reset_index(drop=True)
    columns = ["checkpoint", "layer", "metric", "value", "ci_low"]
    pd.testing.assert_frame_equal(values(study)[columns], before[columns], check_categorical=False)
    assert set(before["checkpoint"]) == set(kept)


@pytest.mark.parametrize(
    ("changes", "lacking", "remedy"),
    [
        ({"metrics": ["anisotropy", "loss", "angular"]}, "angular", "leave angular out of `metrics`"),
        ({"rows": ["all", "no_sink"]}, "no_sink", "leave no_sink out of `rows`"),
        (
            {"sampling": CONFIG["sampling"] | {"seed": 1}},
            "another sample",
            'take back `sampling`: {"draws": 2, "order": "random", "protocol": "windows", "rows_per_draw": 64, '
            '"window": 32}, seed 0',
        ),
    ],
)
def test_what_is_new_of_what_is_gone_is_refused_by_name(
    changes: dict[str, object], lacking: str, remedy: str, study: StudyFolder
) -> None:
    shutil.rmtree(study.path / RUN.format(2))
    with pytest.raises(InputError) as error:
        chosen(study, **changes)
    assert (
        f"`mine`: checkpoint-2 is gone from run, and {lacking} of it on random cannot be measured. Bring the "
        f"checkpoint back, leave it out under `checkpoints`, or {remedy}."
    ) in str(error.value)


def test_new_datasets_leave_it_out_with_a_word_and_by_name_they_are_refused(
    study: StudyFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(study.path / RUN.format(2))
    more = {"datasets": ["random", "more"]}
    assert chosen(study, **more) == ["checkpoint-0", "checkpoint-4"]
    told = "checkpoint-2 is gone from run, not measured on all datasets of this study, and left out."
    assert told in capsys.readouterr().err
    with pytest.raises(InputError, match="`mine` has no checkpoint `2`"):
        chosen(study, **more, checkpoints=[0, 2])


def test_other_weights_of_an_older_date_are_measured_and_equal_ones_of_a_new_date_are_not(
    study: StudyFolder,
) -> None:
    """As `rsync -a` and `cp -p` leave them."""
    others, equal = (study.path / RUN.format(step) / "model.safetensors" for step in (2, 4))
    network(7).save_pretrained(others.parent)
    os.utime(others, (10**9, 10**9))
    equal.write_bytes(equal.read_bytes())
    run = study.snakemake("--cores", "2", TABLE)
    assert run.returncode == 0, run.stdout
    assert re.findall(r"Extract and measure mine at (\S+) on", run.stdout) == ["checkpoint-2"]
    ids = read_tokens(study.path / TOKENS_FILE.format(model="mine", dataset="random")).ids.reshape(-1, 32)
    with torch.no_grad():
        loss = network(7)(
            torch.as_tensor(ids, dtype=torch.int64), labels=torch.as_tensor(ids, dtype=torch.int64)
        ).loss
    (found,) = values(study).query("checkpoint == 'checkpoint-2' and metric == 'loss'")["value"]
    assert found == pytest.approx(float(loss), rel=1e-5)
