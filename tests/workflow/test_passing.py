"""`keep_activations: false`: a cell is one job, which holds its activations and leaves nothing of them behind."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from conftest import (
    Running,
    StudyFolder,
    copy_of,
    edit,
    jobs_agree,
    signal,
)
from snakemake_output import jobs_of

TABLE = "results/tables/metrics.parquet"
ENCODER = "results/metrics/small-encoder.parquet"  # of one cell
CARD = "results/losses/small-encoder/checkpoint-16/wiki.json"
LOG = "results/logs/extract/small-encoder/checkpoint-16/wiki.log"
ARCHIVE = "results/statistics/small-encoder/checkpoint-16/wiki/{}/layers-00-02.h5"
ONE_CELL = {"measure_cell_3_layers": 1, "gather": 1}
OF_CELLS = ("activations", "losses", "statistics", "metrics", "tables", "logs")


@pytest.fixture(scope="module")
def passed(finished_study: StudyFolder, tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """The miniature study from its trained models on, each cell in one job; tests must leave it as it is."""
    study = copy_of(finished_study, tmp_path_factory.mktemp("passed") / "study")
    for name in OF_CELLS:
        shutil.rmtree(study.path / "results" / name)
    study.configure(keep_activations=False)
    run = study.snakemake("--cores", "2", TABLE)
    assert run.returncode == 0, run.stdout
    assert "Extract and measure small-decoder at checkpoint-4 on wiki-random" in run.stdout
    return study


@pytest.fixture
def study(passed: StudyFolder, tmp_path: Path) -> StudyFolder:
    return copy_of(passed, tmp_path / "study")


def archives(study: StudyFolder) -> dict[str, bytes]:
    """The archives of the encoder's cell."""
    return {family: (study.path / ARCHIVE.format(family)).read_bytes() for family in ("spectral", "neighbor")}


def of_activations(study: StudyFolder) -> Iterator[Path]:
    """Files and folders of activations, whole or on their way."""
    yield from (study.path / "results/activations").rglob("*")
    yield from study.path.glob("results/losses/**/.*activations-*")


def test_the_numbers_are_the_same_to_the_last_bit_and_no_activations_stay(
    passed: StudyFolder, finished_study: StudyFolder
) -> None:
    tables = [pd.read_parquet(study.path / TABLE) for study in (passed, finished_study)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    assert list(of_activations(passed)) == []
    assert passed.planned(TABLE) == {}


def test_jobs_read_and_write_what_the_library_says(
    passed: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(passed.path)
    assert {"measure_cell", "gather", "tables"} <= jobs_agree(passed, TABLE)


def test_a_new_family_extracts_again_and_leaves_the_other_archives_as_they_are(study: StudyFolder) -> None:
    before = archives(study)
    study.configure(keep_activations=False, metrics=["spectral", "angular", "neighbor", "loss"])
    run = study.snakemake("--cores", "2", ENCODER)
    assert run.returncode == 0, run.stdout
    log = (study.path / LOG).read_text()
    assert re.findall("(.*): layers/01 measured", log) == ["angular"]
    assert archives(study) == before
    assert list(of_activations(study)) == []
    # what is done, and what is still to be done
    assert study.planned(TABLE) == {"measure_cell_3_layers": 6, "gather": 1, "tables": 1}
    study.configure(keep_activations=False, metrics=["spectral", "loss"])
    assert study.planned(ENCODER) == {"gather": 1}


def test_a_formula_that_fails_leaves_the_archives_of_before_and_is_run_again(
    study: StudyFolder, passed: StudyFolder, clone: Path
) -> None:
    """The numbers of before are never taken for those of now, by whatever reads them."""
    define = "\ndef statistics(layer: Layer) -> dict[str, Found]:\n"
    edit(clone, "metrics/neighbor.py", define, f"{define}    raise ValueError('wrong formula')\n")
    run = study.snakemake("--cores", "2", "--retries", "0", ENCODER, repository=clone)
    assert run.returncode == 1 and jobs_of(run.stdout) == ONE_CELL
    assert "measure_cell: ValueError: wrong formula" in run.stdout
    assert archives(study) == archives(passed)
    assert not (study.path / CARD).exists()
    assert list(of_activations(study)) == []
    assert study.planned(ENCODER) == ONE_CELL
    edit(clone, "metrics/neighbor.py", "    raise ValueError('wrong formula')\n", "    assert True\n")
    run = study.snakemake("--cores", "2", ENCODER, repository=clone)
    assert run.returncode == 0, run.stdout
    log = (study.path / LOG).read_text()
    assert re.findall("(.*): layers/01 measured", log) == ["neighbor"]
    assert study.planned(ENCODER, repository=clone) == {}
    assert study.planned(ENCODER) == ONE_CELL  # the formula of the archives is another again


def test_a_killed_cell_is_run_again_and_its_scratch_removed(study: StudyFolder, passed: StudyFolder) -> None:
    for file in (CARD, ENCODER):
        (study.path / file).unlink()
    scratch = "results/losses/small-encoder/checkpoint-16/.wiki.json.activations-*"
    with Running(study, "--cores", "2", ENCODER) as running:
        running.stop_at(scratch)
        running.end(signal.SIGKILL)
    (left,) = study.path.glob(scratch)
    assert study.snakemake("--unlock").returncode == 0
    run = study.snakemake("--cores", "2", ENCODER)
    assert run.returncode == 0 and jobs_of(run.stdout) == ONE_CELL, run.stdout
    assert not left.exists() and list(of_activations(study)) == []
    assert archives(study) == archives(passed)
    tables = [pd.read_parquet(one.path / ENCODER) for one in (study, passed)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)


def test_blocks_of_layers_are_archives_of_the_same_job(study: StudyFolder) -> None:
    study.configure(keep_activations=False, layers_per_job=1)
    assert study.planned(ENCODER) == ONE_CELL
    study.configure(keep_activations=False, disk_budget_gb=1, keep_weights=True)
    assert study.planned(TABLE) == {}


def test_activations_that_are_to_stay_are_extracted_again(study: StudyFolder) -> None:
    study.configure()
    assert study.planned(ENCODER) == {"extract": 1, "measure": 1, "gather": 1}
