"""Jobs as `lmshape plan` counts them are those of Snakemake's own dry run."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from lmshape.errors import InputError
from lmshape.jobs.plan import planned_jobs
from lmshape.study.registry import REPOSITORY

pytestmark = pytest.mark.slow

CONFIG = REPOSITORY / "config" / "config.yaml"


def output_of(*command: object) -> str:
    return subprocess.run(
        [sys.executable, "-m", *map(str, command)], capture_output=True, text=True, check=True
    ).stdout


def test_the_embedded_study(tmp_path: Path) -> None:
    study = ("--configfile", CONFIG, "--directory", tmp_path)
    told = output_of("lmshape", "plan", *study)
    graph = output_of("snakemake", "--snakefile", REPOSITORY / "Snakefile", *study, "--dag")
    [(total, rest)] = re.findall(r"^jobs +(\d+) still to run: (.*)$", told, re.MULTILINE)
    rules = {rule: int(count) for count, rule in re.findall(r"(\d+) (\w+)", rest)}
    assert rules == Counter(re.findall(r'\[label = "(\w+)', graph))  # a node a job
    assert int(total) == sum(rules.values()) > 50
    assert "wiki-encoder" in told and "download   0 B" in told and "disk peak" not in told


@pytest.mark.parametrize(("variable", "end"), [("HOME", "/.cache"), ("XDG_CACHE_HOME", "")])
def test_a_home_that_cannot_be_written_is_told_before_snakemake_fails(
    variable: str, end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    (tmp_path / "file").touch()
    monkeypatch.setenv(variable, str(tmp_path / "file/below"))  # not even root can make it
    with pytest.raises(InputError, match=rf"file/below{end}` cannot be written, .* `export XDG_CACHE_HOME="):
        planned_jobs(REPOSITORY / "config/config.yaml", tmp_path)


def test_a_study_that_cannot_be_planned(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("models: [pythia-41m]\ndatasets: [enwik8]\n")
    with pytest.raises(InputError) as error:
        planned_jobs(tmp_path / "study.yaml", tmp_path)
    assert str(error.value).startswith(f"Snakemake cannot plan `{tmp_path / 'study.yaml'}`:\n")
    assert "`models[0]` = 'pythia-41m': unknown model" in str(error.value)
