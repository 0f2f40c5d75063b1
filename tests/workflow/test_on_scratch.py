"""`scratch: tmpdir`: every HDF5 file of a real run is written in $TMPDIR first, to the same bytes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from socket import gethostname

import pytest
from conftest import StudyFolder

from lmshape.writing import NAME

FILES = (
    "results/tokens/small-encoder/wiki.h5",
    "results/activations/small-encoder/checkpoint-16/wiki.h5",
    "results/statistics/small-encoder/checkpoint-16/wiki/spectral/layers-00-02.h5",
)


@pytest.fixture(scope="module")
def dead() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_scratch_plans_nothing_and_gives_the_same_bytes(
    study_copy: StudyFolder, finished_study: StudyFolder, tmp_path: Path, dead: int
) -> None:
    study_copy.configure(scratch="tmpdir")
    assert study_copy.planned() == {}
    scratch = tmp_path / "node's disk"
    left = scratch / f"{NAME}{gethostname()}-{dead}.killed"  # whoever writes on scratch removes it
    left.mkdir(parents=True)
    for file in FILES:
        (study_copy.path / file).unlink()
    tmpdir = f"tmpdir={str(scratch)!r}"
    run = study_copy.snakemake("--cores", "2", "--default-resources", tmpdir, "--force", *FILES)
    assert run.returncode == 0, run.stdout
    assert list(scratch.glob(f"{NAME}*")) == []
    for file in FILES:
        assert (study_copy.path / file).read_bytes() == (finished_study.path / file).read_bytes()
