"""What a study still takes by stage: shares of what is due, cores, downloads, and what passes through the disk."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hub_locks import ENTRY

from lmshape.jobs import Jobs
from lmshape.jobs.hub import DOWNLOAD_BYTES
from lmshape.jobs.plan import describe_stages, stages_of
from lmshape.jobs.rule import LEAST_DISK_MEGABYTES, LEAST_SECONDS
from lmshape.study.study import Study, load_study

GIGABYTES = 0.5  # of a checkpoint, by the registry


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """A published run of five checkpoints on two datasets."""
    (tmp_path / "models.yaml").write_text(json.dumps({"run": {**ENTRY, "gigabytes": GIGABYTES}}))
    datasets = {"random": {"order": "random"}, "more": {"order": "random"}}
    (tmp_path / "data.yaml").write_text(json.dumps({"texts": {}, "datasets": datasets}))
    config = {
        "models": ["run"],
        "datasets": list(datasets),
        "checkpoints": {"log": 5},
        "sampling": {"window": 128, "draws": 2, "rows_per_draw": 1024},
        "truncation": False,
        "registry": {"models": "models.yaml", "datasets": "data.yaml"},
    }
    return load_study(config, tmp_path)


def seconds(study: Study, planned: dict[str, int], cores: int = 1) -> dict[str, float]:
    return {name: work.seconds for name, work in stages_of(Jobs(study), planned, cores=cores).items()}


def test_stages_are_those_of_the_planned_jobs(study: Study) -> None:
    planned = {"download": 5, "extract": 10, "measure": 10, "gather": 1, "figures": 1, "all": 1}
    stages = stages_of(Jobs(study), planned, cores=2)
    counted = {name: work.jobs for name, work in stages.items()}
    assert counted == {"downloads": 5, "extraction": 10, "measuring": 10, "tables and pages": 2}
    assert stages_of(Jobs(study), {}, cores=2) == {}


def test_half_of_the_jobs_take_half_the_time_and_two_cores_half_of_it(study: Study) -> None:
    whole = seconds(study, {"extract": 10})["extraction"]
    assert seconds(study, {"extract": 5})["extraction"] == pytest.approx(whole / 2)
    assert seconds(study, {"extract": 10}, cores=2)["extraction"] == pytest.approx(whole / 2)
    assert seconds(study, {"extract": 10}, cores=1000)["extraction"] == pytest.approx(
        whole / 10
    )  # the longest


def test_downloads_take_what_the_connection_takes(study: Study) -> None:
    each = LEAST_SECONDS + (GIGABYTES * 1e9 + 1e7) / DOWNLOAD_BYTES  # 10 MB for its log
    assert seconds(study, {"download": 5})["downloads"] == pytest.approx(5 * each)


def test_downloads_fill_no_more_of_the_disk_than_their_budget(study: Study) -> None:
    def megabytes(study: Study) -> float:
        return stages_of(Jobs(study), {"download": 5}, cores=1)["downloads"].megabytes

    assert megabytes(study) == pytest.approx(5 * (GIGABYTES * 1000 + 10))
    assert megabytes(replace(study, disk_budget_bytes=10**9)) == 1000
    kept = replace(study, disk_budget_bytes=10**9, keep_weights=True)
    assert megabytes(kept) == pytest.approx(5 * (GIGABYTES * 1000 + 10))


def test_activations_that_pass_through_are_counted_once(study: Study) -> None:
    passing = replace(study, keep_activations=False)
    stays = stages_of(Jobs(study), {"extract": 10}, cores=1)["extraction"]
    passes = stages_of(Jobs(passing), {"measure_cell_26": 10}, cores=1)["measuring"]
    assert passes.jobs == 10
    assert passes.megabytes < stays.megabytes


def test_the_first_line_is_the_whole(study: Study) -> None:
    stages = stages_of(Jobs(study), {"download": 5, "figures": 1}, cores=2)
    lines = describe_stages(stages, cores=2, gpus=0).splitlines()
    assert lines[0] == "About 111 s on this machine (2 cores, no GPUs), 2.56 GB of disk at most."
    assert lines[2].split() == ["stage", "jobs", "time", "disk"]
    assert [line.split("  ")[0] for line in lines[3:-1]] == ["downloads", "tables and pages", "all"]
    assert describe_stages({}, cores=2, gpus=0) == "Nothing to run: the study is complete."


def test_the_disk_of_texts_is_that_of_the_studys_own(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("a word " * 500_000)  # 3.5 MB
    (tmp_path / "models.yaml").write_text(json.dumps({"run": {**ENTRY, "gigabytes": GIGABYTES}}))
    texts = {"mine": {"path": str(tmp_path / "mine.txt")}, "unused": {"hf": {"path": "owner/rows"}}}
    config = {
        "models": ["run"],
        "datasets": ["mine"],
        "checkpoints": {"log": 2},
        "truncation": False,
        "registry": {
            "models": "models.yaml",
            "datasets": {"texts": texts, "datasets": {"mine": {"text": "mine"}}},
        },
    }
    stages = stages_of(Jobs(load_study(config, tmp_path)), {"fetch_text": 1}, cores=1)
    assert stages["texts and tokens"].megabytes == LEAST_DISK_MEGABYTES + 3
