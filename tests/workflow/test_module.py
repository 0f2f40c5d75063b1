"""The workflow as a module of another one, without and with a prefix, from a clone that is not installed."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from conftest import StudyFolder
from warm_python import run_python

HOST = """
module study:
    snakefile: "{clone}/workflow/Snakefile"
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


def host(study: StudyFolder, clone: Path, prefix: str) -> list[str]:
    """Write a workflow that imports ours; return the arguments of Python that run it."""
    told = {
        "clone": clone,
        "prefix": f'prefix: "{prefix}"' if prefix else "",
        "folder": f"{prefix}/" if prefix else "",
    }
    (study.path / "Hostfile").write_text(HOST.format(**told))
    return ["-m", "snakemake", "--snakefile", "Hostfile", "--configfile", "config.yaml", "--cores", "1"]


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
