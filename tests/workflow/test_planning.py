"""A plan tells the study in words and reads no file twice: large studies are planned on slow file systems."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from conftest import REPOSITORY, StudyFolder
from warm_python import run_python

# Snakemake with every file that it opens told.
TELLING = """
import os, sys

def tell(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        print("opened", os.path.abspath(os.fsdecode(arguments[0])), file=sys.__stderr__)

sys.addaudithook(tell)
from snakemake.cli import main
main(sys.argv[1:])
"""
SENTENCES = (
    "Pretrain small-decoder from scratch",
    "Extract activations of small-decoder at checkpoint-4 on wiki-random",
    "Measure layers 00-02 of small-encoder at checkpoint-16 on wiki",
    "Gather the metrics of small-encoder",
    "Test the published claims on this study",
    "Write the page of the study",
)


@pytest.fixture(scope="module")
def telling(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which `python -m telling` is Snakemake."""
    folder = tmp_path_factory.mktemp("telling")
    (folder / "telling.py").write_text(TELLING)
    return {**os.environ, "PYTHONPATH": str(folder)}


def planned(study: StudyFolder, env: dict[str, str]) -> tuple[str, dict[str, int]]:
    """What a dry run says, and how often it opens each file of the study and of the registry.

    Snakemake reads its rules, and what it knows of results, itself; the configuration it reads after us, without lines.
    """
    _, _, *arguments = study.command("--dry-run")
    run = run_python("-m", "telling", *arguments, cwd=study.path, env=env)
    assert run.returncode == 0, run.stdout
    files = Counter(re.findall(r"^opened (.*)$", run.stdout, re.MULTILINE))
    folders = (study.path, REPOSITORY / "config", REPOSITORY / "workflow/schemas")
    chosen = {}
    for name, count in files.items():
        path = Path(name)
        own = ".snakemake" in path.parts or path == study.path / "config.yaml"
        if not own and path.is_file() and any(map(path.is_relative_to, folders)):
            chosen[name] = count
    return run.stdout, chosen


def test_a_new_study(new_study: StudyFolder, telling: dict[str, str]) -> None:
    told, files = planned(new_study, telling)
    assert [sentence for sentence in SENTENCES if sentence not in told] == []
    assert str(new_study.path / "models.yaml") in files
    assert {name: count for name, count in files.items() if count > 1} == {}


def test_a_study_that_is_done(finished_study: StudyFolder, telling: dict[str, str]) -> None:
    told, files = planned(finished_study, telling)
    assert "Nothing to be done" in told
    assert not [name for name in files if name.endswith((".h5", ".parquet", ".safetensors"))]
    assert {name: count for name, count in files.items() if count > 1} == {}


def test_reading_the_rules_imports_nothing_heavy() -> None:
    """Every job on a cluster reads them anew, twice."""
    rules = "\n".join(path.read_text() for path in sorted((REPOSITORY / "workflow/rules").glob("*.smk")))
    modules = sorted(set(re.findall(r"^(?:from|import) (lmshape[.\w]*)", rules, re.MULTILINE)))
    assert "lmshape.jobs" in modules
    code = f"import sys, {', '.join(modules)}\nprint(*sys.modules)"
    command = [sys.executable, "-c", code]
    path = {**os.environ, "PYTHONPATH": str(REPOSITORY / "workflow")}
    loaded = subprocess.run(command, env=path, text=True, capture_output=True, check=True).stdout.split()
    assert not {"pandas", "torch", "transformers", "matplotlib", "huggingface_hub", "sklearn"} & set(loaded)
