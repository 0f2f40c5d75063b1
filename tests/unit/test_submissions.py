"""What `lmshape plan` says of a cluster: jobs as Snakemake plans them, their time, their overhead."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from lmshape.cli import app
from lmshape.jobs.plan import (
    JOB_SECONDS,
    Work,
    describe_submissions,
    planned_jobs,
    submissions_of,
    submitted_of,
)
from lmshape.study.registry import REPOSITORY
from lmshape.study.study import Study, study_of

pytestmark = pytest.mark.slow

PYTHIA = REPOSITORY / "config/studies/pythia.yaml"


@pytest.fixture(scope="module")
def pythia(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return study_of(PYTHIA, tmp_path_factory.mktemp("pythia"))


def first_of(study: Study) -> Work:
    return next(iter(submissions_of(study).values()))


@pytest.mark.parametrize(("keep", "of_cells"), [(True, [12, 30]), (False, [6, 6])])
def test_as_many_jobs_as_snakemake_plans(tmp_path: Path, keep: bool, of_cells: list[int]) -> None:
    chosen = {"models": ["pythia-14m", "pythia-410m"], "checkpoints": [0, 512], "layers_per_job": 8}
    chosen |= {"keep_activations": keep}
    configfile = tmp_path / "study.yaml"
    configfile.write_text(yaml.safe_dump({**yaml.safe_load(PYTHIA.read_text()), **chosen}))
    jobs = planned_jobs(configfile, tmp_path)
    every = list(submissions_of(study_of(configfile, tmp_path)).values())
    assert sum(one.jobs for one in every) == submitted_of(jobs)
    assert [one.jobs for one in every] == [count + 1 for count in of_cells]  # 6 cells, and a truncation, each
    assert describe_submissions(study_of(configfile, tmp_path), jobs).startswith(
        f"cluster    {sum(of_cells) + 2} of them submitted"
    )


def test_rules_that_are_submitted_are_those_that_are_not_local() -> None:
    rules = "\n".join(path.read_text() for path in sorted((REPOSITORY / "workflow/rules").glob("*.smk")))
    lists = "\n".join(re.findall(r"^localrules:\n((?:    \w+,\n)+)", rules, re.M))
    local = set(re.findall(r"^    (\w+),$", lists, re.M))
    named = re.findall(r"^ *(?:use rule \w+ as|rule) (\w+)(?: with)?:", rules, re.M)
    named += re.findall(r'^ *f"(\w+)_\{layout\}"', rules, re.M) + re.findall(r'^    "(\w+)": "', rules, re.M)
    assert {"measure_cell", "measure_own", "tables"} <= set(named)
    assert {rule for rule in named if submitted_of({rule: 1})} == set(named) - local


def test_in_the_pythia_study_overhead_is_under_six_percent(pythia: Study) -> None:
    every = list(submissions_of(pythia).values())
    overhead = sum(one.overhead_seconds for one in every)
    assert overhead / sum(one.seconds for one in every) < 0.06
    shares = [one.overhead for one in every]
    assert shares[0] > 0.1 > 0.02 > shares[-1]  # it is small models whose jobs are short
    assert all(one.overhead_seconds >= JOB_SECONDS * one.jobs for one in every)


def test_the_line(pythia: Study) -> None:
    assert describe_submissions(pythia, {"gather": 3}) == "cluster    nothing to submit"
    every = sum(one.jobs for one in submissions_of(pythia).values())
    whole = describe_submissions(pythia, {"extract": every // 2, "measure": every // 2, "download": 5})
    half = describe_submissions(pythia, {"measure": every // 2})
    hours = [int(re.search(r"about ([\d,]+) hours", line)[1].replace(",", "")) for line in (whole, half)]
    assert whole.startswith(f"cluster    {every} of them submitted")
    assert hours[1] == pytest.approx(hours[0] / 2, abs=1)


def test_users_own_metrics_are_jobs_of_their_own(pythia: Study) -> None:
    own = replace(
        pythia, metrics=("anisotropy", "mine"), own_metrics=type("File", (), {"names": ("mine",)})()
    )
    without = replace(pythia, metrics=("anisotropy",))
    for keep, (with_own, alone) in {True: (3, 2), False: (1, 1)}.items():
        assert first_of(replace(own, keep_activations=keep)).jobs == 54 * with_own + 1
        assert first_of(replace(without, keep_activations=keep)).jobs == 54 * alone + 1


def test_truncations_are_jobs_of_decoders_alone(pythia: Study) -> None:
    without = replace(pythia, truncating=None)
    jobs = [sum(one.jobs for one in submissions_of(study).values()) for study in (pythia, without)]
    assert jobs[0] - jobs[1] == 10  # one of each model
    work = [sum(one.seconds for one in submissions_of(study).values()) for study in (pythia, without)]
    assert work[0] > work[1]
    encoders = {name: replace(model, kind="encoder") for name, model in pythia.models.items()}
    assert first_of(replace(pythia, models=encoders)).jobs == first_of(without).jobs


def test_the_command_line_tells_it(tmp_path: Path) -> None:
    study = ["--configfile", str(REPOSITORY / "config/studies/olmo.yaml"), "--directory", str(tmp_path)]
    told = CliRunner().invoke(app, ["plan", *study], catch_exceptions=False).stdout
    assert re.search(r"^cluster    122 of them submitted", told, re.MULTILINE)
    assert re.search(r"^truncation 2 cells, 1\.4e\+17 FLOPs beside: ", told, re.MULTILINE)
