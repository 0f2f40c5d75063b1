"""Jobs as `lmshape plan` counts them are those of Snakemake's own dry run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lmshape.errors import InputError
from lmshape.plan import planned_jobs
from lmshape.registry import REPOSITORY

CONFIG = REPOSITORY / "config" / "config.yaml"


def test_the_embedded_study(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "lmshape", "plan", "--configfile", CONFIG, "--directory", tmp_path],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--snakefile",
        REPOSITORY / "Snakefile",
        "--directory",
        tmp_path,
    ]
    dry_run = subprocess.run(
        [*command, "--configfile", CONFIG, "--dry-run", "--quiet", "progress"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    [(total, rest)] = re.findall(r"^jobs +(\d+) still to run: (.*)$", told, re.MULTILINE)
    rules = {rule: int(count) for count, rule in re.findall(r"(\d+) (\w+)", rest)}
    # every job of a dry run is told as `rule name:` or `localrule name:`
    jobs = re.findall(r"^(?:local)?rule (\w+):$", dry_run, re.MULTILINE)
    assert rules == {rule: jobs.count(rule) for rule in rules}
    assert int(total) == sum(rules.values()) == len(jobs) > 100
    assert "wiki-encoder" in told and "download   0 B" in told


def test_a_study_that_cannot_be_planned(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("models: [pythia-41m]\ndatasets: [enwik8]\n")
    with pytest.raises(InputError) as error:
        planned_jobs(tmp_path / "study.yaml", tmp_path)
    assert str(error.value).startswith(f"Snakemake cannot plan `{tmp_path / 'study.yaml'}`:\n")
    assert "`models[0]` = 'pythia-41m': unknown model" in str(error.value)
