"""What is new runs, and nothing else: the jobs of real dry runs, counted."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from conftest import (
    CONFIG,
    DATASETS,
    MODELS,
    Running,
    StudyFolder,
    clone_of_repository,
    copy_of,
    edit,
    make_study,
    signal,
)
from snakemake_output import jobs_of

from lmshape.store.statistics import read_statistics

TABLE = "results/tables/metrics.parquet"
ENCODER = "results/metrics/small-encoder.parquet"  # of one cell
AFTERWARDS = {
    "tables": 1,
    "truncation_tables": 1,
    "spikes": 1,
    "claims": 1,
    "figures": 1,
    "index": 1,
    "explore": 1,
    "all": 1,
}  # whatever is new, these show it
GATHERED = {"gather": 1, "model_figures": 1}  # of one model
ALL_GATHERED = {"gather": 2, "model_figures": 2}
CELLS = 7
BLOCK = "results/statistics/small-decoder/checkpoint-4/wiki/{}/layers-00-02.h5"
LOG = "results/logs/measure/small-decoder/checkpoint-4/wiki/layers-00-02.log"
SHUFFLED = {"text": "wikipedia", "span": [0.5, 1.0], "order": "shuffled"}


@pytest.fixture(scope="module")
def copied(finished_study: StudyFolder, tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """A copy of the finished study that is planned and not run, with a run and a dataset that it does not take."""
    study = copy_of(finished_study, tmp_path_factory.mktemp("planned") / "study")
    for step in (0, 4):
        source = study.path / f"results/pretrained/small-decoder/checkpoint-{step}"
        shutil.copytree(source, study.path / f"my-run/checkpoint-{step}")
    study.write("models.yaml", {**MODELS, "mine": {"kind": "decoder", "folder": "my-run"}})
    study.write(
        "datasets.yaml", {**DATASETS, "datasets": {**DATASETS["datasets"], "wiki-shuffled": SHUFFLED}}
    )
    return study


@pytest.mark.parametrize(
    ("changes", "planned"),
    [
        # somebody's own training run: a folder of checkpoints, five lines in the registry
        (
            {"models": [*CONFIG["models"], {"mine": {"checkpoints": "all", "datasets": ["wiki"]}}]},
            {"tokenize": 1, "extract": 2, "measure": 2, "truncate": 1, **GATHERED, **AFTERWARDS},
        ),
        ({"checkpoints": [0, 4, 8, 16]}, {"extract": 2, "measure": 2, **GATHERED, **AFTERWARDS}),
        (
            {"datasets": ["wiki", "wiki-random", "wiki-shuffled"]},
            {"tokenize": 1, "extract": 3, "measure": 3, **GATHERED, **AFTERWARDS},
        ),
        # a family; a metric of a family that is there, and a family that goes
        (
            {"metrics": ["spectral", "angular", "neighbor", "loss"]},
            {"measure": CELLS, **ALL_GATHERED, **AFTERWARDS},
        ),
        ({"metrics": ["anisotropy", "loss"]}, {**ALL_GATHERED, **AFTERWARDS}),
        ({"models": ["small-decoder"]}, AFTERWARDS),
        # what changes the truncations too, which read no file of the cells that run before them
        (
            {"extraction": {"dtype": "bfloat16"}},
            {"extract": CELLS, "measure": CELLS, "truncate": 1, **ALL_GATHERED, **AFTERWARDS},
        ),
        # what no number depends on
        (
            {
                **{"disk_budget_gb": 2, "keep_weights": True, "scratch": "tmpdir"},
                "pretraining": CONFIG["pretraining"] | {"threads": 2},
            },
            {},
        ),
        ({"extraction": {"batch_tokens": 64}}, {"index": 1, "all": 1}),
    ],
)
def test_what_is_new_is_planned_and_nothing_else(
    changes: dict[str, object], planned: dict[str, int], copied: StudyFolder
) -> None:
    copied.configure(**changes)
    assert copied.planned() == planned


@pytest.mark.parametrize(
    ("deleted", "planned"),
    [
        ("tables/truncation_ranks.csv", {"truncation_tables": 1, "claims": 1, "index": 1, "all": 1}),
        ("tables/contrasts.csv", AFTERWARDS),
        ("figures/controls.svg", {"figures": 1, "index": 1, "all": 1}),
    ],
)
def test_what_was_deleted_beside_a_whole_page_is_made_again(
    deleted: str, planned: dict[str, int], study_copy: StudyFolder
) -> None:
    (study_copy.path / "results" / deleted).unlink()
    assert study_copy.planned() == planned


def test_the_order_of_models_and_comments_run_no_cell_again(copied: StudyFolder) -> None:
    copied.configure(models=list(reversed(CONFIG["models"])))
    with (copied.path / "config.yaml").open("a") as config:
        config.write("# a comment\n")
    assert not {"extract", "measure", "tokenize", "pretrain", "gather"} & copied.planned().keys()


# ---- changes to the code ---------------------------------------------------------------------------------


OTHER = "\n@(lambda changed: changed)\ndef "  # the same function, and another syntax tree


def test_a_module_that_has_moved_other_docstrings_and_what_no_number_depends_on_plan_nothing(
    copied: StudyFolder, tmp_path: Path
) -> None:
    clone = clone_of_repository(tmp_path / "clone")
    library = clone / "workflow/lmshape"
    (library / "geometry/spectrum.py").rename(library / "geometry/eigenvalues.py")
    renamed = 0
    for path in library.rglob("*.py"):
        text, count = re.subn(
            r"\blmshape\.geometry\.spectrum\b", "lmshape.geometry.eigenvalues", path.read_text()
        )
        path.write_text(text)
        renamed += count
    assert renamed > 3
    for module in ("metrics/neighbor.py", "models/extract.py", "training/pretrain.py", "tables/gather.py"):
        path = library / module
        text = path.read_text()
        assert text.startswith('"""')
        text = re.sub(r'^    """(?=\S)', '    """Wrapped\n    otherwise: ', text, flags=re.MULTILINE)
        path.write_text('"""Another docstring. ' + text[3:] + "\n# and a comment\n")
    for module, function in (("study/costs.py", "minutes_for"), ("jobs/missing.py", "why")):
        edit(clone, module, f"\ndef {function}(", f"{OTHER}{function}(")
    copied.configure()
    assert copied.planned(repository=clone) == {}


@pytest.mark.parametrize(
    ("module", "function", "planned"),
    [
        (
            "models/extract.py",
            "write_activations",
            {"extract": CELLS, "measure": CELLS, **ALL_GATHERED, **AFTERWARDS},
        ),
        ("figures/controls.py", "draw_panels", {"figures": 1, "index": 1, "all": 1}),
    ],
)
def test_a_change_to_the_code_runs_what_it_computes(
    module: str, function: str, planned: dict[str, int], copied: StudyFolder, clone: Path
) -> None:
    edit(clone, module, f"\ndef {function}(", f"{OTHER}{function}(")
    copied.configure()
    assert copied.planned(repository=clone) == planned


# ---- runs ------------------------------------------------------------------------------------------------


def test_a_changed_formula_and_a_new_family_are_measured_and_no_other_family(
    study_copy: StudyFolder, clone: Path
) -> None:
    edit(clone, "metrics/neighbor.py", "\ndef statistics(", f"{OTHER}statistics(")
    assert study_copy.planned(repository=clone) == {"measure": CELLS, **ALL_GATHERED, **AFTERWARDS}
    kept = study_copy.path / BLOCK.format("spectral")
    before = kept.read_bytes()
    study_copy.configure(metrics=["spectral", "angular", "neighbor", "comparison_final", "loss"])
    run = study_copy.snakemake("--cores", "2", BLOCK.format("angular"), repository=clone)
    assert run.returncode == 0, run.stdout
    log = (study_copy.path / LOG).read_text()
    assert re.findall("(.*): layers/01 measured", log) == ["angular, neighbor, comparison_final"]
    assert kept.read_bytes() == before
    assert study_copy.planned(BLOCK.format("angular"), repository=clone) == {}
    _, layers = read_statistics(study_copy.path / BLOCK.format("comparison_final"))
    assert all((layer.arrays["overlap"] < 1).all() for layer in layers)  # with checkpoint-16, not with itself


def test_statistics_of_other_rows_are_not_taken_for_those_of_now(study_copy: StudyFolder) -> None:
    """A job that fails leaves the archives that it found, and runs again whoever reads them."""
    activations = study_copy.path / "results/activations/small-encoder/checkpoint-16/wiki.h5"
    whole, dates = activations.read_bytes(), activations.stat()
    activations.write_bytes(whole[:1000])
    os.utime(activations, ns=(dates.st_atime_ns, dates.st_mtime_ns))
    study_copy.configure(rows=["all"])
    run = study_copy.snakemake("--cores", "2", "--retries", "0", ENCODER)
    assert run.returncode == 1
    assert "cannot be read as HDF5" in run.stdout
    assert study_copy.planned(ENCODER) == {"measure": 1, "gather": 1}
    activations.write_bytes(whole)
    os.utime(activations, ns=(dates.st_atime_ns, dates.st_mtime_ns))
    run = study_copy.snakemake("--cores", "2", ENCODER)
    assert run.returncode == 0, run.stdout
    assert set(pd.read_parquet(study_copy.path / ENCODER)["rows"]) == {"all"}
    assert study_copy.planned(ENCODER) == {}


def test_tables_that_could_not_be_gathered_anew_are_not_taken_for_those_of_now(
    study_copy: StudyFolder, clone: Path
) -> None:
    """All that was once made of them is there, and Snakemake alone would find nothing to do."""
    edit(clone, "tables/gather.py", "\ndef gather(", "\n@(lambda gather: None)\ndef gather(")
    due = {**ALL_GATHERED, **AFTERWARDS}
    run = study_copy.snakemake("--cores", "2", "--retries", "0", repository=clone)
    assert run.returncode == 1 and jobs_of(run.stdout) == due
    assert (study_copy.path / "results/index.html").exists()
    assert study_copy.planned(repository=clone) == due


def test_a_formula_that_fails_is_run_again_when_it_is_right(study_copy: StudyFolder, clone: Path) -> None:
    define = "\ndef statistics(layer: Layer) -> dict[str, Found]:\n"
    edit(clone, "metrics/neighbor.py", define, f"{define}    raise ValueError('wrong formula')\n")
    run = study_copy.snakemake("--cores", "2", "--retries", "0", ENCODER, repository=clone)
    assert run.returncode == 1
    assert "measure: ValueError: wrong formula" in run.stdout
    assert study_copy.planned(ENCODER) == {"measure": 1, "gather": 1}


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """A study that was killed while its models trained, and again while activations were written."""
    study = make_study(tmp_path_factory.mktemp("killed") / "study")
    study.configure(models=["small-decoder"], datasets=["wiki"])
    for moment in (
        "results/pretrained/small-decoder.partial/checkpoint-4",
        "results/activations/*/*/.*.partial-*",
    ):
        with Running(study, "--cores", "2", TABLE) as running:
            running.stop_at(moment)
            running.end(signal.SIGKILL)
        assert study.snakemake("--unlock").returncode == 0
    return study


def test_a_killed_study_ends_in_the_same_numbers(killed: StudyFolder, finished_study: StudyFolder) -> None:
    rerun = killed.snakemake("--cores", "2", TABLE)
    assert rerun.returncode == 0, rerun.stdout
    chosen = "model == 'small-decoder' and dataset == 'wiki'"
    tables = [
        pd.read_parquet(study.path / TABLE).query(chosen).reset_index(drop=True)
        for study in (killed, finished_study)
    ]
    pd.testing.assert_frame_equal(*tables, rtol=1e-9, check_categorical=False)
    assert not list(killed.path.glob("results/**/.*.partial-*"))
