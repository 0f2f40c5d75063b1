"""Planning a study reads no file twice: large studies are planned on slow file systems."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

from conftest import REPOSITORY, StudyFolder

# Snakemake with every file that it opens told on its standard error.
TELLING = """
import os, sys

def tell(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        print("opened", os.path.abspath(os.fsdecode(arguments[0])), file=sys.__stderr__)

sys.addaudithook(tell)
from snakemake.cli import main
main(sys.argv[1:])
"""


def opened(study: StudyFolder, *arguments: str) -> Counter[str]:
    command = [sys.executable, "-c", TELLING, "--snakefile", REPOSITORY / "Snakefile", "--dry-run"]
    command += ["--directory", study.path, "--configfile", study.path / "config.yaml", *arguments]
    run = subprocess.run(command, cwd=study.path, text=True, capture_output=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    lines = run.stderr.splitlines()
    return Counter(line.removeprefix("opened ") for line in lines if line.startswith("opened "))


def ours(files: Counter[str], study: StudyFolder) -> dict[str, int]:
    """Files of the study and of the registry; Snakemake reads its rules, and what it knows of results, itself."""
    folders = (study.path, REPOSITORY / "config", REPOSITORY / "workflow/schemas")
    chosen = {}
    for name, count in files.items():
        path = Path(name)
        if ".snakemake" not in path.parts and path.is_file() and any(map(path.is_relative_to, folders)):
            chosen[name] = count
    return chosen


def test_a_new_study(new_study: StudyFolder) -> None:
    files = ours(opened(new_study), new_study)
    assert str(new_study.path / "models.yaml") in files
    assert {name: count for name, count in files.items() if count > 1} == {}


def test_a_study_that_is_done(finished_study: StudyFolder) -> None:
    files = ours(opened(finished_study), finished_study)
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
