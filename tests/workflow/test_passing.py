"""Activations of local runs within the disk budget: never exceeded, cell after cell, and nothing runs for its sake."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import MODELS, REPOSITORY, StudyFolder, make_study
from safetensors.numpy import save_file

from lmshape.study.plan import activation_bytes
from lmshape.study.study import study_of

TARGET = "results/metrics/small-decoder.parquet"
BASE = ("results/pretrained/small-decoder/summary.json", "results/tokens/small-decoder/wiki.h5")
ALL, FEW = [0, 4, 16], [0, 16]


class Study(StudyFolder):
    """The decoder of the miniature study, whose activations pass."""

    def passing(self, checkpoints: list[int], *, cells: float | None = None, **changes: object) -> None:
        """Configure it, with room for so many cells if there is a budget."""
        budget = None if cells is None else (cells * self.cell_bytes + 1) / 1e9
        models = changes.pop("models", ["small-decoder"])
        self.configure(
            models=models,
            checkpoints=checkpoints,
            keep_activations=False,
            disk_budget_gb=budget,
            **{"datasets": ["wiki"], "metrics": ["spectral", "loss"], **changes},
        )

    @property
    def cell_bytes(self) -> int:
        """Size of the activations of one cell, at most."""
        here = Path.cwd()
        os.chdir(self.path)
        try:
            study = study_of(self.path / "config.yaml", self.path)
        finally:
            os.chdir(here)
        return activation_bytes(study.models["small-decoder"], study.sampling.most_tokens)

    def run(self, *arguments: str) -> str:
        run = self.snakemake("--cores", "2", *arguments)
        assert run.returncode == 0, run.stdout
        return run.stdout


class Watch(threading.Thread):
    """Looks every few milliseconds at how many bytes activations take, whole or on their way."""

    def __init__(self, study: StudyFolder) -> None:
        super().__init__(daemon=True)
        self.folder = study.path / "results/activations"
        self.peak, self.looks, self._stop_now = 0, 0, threading.Event()

    def run(self) -> None:
        while not self._stop_now.wait(0.003):
            sizes = []
            for parent, _, names in os.walk(self.folder):
                for name in names:
                    with suppress(FileNotFoundError):  # between the listing and the look
                        sizes.append((Path(parent) / name).stat().st_size)
            self.peak, self.looks = max(self.peak, sum(sizes)), self.looks + 1

    def __enter__(self) -> Watch:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop_now.set()
        self.join()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The study with its models trained and nothing extracted; tests must leave it as it is."""
    study = Study(make_study(tmp_path_factory.mktemp("trained") / "study").path)
    study.passing(ALL)
    study.run(*BASE)
    return study


@pytest.fixture
def study(trained: Study, tmp_path: Path) -> Study:
    return Study(Path(shutil.copytree(trained.path, tmp_path / "study", symlinks=True)))


def test_the_budget_is_never_exceeded_and_a_checkpoint_is_finished_before_the_next_is_begun(
    study: Study,
) -> None:
    study.passing(ALL, cells=1, datasets=["wiki", "wiki-random"])
    study.run("results/tokens/small-decoder/wiki-random.h5")  # what a cell needs comes before its room
    with Watch(study) as watch:
        output = study.run(TARGET)
    assert watch.looks > 500
    assert 0.8 * study.cell_bytes < watch.peak <= study.cell_bytes + 1
    assert pd.read_parquet(study.path / TARGET).groupby(["step", "dataset"]).ngroups == 6
    deleted = re.findall(r"Removing temporary output results/activations/.*/checkpoint-(\d+)/", output)
    assert deleted == [str(step) for step in ALL for _ in range(2)]
    assert not list((study.path / "results/room").rglob("wiki*"))
    for cells in (1, 0.1, 100, None):  # one that is too small for a cell is told when a cell is due
        study.passing(ALL, cells=cells, datasets=["wiki", "wiki-random"])
        assert study.planned(TARGET) == {}
    study.configure(
        models=["small-decoder"],
        checkpoints=ALL,
        datasets=["wiki", "wiki-random"],
        metrics=["spectral", "loss"],
        keep_activations=True,
    )
    assert study.planned(TARGET) == {}


def test_a_budget_that_comes_later_runs_nothing_and_bounds_what_is_due(study: Study) -> None:
    study.passing(FEW)
    assert study.planned(TARGET) == {"extract": 2, "measure": 2, "gather": 1}
    study.run(TARGET)
    study.passing(FEW, cells=1)
    assert study.planned(TARGET) == {}
    study.passing(FEW, cells=1, metrics=["spectral", "angular", "loss"])
    assert study.planned(TARGET) == {"admit": 2, "extract": 2, "measure": 2, "gather": 1}
    study.run(TARGET)
    study.passing(FEW, metrics=["spectral", "angular", "loss"])
    assert study.planned(TARGET) == {}
    study.passing(FEW, metrics=["spectral", "angular", "neighbor", "loss"])
    assert study.planned(TARGET) == {"extract": 2, "measure": 2, "gather": 1}


def test_a_cell_that_does_not_fit_is_refused_with_the_number_that_would_do(study: Study) -> None:
    study.passing(FEW, cells=0.5)
    run = study.snakemake("--cores", "2", TARGET)
    assert run.returncode != 0
    assert "`small-decoder/checkpoint-0/wiki` needs" in run.stdout
    assert "`disk_budget_gb` allows" in run.stdout
    assert "Raise it to at least 0.01, or take fewer tokens or datasets." in run.stdout


def test_a_cell_that_cannot_be_extracted_gives_its_room_to_the_others(study: Study) -> None:
    own = study.path / "my-run"
    for step in FEW:
        shutil.copytree(
            study.path / f"results/pretrained/small-decoder/checkpoint-{step}", own / f"checkpoint-{step}"
        )
    save_file({"x": np.zeros(1)}, own / "checkpoint-0/model.safetensors")  # a file, and none of its tensors
    study.write("models.yaml", {**MODELS, "mine": {"kind": "decoder", "folder": "my-run"}})
    study.passing(FEW, cells=1, models=["small-decoder", "mine"])
    run = study.snakemake("--cores", "2", "--retries", "0", "results/metrics/mine.parquet")
    assert run.returncode != 0
    assert "Wait for room for the activations of mine at checkpoint-16" in run.stdout
    done = {path.parent.name for path in (study.path / "results/losses/mine").glob("*/wiki.json")}
    assert done == {"checkpoint-16"}


def test_a_killed_study_takes_its_room_anew(study: Study) -> None:
    study.passing(FEW, cells=1)
    command = [sys.executable, "-m", "snakemake", "--snakefile", REPOSITORY / "Snakefile"]
    command += ["--configfile", "config.yaml", "--cores", "2", "--", TARGET]
    process = subprocess.Popen(
        command, cwd=study.path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    marker = study.path / "results/room/small-decoder/checkpoint-0/wiki"
    deadline = time.monotonic() + 120
    while not marker.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.poll() is None, "the study ended before it could be killed"
    os.killpg(process.pid, signal.SIGSTOP)  # else it may be done before a slow machine has looked at it
    activations = study.path / "results/activations/small-decoder/checkpoint-0/wiki.h5"
    held = marker.exists() or activations.exists()
    study.planned(TARGET)  # a dry run beside it takes nothing from it
    assert held and (marker.exists() or activations.exists())
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert study.snakemake("--unlock", TARGET).returncode == 0
    with Watch(study) as watch:
        study.run(TARGET)
    assert watch.peak <= study.cell_bytes + 1
    assert not list((study.path / "results/room").rglob("wiki*"))
