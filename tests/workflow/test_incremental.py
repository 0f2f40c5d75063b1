"""What is new runs, and nothing else: the jobs of real dry runs, counted."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from conftest import CONFIG, DATASETS, MODELS, REPOSITORY, StudyFolder

TABLE = "results/tables/metrics.parquet"
AFTERWARDS = {
    "tables": 1,
    "truncation_tables": 1,
    "spikes": 1,
    "claims": 1,
    "figure": len(CONFIG["figures"]),
    "findings": 1,
    "explore": 1,
    "report": 1,
    "all": 1,
}  # whatever is new, these show it


def test_a_new_model_runs_its_own_cells(study_copy: StudyFolder) -> None:
    """Somebody's own training run: a folder of checkpoints, five lines in the registry."""
    run = study_copy.path / "my-run"
    for step in (0, 4):
        source = study_copy.path / f"results/pretrained/small-decoder/checkpoint-{step}"
        shutil.copytree(source, run / f"checkpoint-{step}")
    study_copy.write("models.yaml", {**MODELS, "mine": {"kind": "decoder", "folder": "my-run"}})
    study_copy.configure(models=[*CONFIG["models"], {"mine": {"checkpoints": "all", "datasets": ["wiki"]}}])
    cells = {"tokenize": 1, "extract": 2, "measure": 2, "truncate": 1, "gather": 1}
    assert study_copy.planned() == {**cells, **AFTERWARDS}


def test_a_new_checkpoint_runs_its_own_cells(study_copy: StudyFolder) -> None:
    study_copy.configure(checkpoints=[0, 4, 8, 16])
    assert study_copy.planned() == {"extract": 2, "measure": 2, "gather": 1, **AFTERWARDS}


def test_a_new_dataset_runs_its_own_cells(study_copy: StudyFolder) -> None:
    shuffled = {"text": "wikipedia", "span": [0.5, 1.0], "order": "shuffled"}
    study_copy.write(
        "datasets.yaml", {**DATASETS, "datasets": {**DATASETS["datasets"], "wiki-shuffled": shuffled}}
    )
    study_copy.configure(datasets=["wiki", "wiki-random", "wiki-shuffled"])
    assert study_copy.planned() == {"tokenize": 1, "extract": 3, "measure": 3, "gather": 1, **AFTERWARDS}


CELLS = 7
BLOCK = "results/statistics/small-decoder/checkpoint-4/wiki/{}/layers-00-02.h5"


def test_a_new_metric_family_is_measured_alone_and_one_that_goes_runs_nothing(
    study_copy: StudyFolder,
) -> None:
    before = (study_copy.path / BLOCK.format("neighbor")).read_bytes()
    study_copy.configure(metrics=["spectral", "angular", "neighbor", "loss"])
    assert study_copy.planned() == {"measure": CELLS, "gather": 2, **AFTERWARDS}
    run = study_copy.snakemake("--cores", "2", "results/tables/metrics.parquet")
    assert run.returncode == 0, run.stdout
    log = (
        study_copy.path / "results/logs/measure/small-decoder/checkpoint-4/wiki/layers-00-02.log"
    ).read_text()
    assert "angular: layers/01 measured" in log
    assert "spectral: layers" not in log and "neighbor: layers" not in log
    assert (study_copy.path / BLOCK.format("neighbor")).read_bytes() == before
    assert study_copy.planned("results/tables/metrics.parquet") == {}
    study_copy.configure(metrics=["spectral", "loss"])
    assert study_copy.planned("results/tables/metrics.parquet") == {"gather": 2, "tables": 1}


def test_a_single_new_metric_of_a_kept_family_only_gathers(study_copy: StudyFolder) -> None:
    study_copy.configure(metrics=["anisotropy", "neighbor", "loss"])
    assert study_copy.planned() == {"gather": 2, **AFTERWARDS}


def test_the_order_of_models_and_comments_plan_nothing(study_copy: StudyFolder) -> None:
    study_copy.configure(models=list(reversed(CONFIG["models"])))
    with (study_copy.path / "config.yaml").open("a") as config:
        config.write("# a comment\n")
    planned = study_copy.planned()
    assert not {"extract", "measure", "tokenize", "pretrain"} & planned.keys()


def clone_of_repository(folder: Path) -> Path:
    """A fresh clone: every file new, nothing built."""
    folder.mkdir()
    for name in ("Snakefile", "workflow", "config", "profiles", "envs", "data"):
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(
                source, folder / name, copy_function=shutil.copy, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy(source, folder / name)
    return folder


def edit(repository: Path, module: str, old: str, new: str) -> None:
    path = repository / "workflow/lmshape" / module
    text = path.read_text()
    assert old in text, f"{module} has no `{old}`"
    path.write_text(text.replace(old, new, 1))


def test_a_fresh_clone_beside_old_results_plans_nothing(study_copy: StudyFolder, tmp_path: Path) -> None:
    assert study_copy.planned(repository=clone_of_repository(tmp_path / "clone")) == {}


def test_changed_code_of_a_family_measures_that_family_again(study_copy: StudyFolder, tmp_path: Path) -> None:
    clone = clone_of_repository(tmp_path / "clone")
    edit(clone, "measure/neighbor.py", "\ndef statistics(", "\nCHANGED = True\n\n\ndef statistics(")
    assert study_copy.planned(repository=clone) == {"measure": CELLS, "gather": 2, **AFTERWARDS}
    block = BLOCK.format("spectral")
    before = (study_copy.path / block).read_bytes()
    run = study_copy.snakemake("--cores", "2", block, repository=clone)
    assert run.returncode == 0, run.stdout
    log = (
        study_copy.path / "results/logs/measure/small-decoder/checkpoint-4/wiki/layers-00-02.log"
    ).read_text()
    assert "neighbor: layers/01 measured" in log and "spectral: layers" not in log
    assert (study_copy.path / block).read_bytes() == before


def test_a_block_that_cannot_be_measured_anew_is_not_taken_for_done(study_copy: StudyFolder) -> None:
    """Statistics of before, of other rows, must not go into the tables of now."""
    table = "results/tables/metrics.parquet"
    activations = study_copy.path / "results/activations/small-decoder/checkpoint-4/wiki.h5"
    whole = activations.read_bytes()
    dates = activations.stat()
    activations.write_bytes(whole[:1000])
    os.utime(activations, ns=(dates.st_atime_ns, dates.st_mtime_ns))
    study_copy.configure(rows=["all"])
    run = study_copy.snakemake("--cores", "2", "--retries", "0", table)
    assert run.returncode == 1
    assert not (study_copy.path / BLOCK.format("neighbor")).exists()
    assert study_copy.planned(table) == {"measure": 1, "gather": 1, "tables": 1}
    activations.write_bytes(whole)
    os.utime(activations, ns=(dates.st_atime_ns, dates.st_mtime_ns))
    run = study_copy.snakemake("--cores", "2", table)
    assert run.returncode == 0, run.stdout
    assert set(pd.read_parquet(study_copy.path / table)["rows"]) == {"all"}
    assert study_copy.planned(table) == {}


def test_comments_and_docstrings_are_no_change(study_copy: StudyFolder, tmp_path: Path) -> None:
    clone = clone_of_repository(tmp_path / "clone")
    for module in (
        "measure/neighbor.py",
        "extraction/extract.py",
        "training/pretrain.py",
        "tables/gather.py",
    ):
        path = clone / "workflow/lmshape" / module
        text = path.read_text()
        assert text.startswith('"""')
        path.write_text('"""Another docstring. ' + text[3:] + "\n# and a comment\n")
    assert study_copy.planned(repository=clone) == {}


def test_temporary_activations_are_gone_and_not_missed(new_study: StudyFolder) -> None:
    new_study.configure(
        keep_activations=False, models=[{"small-decoder": {"checkpoints": [16], "datasets": ["wiki"]}}]
    )
    run = new_study.snakemake("--cores", "2", TABLE)
    assert run.returncode == 0, run.stdout
    assert not list((new_study.path / "results/activations").rglob("*.h5"))
    assert new_study.planned(TABLE) == {}


@pytest.mark.parametrize(
    "moment", ["results/pretrained/small-decoder.partial/checkpoint-4", "results/activations"]
)
def test_a_killed_study_ends_in_the_same_numbers(
    moment: str, new_study: StudyFolder, finished_study: StudyFolder
) -> None:
    """kill -9 of the whole process group while a model trains, and while activations are written."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", REPOSITORY / "Snakefile"]
    command += ["--configfile", "config.yaml", "--cores", "2", "--", TABLE]
    process = subprocess.Popen(
        command,
        cwd=new_study.path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not (new_study.path / moment).exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.poll() is None, "the study ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert new_study.snakemake("--unlock").returncode == 0
    rerun = new_study.snakemake("--cores", "2", TABLE)
    assert rerun.returncode == 0, rerun.stdout
    tables = [pd.read_parquet(study.path / TABLE) for study in (new_study, finished_study)]
    pd.testing.assert_frame_equal(*tables, rtol=1e-9)
