"""The disk budget, measured while a study runs with many downloads ready: never exceeded, at any moment."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
from hub_models import at_step, bin_with_code, decoder, model_files
from hub_process import HubProcess
from runs import ENTRY, published
from studies import HubStudy, make_study

TARGET = "results/metrics/tiny.parquet"
STEPS = (0, 1, 2, 4)  # 59.7 kB each


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    hub = HubProcess(tmp_path_factory.mktemp("hub"))
    published(hub, steps=STEPS)
    yield hub
    hub.stop()


class Watch(threading.Thread):
    """Looks every few milliseconds at how many bytes weights take."""

    def __init__(self, study: HubStudy) -> None:
        super().__init__(daemon=True)
        self.folder = study.path / "results/weights"
        self.peak, self.looks, self._stop_now = 0, 0, threading.Event()

    def run(self) -> None:
        while not self._stop_now.wait(0.005):
            self.peak = max(self.peak, size_of(self.folder))
            self.looks += 1

    def __enter__(self) -> Watch:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop_now.set()
        self.join()


def size_of(folder: Path) -> int:
    """Bytes of weights, whole or on their way; the marks and receipts beside them are not meant."""
    sizes = []
    for parent, _, names in os.walk(folder):  # not rglob, which Python 3.11 ends when a folder goes meanwhile
        for name in names:
            if ".safetensors" in name or ".bin" in name:
                with suppress(FileNotFoundError):  # between the listing and the look
                    sizes.append((Path(parent) / name).stat().st_size)
    return sum(sizes)


def test_the_budget_is_never_exceeded(hub: HubProcess, tmp_path: Path) -> None:
    study = make_study(tmp_path / "study", hub.endpoint, {"tiny": ENTRY})
    study.configure(datasets=["wiki", "wiki-random"], keep_activations=False, disk_budget_gb=0.00015)
    with Watch(study) as watch:
        study.run("--resources", "downloads=4", "--", TARGET)
    assert watch.looks > 500
    assert 100_000 < watch.peak <= 150_000
    assert pd.read_parquet(study.path / TARGET)["step"].nunique() == len(STEPS)


def test_a_budget_that_cannot_do_is_refused_with_what_would(hub: HubProcess, tmp_path: Path) -> None:
    study = make_study(tmp_path / "study", hub.endpoint, {"tiny": ENTRY})
    for budget, changes, words in (
        (0.00005, {}, ("`tiny/step2` needs", "`disk_budget_gb` allows 50.0 kB. Raise it to at least")),
        (0.00015, {"keep_weights": True}, ("`keep_weights` keeps the weights. Raise the budget",)),
    ):
        study.configure(checkpoints=[1, 2, 4], disk_budget_gb=budget, **changes)
        run = study.snakemake("--cores", "2", "--retries", "0", "--until", "download", "--", TARGET)
        assert run.returncode != 0
        assert all(one in run.stdout for one in words), run.stdout


def test_weights_of_a_checkpoint_that_is_left_out_make_room_for_the_others(
    hub: HubProcess, tmp_path: Path
) -> None:
    marker = tmp_path / "the code ran"
    files = model_files(at_step(decoder(), 1), "bin")
    broken = {**files, "pytorch_model.bin": bin_with_code(decoder(), marker)}
    hub.commit("tiny/broken", broken, "step1")
    for step in (4, 8):
        hub.commit("tiny/broken", model_files(at_step(decoder(), step), "bin"), f"step{step}")
    study = make_study(tmp_path / "study", hub.endpoint, {"tiny": {**ENTRY, "repository": "tiny/broken"}})
    study.configure(checkpoints=[1], keep_activations=False, disk_budget_gb=0.00015)
    run = study.snakemake("--cores", "2", "--retries", "0", TARGET)
    assert run.returncode != 0
    assert "holds code that would run on loading" in run.stdout
    assert not marker.exists()
    study.configure(checkpoints=[4, 8], keep_activations=False, disk_budget_gb=0.00015)
    study.run(TARGET)
    assert not list((study.path / "results/weights/tiny/step1").glob("*.bin"))
    assert pd.read_parquet(study.path / TARGET)["step"].unique().tolist() == [4, 8]
