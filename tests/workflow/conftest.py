"""Real Snakemake runs of a miniature study: two models of two blocks, pretrained for 16 steps on real text."""

from __future__ import annotations

import lzma
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

REPOSITORY = Path(__file__).parents[2]
JOB_STATISTICS = re.compile(r"^(\w+)\s+(\d+)$", re.MULTILINE)

MODELS = {
    "small-decoder": {"kind": "decoder", "folder": "results/pretrained/small-decoder"},
    "small-encoder": {"kind": "encoder", "folder": "results/pretrained/small-encoder"},
}
DATASETS = {
    "texts": {"wikipedia": {"path": "wikipedia.txt"}},
    "datasets": {
        "wiki": {"text": "wikipedia", "span": [0.5, 1.0]},
        "wiki-random": {"text": "wikipedia", "span": [0.5, 1.0], "order": "random"},
    },
}
RUN = {"width": 32, "blocks": 2, "heads": 2, "learning_rate": 0.01, "warmup": 2}
CONFIG = {
    "study": "miniature",
    "models": ["small-decoder", {"small-encoder": {"checkpoints": "last", "datasets": ["wiki"]}}],
    "checkpoints": [0, 4, 16],
    "datasets": ["wiki", "wiki-random"],
    "metrics": ["spectral", "neighbor", "loss"],
    "figures": ["anisotropy_by_layer", "controls"],
    "rows": ["all", "no_sink"],
    "sampling": {"window": 32, "draws": 3, "rows_per_draw": 128, "seed": 0},
    "keep_activations": True,
    "registry": {"models": "models.yaml", "datasets": "datasets.yaml"},
    "pretraining": {
        "text": "wikipedia",
        "span": [0.0, 0.5],
        "steps": 16,
        "linear_every": 8,
        "sequences": 4,
        "window": 32,
        "vocabulary": 400,
        "runs": {
            "small-decoder": {"architecture": "gpt_neox", **RUN},
            "small-encoder": {"architecture": "bert", **RUN},
        },
    },
}


class StudyFolder:
    """A folder with a study in it, and Snakemake to run it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, name: str, content: Mapping[str, object]) -> None:
        """Write a YAML file of the study."""
        (self.path / name).write_text(yaml.safe_dump(dict(content), sort_keys=False))

    def configure(self, **changes: object) -> None:
        """Write config.yaml with some keys changed."""
        self.write("config.yaml", {**CONFIG, **changes})

    def snakemake(self, *arguments: str, repository: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
        """Run Snakemake on the study as a user would, output and errors together."""
        command = [sys.executable, "-m", "snakemake", "--snakefile", repository / "Snakefile"]
        command += ["--directory", self.path, "--configfile", self.path / "config.yaml", *arguments]
        return subprocess.run(
            command, cwd=self.path, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )

    def planned(self, *arguments: str, repository: Path = REPOSITORY) -> dict[str, int]:
        """Count the jobs of a dry run, by rule; nothing planned is an empty dictionary."""
        run = self.snakemake("--dry-run", *arguments, repository=repository)
        assert run.returncode == 0, run.stdout
        table = run.stdout.partition("Job stats:")[2].partition("total")[0]
        return {rule: int(count) for rule, count in JOB_STATISTICS.findall(table)}


def make_study(path: Path) -> StudyFolder:
    """Write the miniature study into a folder: half a megabyte of Wikipedia and its three files."""
    path.mkdir(parents=True, exist_ok=True)
    with lzma.open(REPOSITORY / "data/enwik8-excerpt.xz") as excerpt:
        (path / "wikipedia.txt").write_bytes(excerpt.read(500_000))
    study = StudyFolder(path)
    study.write("models.yaml", MODELS)
    study.write("datasets.yaml", DATASETS)
    study.configure()
    return study


@pytest.fixture(scope="session")
def finished_study(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> StudyFolder:
    """The miniature study, run to its end once for all workers; tests must leave it as it is."""
    own = tmp_path_factory.getbasetemp()
    folder = (own if worker_id == "master" else own.parent) / "finished"
    done = folder / "done"
    with FileLock(folder.with_suffix(".lock")):  # the first worker runs it, the others wait
        if done.is_file():
            return StudyFolder(folder / "study")
        study = make_study(folder / "study")
        run = study.snakemake("--cores", "2")
        assert run.returncode == 0, run.stdout
        done.touch()
        return study


@pytest.fixture
def study_copy(finished_study: StudyFolder, tmp_path: Path) -> StudyFolder:
    """A copy of the finished study, metadata included, that a test may change."""
    copy = tmp_path / "study"
    shutil.copytree(finished_study.path, copy, symlinks=True)
    return StudyFolder(copy)


@pytest.fixture
def new_study(tmp_path: Path) -> StudyFolder:
    """A study that has not run yet."""
    return make_study(tmp_path / "study")
