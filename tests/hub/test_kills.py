"""Kill -9 at random moments, twenty times: every rerun ends with the bytes of an undisturbed run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from hub_process import HubProcess
from runs import ENTRY, published
from studies import HubStudy, make_study

from lmshape.paths import partial_folder

KILLS = 10  # of downloads, and as many of extractions
TARGET = "results/activations/tiny/step16/wiki.h5"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    hub = HubProcess(tmp_path_factory.mktemp("hub"))
    published(hub, layout="sharded")
    yield hub
    hub.stop()


@pytest.fixture(scope="module")
def undisturbed(hub: HubProcess, tmp_path_factory: pytest.TempPathFactory) -> HubStudy:
    """A study of which one cell has been extracted, activations kept."""
    study = make_study(tmp_path_factory.mktemp("undisturbed") / "study", hub.endpoint, {"tiny": ENTRY})
    study.configure(checkpoints=[16], keep_weights=True)
    study.run(TARGET)
    return study


def killed_after(seconds: float, command: list[str], study: HubStudy) -> bool:
    """Start a command in a session of its own and kill all of it after a while; False if it was done before."""
    process = subprocess.Popen(
        command,
        cwd=study.path,
        env=study.environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True
    assert process.returncode == 0
    return False


def finish(command: list[str], study: HubStudy) -> float:
    """Run a command to its end, and return the seconds that it took."""
    began = time.monotonic()
    done = subprocess.run(command, cwd=study.path, env=study.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return time.monotonic() - began


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Whole content of a folder of weights, the marks of readers aside."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


def test_a_killed_download_goes_on_to_the_same_bytes(undisturbed: HubStudy, hub: HubProcess) -> None:
    expected = bytes_of(undisturbed.path / "results/weights/tiny/step16")
    chance = random.Random(0)
    hub.fault(r"resolve/.*safetensors$", "slow", rate=30_000)
    kills = 0
    try:
        for attempt in range(KILLS):
            folder = undisturbed.path / f"killed-{attempt}/weights/tiny/step16"
            lock = undisturbed.path / "results/revisions/tiny.tsv"
            command = [sys.executable, "-m", "lmshape", "download", "step16", "--lock", str(lock)]
            command += ["--output", str(folder), "--dataset", "wiki", "--budget-bytes", "1000000"]
            for _ in range(2):
                kills += killed_after(chance.uniform(0.7, 2.2), command, undisturbed)
                if folder.exists():
                    break
                assert not list(folder.parent.glob("step16*"))  # nothing with a final name
            finish(command, undisturbed)
            assert bytes_of(folder) == expected
            assert not partial_folder(folder).exists()
    finally:
        hub.clear_faults()
    assert kills >= KILLS


def activations(path: Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    with h5py.File(path, "r", locking=False) as file:
        file.visititems(
            lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
        )
    return found


def test_a_killed_extraction_leaves_nothing_and_runs_again_to_the_same_bytes(undisturbed: HubStudy) -> None:
    expected = activations(undisturbed.path / TARGET)
    chance, kills = random.Random(1), 0
    attributes = (
        '{"model": "tiny", "checkpoint": "step16", "dataset": "wiki", "step": 16, "tokens_seen": 32768.0,'
        ' "architecture": "gpt_neox"}'
    )
    command = [sys.executable, "-m", "lmshape", "extract", "results/weights/tiny/step16", "--kind", "decoder"]
    command += ["--tokens", "results/tokens/tiny/wiki.h5", "--attributes", attributes, "--batch-tokens", "16"]
    whole = finish([*command, "--output", "timed/a.h5", "--losses", "timed/a.json"], undisturbed)
    card = (undisturbed.path / "timed/a.json").read_bytes()
    assert_same(undisturbed.path / "timed/a.h5", expected, card)
    latest = 1.02  # share of a run's time at which it may be killed
    for attempt in range(KILLS):
        store, losses = Path(f"killed-x{attempt}/a.h5"), Path(f"killed-x{attempt}/a.json")
        full = [*command, "--output", str(store), "--losses", str(losses)]
        if not killed_after(chance.uniform(0.6, 1) * latest * whole, full, undisturbed):
            latest *= 0.8  # on a busy machine times differ from run to run
        else:
            kills += 1
            for path in (store, losses):  # each is whole, or not there
                if (undisturbed.path / path).exists():
                    assert_same(undisturbed.path / path, expected, card)
        whole = min(whole, finish(full, undisturbed))
        assert_same(undisturbed.path / store, expected, card)
        assert_same(undisturbed.path / losses, expected, card)
    assert kills >= KILLS // 2


def assert_same(path: Path, expected: dict[str, np.ndarray], card: bytes) -> None:
    if path.suffix == ".json":
        assert path.read_bytes() == card
        return
    found = activations(path)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


def test_a_killed_study_resumes_to_the_same_numbers(hub: HubProcess, tmp_path: Path) -> None:
    numbers, calm_seconds = [], 0.0
    for name, kill in (("calm", False), ("killed", True)):
        study = make_study(tmp_path / name / "study", hub.endpoint, {"tiny": ENTRY})
        study.configure(checkpoints=[2, 16], keep_activations=False, disk_budget_gb=0.001)
        target = ["--cores", "2", "results/tables/metrics.csv"]
        if kill:
            assert killed_after(calm_seconds / 2, study.command(*target), study)
            study.snakemake("--unlock")
        began = time.monotonic()
        study.run(*target[2:])
        calm_seconds = time.monotonic() - began
        numbers.append((study.path / "results/tables/metrics.csv").read_bytes())
        assert not list(study.path.glob("results/weights/**/*.safetensors"))
    assert numbers[0] == numbers[1]
