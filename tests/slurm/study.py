"""Studies small enough for these tests, run here or through the shipped profile."""

from __future__ import annotations

import lzma
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import yaml
from snakemake_output import jobs_of
from warm_python import CLIENT, warm_variables

from .cluster import ACCOUNT, GPU_PARTITION, PARTITION, PATIENCE, Cluster, Job

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
PROFILE = REPOSITORY / "profiles/slurm"
TABLES = "results/tables/metrics.parquet"
FILLED_IN = {"slurm_account": ACCOUNT, "slurm_partition": PARTITION, "gpu_partition": GPU_PARTITION}
WAITS = {"slurm-init-seconds-before-status-checks": "1", "max-jobs-per-timespan": "10/1s"}
FINISHED = re.compile(r"^Finished jobid: \d+ \(Rule: (\w+)\)", re.MULTILINE)
RUN_PATIENCE = 420.0  # seconds that a run of Snakemake may take before it counts as hanging

RUN = {"width": 32, "blocks": 2, "heads": 2, "learning_rate": 0.01, "warmup": 2}
MODELS = {
    "decoder": {"kind": "decoder", "folder": "results/pretrained/decoder"},
    "encoder": {"kind": "encoder", "folder": "results/pretrained/encoder"},
}
FILES: dict[str, Mapping[str, object]] = {
    "models": MODELS,
    "datasets": {
        "texts": {"wikipedia": {"path": "wikipedia.txt"}},
        "datasets": {"wiki": {"text": "wikipedia", "span": [0.5, 1.0]}},
    },
    "config": {
        "study": "cluster",
        "models": ["decoder", {"encoder": {"checkpoints": "last"}}],
        "checkpoints": [0, 16],
        "datasets": ["wiki"],
        "metrics": ["spectral", "neighbor", "loss"],
        "figures": ["anisotropy_by_layer"],
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
                "decoder": {"architecture": "gpt_neox", **RUN},
                "encoder": {"architecture": "bert", **RUN},
            },
        },
    },
}


class SnakemakeRun:
    """A running Snakemake, and its output."""

    def __init__(self, command: list[object], output: Path, **options: object) -> None:
        self.output_file = output
        with output.open("w") as file:
            self.process = subprocess.Popen(
                list(map(str, command)), stdout=file, stderr=subprocess.STDOUT, **options
            )

    @property
    def output(self) -> str:
        return self.output_file.read_text()

    @property
    def finished(self) -> Counter[str]:
        """Jobs that ended well, by rule."""
        return Counter(FINISHED.findall(self.output))

    @property
    def planned(self) -> Counter[str]:
        """Jobs that Snakemake had to run, by rule."""
        return jobs_of(self.output)

    def wait(self) -> int:
        """Wait for the end, and return Snakemake's status."""
        try:
            return self.process.wait(RUN_PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"Snakemake did not end:\n{self.output}") from None

    def succeed(self) -> str:
        """Wait for a good end, and return the output."""
        assert self.wait() == 0, self.output
        return self.output

    def wait_until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for a condition while this runs."""
        end = time.monotonic() + PATIENCE
        while not condition():
            if self.process.poll() is not None or time.monotonic() > end:
                self.kill()
                raise AssertionError(f"There was no {what}:\n{self.output}")
            time.sleep(0.2)

    def kill(self) -> None:
        """End this as `kill -9` does: nothing is told to the cluster."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


class SlurmStudy:
    """A study in a folder, run through the profile on a cluster; its nodes can be made to wait, or be cut off."""

    def __init__(self, path: Path, cluster: Cluster, profile: Path, **environment: str) -> None:
        self.path, self.cluster, self.profile = path, cluster, profile
        self.node = path.with_name(f"{path.name}-node")
        self.node.mkdir(exist_ok=True)
        node = {"BASH_ENV": str(HERE / "node.sh"), "NODE_FOLDER": str(self.node)}
        self.environment = {**cluster.environment, **node, **environment}
        self._runs = 0

    def start(self, *arguments: object) -> SnakemakeRun:
        """Begin a run through the profile, all of it in one group of processes."""
        self._runs += 1
        launcher = [sys.executable, HERE / "polling_snakemake.py"]
        profile = ["--workflow-profile", self.profile]
        output = self.path.with_name(f"{self.path.name}-run{self._runs}.log")
        command = [*launcher, *place_of(self.path), *profile, *arguments]
        return SnakemakeRun(command, output, cwd=self.path, env=self.environment)

    def run(self, *arguments: object) -> SnakemakeRun:
        """Run to the end, whatever end."""
        run = self.start(*arguments)
        run.wait()
        return run

    def hold(self, rule: str) -> None:
        """Let jobs of a rule wait before they begin."""
        (self.node / f"hold-{rule}").touch()

    def held(self, rule: str) -> list[Job]:
        """Return the jobs of a rule that wait, and are known to accounting as running."""
        waiting = {int(file.name.rpartition("-")[2]) for file in self.node.glob(f"{rule}-*")}
        return [job for job in self.jobs() if job.state == "RUNNING" and job.id in waiting]

    def release(self, rule: str) -> None:
        (self.node / f"hold-{rule}").unlink()

    def jobs(self, rule: str = "") -> list[Job]:
        """Return this study's jobs as accounting has them."""
        return [job for job in self.cluster.jobs(self.path) if job.comment.startswith(f"rule_{rule}")]


def make_study(path: Path) -> None:
    """Write the study into a folder: a tenth of a megabyte of Wikipedia, and three files."""
    path.mkdir(parents=True)
    with lzma.open(REPOSITORY / "data/enwik8-excerpt.xz") as excerpt:
        (path / "wikipedia.txt").write_bytes(excerpt.read(100_000))
    for name, content in FILES.items():
        write(path / f"{name}.yaml", content)


def write(file: Path, content: Mapping[str, object]) -> None:
    file.write_text(yaml.safe_dump(dict(content), sort_keys=False))


def start_here(path: Path, *arguments: object, **environment: str) -> SnakemakeRun:
    """Begin a run of a study without a cluster, on two cores."""
    output = path.with_name(f"{path.name}-run.log")
    command = [*CLIENT, "-m", "snakemake", *place_of(path), "--cores", 2, *arguments]
    return SnakemakeRun(command, output, cwd=path, env={**os.environ, **environment, **warm_variables()})


def copy_pretrained(done: Path, path: Path, *, extracted: str = "") -> None:
    """Copy a finished study but for what follows pretraining and tokenizing; of one model also its activations."""
    later = shutil.ignore_patterns("activations", "losses", "statistics", "metrics", "tables")
    shutil.copytree(done, path, symlinks=True, ignore=later)
    for name in ("activations", "losses") if extracted else ():
        shutil.copytree(done / "results" / name / extracted, path / "results" / name / extracted)


def write_profile(folder: Path, **filled_in: str) -> Path:
    """Copy the shipped profile with its three lines filled in; nothing else is changed but how long it waits.

    Snakemake ends a `max-jobs-per-timespan` after its last job, which is for nothing but a pace of submitting.
    """
    folder.mkdir()
    text = (PROFILE / "config.yaml").read_text()
    for name, value in {**FILLED_IN, **filled_in}.items():
        assert text.count(f"{name}: CHANGE_ME") == 1, name
        text = text.replace(f"{name}: CHANGE_ME", f"{name}: {value}")
    for name, value in WAITS.items():
        text, count = re.subn(rf"^{name}: \S+", f"{name}: {value}", text, flags=re.MULTILINE)
        assert count == 1, name
    assert "CHANGE_ME" not in yaml.safe_dump(yaml.safe_load(text))
    (folder / "config.yaml").write_text(text)
    return folder


def place_of(path: Path) -> list[object]:
    config = ["--configfile", path / "config.yaml"]
    return ["--snakefile", REPOSITORY / "Snakefile", "--directory", path, *config]
