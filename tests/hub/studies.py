"""Studies on the loopback hub: real Snakemake runs in a folder of their own."""

from __future__ import annotations

import lzma
import os
import subprocess
from pathlib import Path

import yaml
from runs import REPOSITORY, write_registry
from snakemake_output import jobs_of
from warm_python import run_python


class HubStudy:
    """A study of published runs, and Snakemake to run it."""

    def __init__(self, path: Path, endpoint: str, **environment: str) -> None:
        self.path = path
        quick = {"LMSHAPE_FIRST_PAUSE_SECONDS": "0.01"}
        home = {"HF_ENDPOINT": endpoint, "HF_HOME": str(path.parent / "home")}
        self.environment = {**os.environ, **quick, **home, **environment}

    def configure(self, **changes: object) -> None:
        """Change keys of the configuration."""
        configure(self.path, **changes)

    def command(self, *arguments: object) -> list[str]:
        """Return the arguments of Python that run Snakemake."""
        start = ["-m", "snakemake", "--snakefile", REPOSITORY / "Snakefile"]
        place = ["--directory", self.path, "--configfile", self.path / "config.yaml"]
        return [str(part) for part in (*start, *place, *arguments)]

    def snakemake(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run Snakemake, output and errors together."""
        return run_python(*self.command(*arguments), cwd=self.path, env=self.environment)

    def run(self, *arguments: object) -> str:
        """Run Snakemake to a good end on two cores."""
        run = self.snakemake("--cores", "2", *arguments)
        assert run.returncode == 0, run.stdout
        return run.stdout

    def planned(self, *arguments: object) -> dict[str, int]:
        """Count the jobs of a dry run, by rule."""
        run = self.snakemake("--dry-run", *arguments)
        assert run.returncode == 0, run.stdout
        return jobs_of(run.stdout)


def configure(study: Path, **changes: object) -> None:
    """Change keys of the configuration of the study in a folder."""
    config = yaml.safe_load((study / "config.yaml").read_text())
    (study / "config.yaml").write_text(yaml.safe_dump({**config, **changes}, sort_keys=False))


def make_study(path: Path, endpoint: str, entries: dict[str, object], **environment: str) -> HubStudy:
    """Write a study of some entries: a sixth of a megabyte of Wikipedia, and its files."""
    path.mkdir(parents=True)
    with lzma.open(REPOSITORY / "data/enwik8-excerpt.xz") as excerpt:
        (path / "text.txt").write_bytes(excerpt.read(150_000))
    write_registry(path, entries)
    return HubStudy(path, endpoint, **environment)
