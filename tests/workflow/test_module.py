"""The workflow as a module of another one, without and with a prefix, from a clone that is not installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import StudyFolder
from warm_python import run_python

HOST = """
configfile: "config.yaml"

module study:
    snakefile: "{snakefile}"
    config: config
    {prefix}

use rule * from study as study_*

import lmshape
assert lmshape.__file__ == "{clone}/workflow/lmshape/__init__.py", lmshape.__file__

rule ours:
    default_target: True
    input:
        "{folder}results/tokens/small-decoder/wiki.h5",
    output:
        "ours/{{model}}.txt",
    shell:
        "echo {{wildcards.model}} > {{output}}"
"""


def host(study: StudyFolder, clone: Path, prefix: str, snakefile: str = "") -> list[str]:
    """Write a workflow that imports ours; return the arguments of Python that run it."""
    told = {
        "clone": clone,
        "snakefile": snakefile or f"{clone}/workflow/Snakefile",
        "prefix": f'prefix: "{prefix}"' if prefix else "",
        "folder": f"{prefix}/" if prefix else "",
    }
    (study.path / "Hostfile").write_text(HOST.format(**told))
    return ["-m", "snakemake", "--snakefile", "Hostfile", "--cores", "1"]


@pytest.mark.parametrize("prefix", ["", "parts/geometry"])
def test_another_workflow_imports_this_one(prefix: str, new_study: StudyFolder, clone_for_all: Path) -> None:
    folder = new_study.path / prefix
    folder.mkdir(parents=True, exist_ok=True)
    for name in (
        "wikipedia.txt",
        "models.yaml",
        "datasets.yaml",
    ):  # paths of a configuration are those of its folder
        (folder / name).write_bytes((new_study.path / name).read_bytes())
    target = (
        f"{prefix}/results/tokens/small-decoder/wiki.h5" if prefix else "results/tokens/small-decoder/wiki.h5"
    )
    run = run_python(*host(new_study, clone_for_all, prefix), target, cwd=new_study.path)
    assert run.returncode == 0, run.stdout
    assert "study_tokenize" in run.stdout
    assert (folder / "results/tokens/small-decoder/wiki.h5").is_file()
    assert not prefix or not (new_study.path / "results").exists()
    assert yaml.safe_load((new_study.path / "config.yaml").read_text())["study"] == "miniature"


def test_a_workflow_is_deployed_from_a_repository(
    new_study: StudyFolder, clone_for_all: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `snakedeploy deploy-workflow` writes it: files of a tag that lie in no folder, the library installed apart."""
    repository = new_study.path / "repository"
    git = ["git", "-C", repository, "-c", "user.name=a", "-c", "user.email=a@example.org"]
    shutil.copytree(clone_for_all, repository)
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "all"], ["tag", "v1"]):
        subprocess.run([*git, *command], check=True)
    monkeypatch.setenv("PYTHONPATH", str(clone_for_all / "workflow"))
    arguments = host(new_study, clone_for_all, "", f"git+file://{repository}/workflow/Snakefile@v1")
    command = [sys.executable, *arguments, "results/texts/wikipedia.txt"]
    run = subprocess.run(command, cwd=new_study.path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert (new_study.path / "results/texts/wikipedia.txt").stat().st_size


def test_the_catalog_knows_what_to_show() -> None:
    root = Path(__file__).parents[2]
    usage = yaml.safe_load((root / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert usage["software-stack-deployment"]["report"] and "lmshape" in usage["mandatory-flags"]["desc"]
    assert (root / "config/README.md").is_file() and (root / "workflow/Snakefile").is_file()
