"""Kill -9 at random moments: every rerun ends with the bytes of an undisturbed run."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest
from hub_process import HubProcess
from runs import ENTRY, published
from studies import HubStudy, make_study
from warm_python import run_python

from lmshape.paths import partial_folder

DOWNLOADS = 6
EXTRACTIONS = 4
WEIGHTS = "results/weights/tiny/step16"
TARGET = "results/activations/tiny/step16/wiki.h5"
CARD = "results/losses/tiny/step16/wiki.json"


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
    study.configure(checkpoints=[16], keep_weights=True, extraction={"batch_tokens": 16})
    study.run(TARGET)
    return study


def killed(
    when: Callable[[], bool], command: list[str], study: HubStudy, *, seconds_later: float = 0.0
) -> bool:
    """Start a command in a session of its own and kill all of it at a moment; False if it was done before."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(
        command, cwd=study.path, env=study.environment, start_new_session=True, **quiet
    )
    while process.poll() is None and not when():
        time.sleep(0.002)
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds_later)
    if process.returncode is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True
    assert process.returncode == 0
    return False


def finish(command: list[str], study: HubStudy) -> None:
    """Run to its end what was killed before."""
    done = run_python(*command[1:], cwd=study.path, env=study.environment)
    assert done.returncode == 0, done.stdout


def copied(study: HubStudy, folder: Path) -> HubStudy:
    """A study's copy, in which jobs are killed."""
    shutil.copytree(study.path, folder / "study", symlinks=True)
    return HubStudy(folder / "study", study.environment["HF_ENDPOINT"])


def job(*arguments: str) -> list[str]:
    """Spell a job as the rules run it."""
    return [sys.executable, "-m", "lmshape", "run", *arguments, "--configfile", "config.yaml"]


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Whole content of a folder of weights, the marks of readers aside."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


def received(folder: Path) -> int:
    """Bytes of a download that is under way."""
    with suppress(FileNotFoundError), os.scandir(folder) as files:  # it has ended meanwhile
        return sum(file.stat().st_size for file in files)
    return 0


def test_a_killed_download_goes_on_to_the_same_bytes(
    undisturbed: HubStudy, hub: HubProcess, tmp_path: Path
) -> None:
    expected, study = bytes_of(undisturbed.path / WEIGHTS), copied(undisturbed, tmp_path)
    chance, kills = random.Random(0), 0
    folder, command = study.path / WEIGHTS, job("download", "--model", "tiny", "--checkpoint", "step16")
    partial, total = partial_folder(folder), sum(map(len, expected.values()))
    hub.fault(r"resolve/.*safetensors$", "slow", rate=30_000)
    try:
        for _ in range(DOWNLOADS):
            shutil.rmtree(folder)
            for share in sorted(chance.uniform(0, 0.8) for _ in range(2)):
                if not killed(lambda share=share: received(partial) > share * total, command, study):
                    break  # a busy machine looked too late
                kills += 1
                assert not list(folder.parent.glob("step16*"))  # nothing with a final name
            finish(command, study)
            assert bytes_of(folder) == expected
            assert not partial.exists()
    finally:
        hub.clear_faults()
    assert kills >= DOWNLOADS


def activations(path: Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    with h5py.File(path, "r", locking=False) as file:
        file.visititems(
            lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
        )
    return found


def test_a_killed_extraction_leaves_nothing_and_runs_again_to_the_same_bytes(
    undisturbed: HubStudy, tmp_path: Path
) -> None:
    expected, card = activations(undisturbed.path / TARGET), (undisturbed.path / CARD).read_bytes()
    study, chance, kills = copied(undisturbed, tmp_path), random.Random(1), 0
    files, command = [study.path / TARGET, study.path / CARD], job("extract", "--cell", "tiny/step16/wiki")
    for attempt in range(EXTRACTIONS):
        for path in files:
            path.unlink(missing_ok=True)
        left = set(partials(files[0]))
        writes = lambda left=left: bool(set(partials(files[0])) - left)  # noqa: E731
        later = chance.uniform(0, 0.3) * (attempt % 2)
        if killed(writes, command, study, seconds_later=later):
            kills += 1
            for path in filter(Path.exists, files):  # each is whole, or not there
                assert_same(path, expected, card)
        if attempt % 2:  # what two of them have left
            finish(command, study)
            for path in files:
                assert_same(path, expected, card)
    assert kills >= EXTRACTIONS // 2


def partials(path: Path) -> Iterator[Path]:
    """What is written for a file, or was left of it."""
    return path.parent.glob(f".{path.name}.partial-*")


def assert_same(path: Path, expected: dict[str, np.ndarray], card: bytes) -> None:
    if path.suffix == ".json":
        assert path.read_bytes() == card
        return
    found = activations(path)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


def test_a_killed_study_resumes_to_the_same_numbers(hub: HubProcess, tmp_path: Path) -> None:
    numbers, target = [], "results/tables/metrics.csv"
    for name, kill in (("calm", False), ("killed", True)):
        study = make_study(tmp_path / name / "study", hub.endpoint, {"tiny": ENTRY})
        study.configure(checkpoints=[2, 16], keep_activations=False, disk_budget_gb=0.001)
        if kill:
            command = [sys.executable, *study.command("--cores", "2", target)]
            logs = study.path / "results/logs/extract"
            assert killed(lambda logs=logs: any(logs.rglob("*.log")), command, study)
            study.snakemake("--unlock")
        study.run(target)
        numbers.append((study.path / target).read_bytes())
        assert not list(study.path.glob("results/weights/**/*.safetensors"))
    assert numbers[0] == numbers[1]
