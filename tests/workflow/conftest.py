"""Real Snakemake runs of a miniature study: two models of two blocks, pretrained for 16 steps on real text."""

from __future__ import annotations

import csv
import io
import lzma
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from lmshape.jobs import Jobs, Wildcards
from lmshape.study.study import study_of

sys.path.append(str(Path(__file__).parents[1]))

from snakemake_output import jobs_of  # noqa: E402
from warm_python import run_python  # noqa: E402

REPOSITORY = Path(__file__).parents[2]

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
# Of a run that the user has trained, on random tokens, activations not kept.
LOCAL_RUN = {
    "models": ["mine"],
    "datasets": ["random"],
    "checkpoints": "all",
    "metrics": ["anisotropy", "loss"],
    "rows": ["all"],
    "sampling": {"window": 32, "draws": 2, "rows_per_draw": 64, "seed": 0},
    "keep_activations": False,
    "registry": {"models": "models.yaml", "datasets": "datasets.yaml"},
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

    def command(self, *arguments: str, repository: Path = REPOSITORY) -> list[str]:
        """Return the arguments of Python by which a user runs Snakemake on the study."""
        command = ["-m", "snakemake", "--snakefile", repository / "Snakefile", "--directory", self.path]
        return [str(part) for part in (*command, "--configfile", self.path / "config.yaml", *arguments)]

    def snakemake(self, *arguments: str, repository: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
        """Run Snakemake on the study, output and errors together."""
        return run_python(*self.command(*arguments, repository=repository), cwd=self.path)

    def planned(self, *arguments: str, repository: Path = REPOSITORY) -> dict[str, int]:
        """Count the jobs of a dry run, by rule; nothing planned is an empty dictionary."""
        run = self.snakemake("--dry-run", *arguments, repository=repository)
        assert run.returncode == 0, run.stdout
        return jobs_of(run.stdout)


class SharedStudy(StudyFolder):
    """A study that other tests copy at any time: reading it takes no lock, running it does."""

    def snakemake(self, *arguments: str, repository: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
        assert {"--dry-run", "--detailed-summary"} & set(arguments), "run a copy: others copy this one"
        return super().snakemake(*arguments, repository=repository)


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
            return SharedStudy(folder / "study")
        study = make_study(folder / "study")
        run = study.snakemake("--cores", "2", "results/tables/metrics.parquet")
        assert run.returncode == 0, run.stdout
        # ordinary processes, which import nothing but what they need; other tests have the jobs before them
        command = [sys.executable, *study.command("--cores", "2")]
        pages = subprocess.run(command, cwd=study.path, capture_output=True, text=True, check=False)
        assert pages.returncode == 0, pages.stdout + pages.stderr
        done.touch()
        return SharedStudy(study.path)


def copy_of(study: StudyFolder, path: Path) -> StudyFolder:
    """Copy a study with its dates and what Snakemake knows of it."""
    return StudyFolder(Path(shutil.copytree(study.path, path, symlinks=True)))


@pytest.fixture
def study_copy(finished_study: StudyFolder, tmp_path: Path) -> StudyFolder:
    """A copy of the finished study that a test may change."""
    return copy_of(finished_study, tmp_path / "study")


@pytest.fixture
def new_study(tmp_path: Path) -> StudyFolder:
    """A study that has not run yet."""
    return make_study(tmp_path / "study")


def clone_of_repository(folder: Path) -> Path:
    """A fresh clone: every file new, nothing built."""
    folder.mkdir()
    for name in ("Snakefile", "workflow", "config", "profiles", "envs", "data"):
        source = REPOSITORY / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, folder / name, copy_function=shutil.copy, ignore=ignored)
        else:
            shutil.copy(source, folder / name)
    return folder


@pytest.fixture(scope="module")
def clone_for_all(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clone_of_repository(tmp_path_factory.mktemp("clone") / "repository")


@pytest.fixture
def clone(clone_for_all: Path) -> Iterator[Path]:
    """A clone whose modules a test may `edit`."""
    yield clone_for_all
    for path in (REPOSITORY / "workflow/lmshape").rglob("*.py"):
        edited = clone_for_all / path.relative_to(REPOSITORY)
        if edited.read_bytes() != path.read_bytes():
            edited.write_bytes(path.read_bytes())


def edit(repository: Path, module: str, old: str, new: str) -> None:
    """Change one place in a module of a clone."""
    path = repository / "workflow/lmshape" / module
    text = path.read_text()
    assert old in text, f"{module} has no `{old}`"
    path.write_text(text.replace(old, new, 1))


# The name in Python of a rule that is several in Snakemake, since outputs must be the same for all its jobs.
SEVERAL = {"pretrain_unkept": "pretrain"}


def jobs_agree(study: StudyFolder, *targets: str) -> set[str]:
    """Compare every file that Snakemake has of a finished study with what the library says of its job.

    Returns
    -------
    The rules whose jobs were compared; their log, inputs and outputs are the same.
    """
    told = study.snakemake("--detailed-summary", "--quiet", "all", "--", *targets).stdout
    jobs = Jobs(study_of(study.path / "config.yaml", study.path))
    written: dict[tuple[str, Wildcards], set[str]] = {}
    for row in csv.DictReader(io.StringIO(told[told.index("output_file\t") :]), dialect="excel-tab"):
        name = re.sub(r"_\d+_layers$", "", SEVERAL.get(row["rule"], row["rule"]))
        rule = jobs.rules[name]
        pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+?)", re.escape(rule.log_file))
        found = re.fullmatch(pattern, row["log-file(s)"])
        assert found, (name, row["log-file(s)"])
        job = Wildcards(**found.groupdict())
        inputs = rule.inputs(job).values()
        files = {file for some in inputs for file in ([some] if isinstance(some, str) else some)}
        assert files == set(filter(None, row["input-file(s)"].split(","))), (name, job)
        written.setdefault((name, job), set()).add(row["output_file"])
    for (name, job), outputs in written.items():
        assert outputs == set(jobs.rules[name].outputs(job)), (name, job)
    return {name for name, _ in written}


class Running:
    """Snakemake in a process group of its own, which is stopped or killed with all its jobs."""

    def __init__(self, study: StudyFolder, *arguments: str) -> None:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        self.process = subprocess.Popen(
            [sys.executable, *study.command(*arguments)],
            cwd=study.path,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's `&` has it ignored
            **pipes,
        )
        self.study = study

    def stop_at(self, pattern: str) -> None:
        """Wait for a file, and stop the group, so that a slow machine finds it in that state."""
        end = time.monotonic() + 240
        while not list(self.study.path.glob(pattern)):
            assert self.process.poll() is None, self.process.stdout.read()
            assert time.monotonic() < end, f"{pattern} did not appear"
            time.sleep(0.01)
        os.killpg(self.process.pid, signal.SIGSTOP)

    def end(self, number: signal.Signals) -> str:
        """End the group with a signal; return what it said."""
        os.killpg(self.process.pid, signal.SIGCONT)
        os.killpg(self.process.pid, number)
        output, _ = self.process.communicate(timeout=240)
        return output

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.returncode is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.communicate()
