"""A hub that is gone: what was fetched before is measured, other models too, and the last lines say what to do."""

from __future__ import annotations

import re
import shutil

import pandas as pd
import pytest
from hub_models import at_step, decoder, model_files
from hub_process import HubProcess
from runs import ENTRY, published
from snakemake_output import told_missing
from studies import HubStudy, make_study

TARGET = "results/tables/metrics.parquet"
FETCHED = (2, 16)


@pytest.fixture(scope="module")
def fetched(tmp_path_factory: pytest.TempPathFactory) -> HubStudy:
    """A study for which all that needs a network has been done: for two checkpoints, by a hub that has ended since."""
    folder = tmp_path_factory.mktemp("fetched")
    hub = HubProcess(folder / "hub")
    published(hub)
    local = {"kind": "decoder", "folder": "my-run"}
    study = make_study(folder / "study", hub.endpoint, {"tiny": ENTRY, "mine": local})
    checkpoint = study.path / "my-run/checkpoint-2"
    checkpoint.mkdir(parents=True)
    for name, content in model_files(at_step(decoder(), 2)).items():
        (checkpoint / name).write_bytes(content)
    study.configure(models=[{"tiny": {"checkpoints": list(FETCHED)}}], keep_weights=True)
    try:
        study.run(TARGET, "--until", "download", "fetch_tokenizer", "tokenize")
    finally:
        hub.stop()
    return study


def test_a_study_goes_on_without_a_network_once_its_weights_are_there(fetched: HubStudy) -> None:
    assert len(list(fetched.path.glob("results/weights/tiny/*/*.safetensors"))) == len(FETCHED)
    assert not list(fetched.path.glob("results/losses/**/*.json"))
    fetched.run(TARGET)
    table = pd.read_parquet(fetched.path / TARGET).query("metric == 'loss'")
    assert list(table["step"]) == list(FETCHED) and (table["flag"] == "").all()


def test_the_other_models_are_done_and_the_cells_of_the_published_one_named(fetched: HubStudy) -> None:
    fetched.configure(models=[{"tiny": {"checkpoints": [1, *FETCHED, 4, 8]}}, "mine"])
    for name in ("metrics", "tables"):  # of fewer checkpoints; what is there is not told as missing
        shutil.rmtree(fetched.path / "results" / name, ignore_errors=True)
    run = fetched.snakemake("--cores", "2", "--retries", "0", TARGET)
    assert run.returncode == 1
    words = told_missing(run.stdout)
    assert (fetched.path / "results/metrics/mine.parquet").exists()
    assert "3 of 6 cells are missing" in words
    assert "  tiny: step1, step4, step8 on wiki (3 cells)\n" in words
    assert "    resolve: the files of `tiny/run` at " in words
    endpoint = fetched.environment["HF_ENDPOINT"]
    assert f": {endpoint} cannot be used after 7 attempts" in words
    assert "then run the same command again: what was received is kept" in words
    assert "log: results/logs/resolve/tiny.log\n" in words
    assert re.search(r"Not made: \d+ results \(metrics of tiny, figures of tiny, …", words)
    assert words.count("\n") < 12
    assert run.stdout.rpartition(words)[2].count("\n") < 11
