"""A file of own metrics in a real study: its numbers in the table, its changes in the plan, its faults before it."""

from __future__ import annotations

import os
import subprocess
import sys

import pandas as pd
import pytest
from conftest import REPOSITORY, StudyFolder
from snakemake_output import jobs_of

from lmshape.errors import InputError
from lmshape.store.statistics import read_statistics
from lmshape.study.study import study_of

FILE = '''
import numpy as np
from lmshape.metrics.own import metric

def kurtosis_max(x):
    """Largest kurtosis of a coordinate."""
    centered = x - x.mean(axis=0)
    return ((centered**4).mean(axis=0) / (centered**2).mean(axis=0) ** 2).max()

@metric(interval="draws", low=0, high=1)
def positive_share(x):
    """Share of the entries over 0."""
    return np.mean(x > 0)
'''
BUSY = '''
import os
import numpy as np

def busy(x):
    """Threads of this process that work on matrix products."""
    def worked():
        return {task: int(open(f"/proc/self/task/{task}/schedstat").read().split()[0])
                for task in os.listdir("/proc/self/task")}
    before, square = worked(), np.ones((600, 600))
    for _ in range(8):
        square @ square
    return sum(spent - before.get(task, 0) > 10**7 for task, spent in worked().items())
'''
OWN = {"own_metrics": "mine.py", "metrics": ["spectral", "neighbor", "loss"]}
TABLE = "results/tables/metrics.parquet"


def write(study: StudyFolder, text: str = FILE) -> None:
    (study.path / "mine.py").write_text(text)


def test_own_metrics_stand_in_the_table_and_a_change_measures_them_alone(study_copy: StudyFolder) -> None:
    write(study_copy)
    before = pd.read_parquet(study_copy.path / TABLE)
    study_copy.configure(**OWN)
    run = study_copy.snakemake("--cores", "2", TABLE)
    assert run.returncode == 0, run.stdout
    assert jobs_of(run.stdout) == {"measure_own": 7, "gather": 2, "tables": 1}
    table = pd.read_parquet(study_copy.path / TABLE)
    own = table[table["metric"].isin(["kurtosis_max", "positive_share"])]
    others = table.drop(own.index).reset_index(drop=True)
    pd.testing.assert_frame_equal(others, before, check_categorical=False)
    places = before[before["metric"] == "anisotropy"]  # 6 cells of 4 sites, 1 of 3; two choices of rows
    assert len(places) == 2 * (6 * 4 + 3) and len(own) == 2 * len(places)
    assert (own["ci_low"] < own["value"]).all() and (own["value"] < own["ci_high"]).all()
    assert (own["flag"] == "").all() and set(own["rows"]) == {"all", "no_sink"}
    assert own[own["metric"] == "positive_share"]["value"].between(0, 1).all()

    write(study_copy, FILE + "\n# a comment\n")
    assert study_copy.planned(TABLE) == {}
    write(study_copy, FILE.replace("centered**4", "centered**6"))
    plan = study_copy.snakemake("--dry-run", TABLE).stdout
    assert jobs_of(plan) == {"measure_own": 7, "gather": 2, "tables": 1}
    assert plan.count("Measure your own metrics") == 7


def test_a_job_takes_the_threads_that_it_was_given(study_copy: StudyFolder) -> None:
    """Whatever its environment says: counted by the processor time that each thread has spent."""
    write(study_copy, BUSY)
    study_copy.configure(own_metrics="mine.py", metrics=["own", "spectral"])
    cell = ["--cell", "small-decoder/checkpoint-4/wiki", "--layers", "00-02", "--configfile", "config.yaml"]
    archive = study_copy.path / "results/statistics/small-decoder/checkpoint-4/wiki/own/layers-00-02.h5"
    for threads, others in ((1, "2"), (2, "1")):
        given = {"OMP_NUM_THREADS": others, "OPENBLAS_NUM_THREADS": others}
        given["PYTHONPATH"] = str(REPOSITORY / "workflow")
        given["OPENBLAS_THREAD_TIMEOUT"] = "4"  # else a thread of SciPy's BLAS spins on after its work
        command = [sys.executable, "-m", "lmshape", "run", "measure_own", *cell, "--threads", str(threads)]
        subprocess.run(command, cwd=study_copy.path, env={**os.environ, **given}, check=True)
        _, layers = read_statistics(archive)
        counted = [value for layer in layers for value in layer.arrays["busy"].ravel().tolist()]
        assert set(counted) == {threads}, counted
        archive.unlink()


COUNTING = """
import os, torch
from lmshape.__main__ import main
try:
    main()
finally:
    own = [open(f"/proc/self/task/{task}/schedstat").read() for task in os.listdir("/proc/self/task")]
    print("torch:", torch.get_num_threads(), "busy:", sum(int(spent.split()[0]) > 2 * 10**8 for spent in own))
"""


@pytest.mark.parametrize(
    "job",
    [
        ["extract", "--cell", "small-decoder/checkpoint-4/wiki"],
        ["pretrain", "--run", "small-decoder"],
    ],
    ids=lambda job: job[0],
)
def test_torch_takes_the_threads_that_the_job_was_given(job: list[str], study_copy: StudyFolder) -> None:
    for threads in (1, 2):
        command = [sys.executable, "-c", COUNTING, "run", *job, "--configfile", "config.yaml"]
        environment = {**os.environ, "OMP_NUM_THREADS": "3", "PYTHONPATH": str(REPOSITORY / "workflow")}
        run = subprocess.run(
            [*command, "--threads", str(threads)],
            cwd=study_copy.path,
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        )
        counted = run.stdout.split("torch: ")[1].split(" busy: ")
        assert int(counted[0]) == threads and int(counted[1]) <= threads, run.stdout


@pytest.mark.parametrize(
    ("text", "changes", "fragments"),
    [
        (FILE + "\ndef f(x:\n", {}, ["`own_metrics` = 'mine.py'", "not Python on line 15"]),
        ("", {}, ["mine.py", "no public function"]),
        (FILE, {"own_metrics": "nime.py"}, ["nime.py", "no such file"]),
        ("def anisotropy(x): return 1", {}, ["`anisotropy` is a metric or family of lmshape's"]),
        (FILE, {"metrics": ["kurtosis_mx"]}, ["kurtosis_mx", "Nearest: kurtosis_max"]),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(
    text: str, changes: dict[str, object], fragments: list[str], new_study: StudyFolder
) -> None:
    write(new_study, text)
    new_study.configure(**OWN | changes)
    with pytest.raises(InputError) as error:
        study_of(new_study.path / "config.yaml", new_study.path)
    for fragment in fragments:
        assert fragment in str(error.value)


def test_an_error_in_a_function_names_it_in_the_log(study_copy: StudyFolder) -> None:
    write(study_copy, 'def wrong(x):\n    """Wrong."""\n    return x.no_such_method()\n')
    study_copy.configure(
        own_metrics="mine.py",
        metrics=["own"],
        models=[{"small-decoder": {"checkpoints": [0], "datasets": ["wiki-random"]}}],
    )
    run = study_copy.snakemake("--cores", "2", "--show-failed-logs", TABLE)
    assert run.returncode != 0
    assert "`wrong` of `mine.py` failed: AttributeError on line 3" in run.stdout, run.stdout
    assert "Traceback" not in run.stdout.partition("`wrong` of")[2]
