"""Studies on a real SLURM, through the shipped profile: what jobs are given, and what may go wrong on the way."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hub_process import HubProcess
from runs import ENTRY, published, write_registry
from safetensors.torch import load_file, save_file

from .cluster import Cluster, Job, wait_until
from .results import same_archives, same_tables
from .study import (
    FILES,
    MODELS,
    TABLES,
    Declared,
    SlurmStudy,
    SnakemakeRun,
    copy_pretrained,
    make_study,
    place_of,
    run_here,
    write,
    write_profile,
)

DECODER, ENCODER = "results/metrics/decoder.parquet", "results/metrics/encoder.parquet"
LACKING = "gpt_neox.layers.1.mlp.dense_4h_to_h.weight"
# There is no GPU here, but the cluster counts some; extraction finds none and runs on the CPU.
ON_GPUS = ("--set-resources", "extract:gpu=1", "extract:slurm_partition=gpu")


def by_comment(jobs: list[Job]) -> dict[str, list[Job]]:
    found: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        found[job.comment].append(job)
    return found


def ran_once(jobs: list[Job]) -> None:
    """No finished work was done again: each job was completed once."""
    for comment, runs in by_comment(jobs).items():
        assert [job.state for job in runs].count("COMPLETED") == 1, (comment, runs)


# ---- A whole study, in which one checkpoint is broken ------------------------------------------------------


@dataclass
class Finished:
    """A study that ran with a broken model, and then without it."""

    study: SlurmStudy
    declared: dict[str, Declared]
    first: SnakemakeRun
    jobs: list[Job]  # of the first run
    second: SnakemakeRun


def add_broken_model(study: Path, checkpoint: Path) -> None:
    """Add a model whose only checkpoint lacks a tensor, which nobody sees before it is loaded."""
    shutil.copytree(checkpoint, study / "broken/checkpoint-16")
    file = study / "broken/checkpoint-16/model.safetensors"
    weights = load_file(file)
    del weights[LACKING]
    save_file(weights, file, metadata={"format": "pt"})
    write(study / "models.yaml", {**MODELS, "broken": {"kind": "decoder", "folder": "broken"}})
    models = [*FILES["config"]["models"], {"broken": {"checkpoints": "last"}}]
    write(study / "config.yaml", {**FILES["config"], "models": models})


@pytest.fixture(scope="module")
def finished(
    running_cluster: Cluster, profile: Path, local: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Finished]:
    path = tmp_path_factory.mktemp("finished") / "study"
    make_study(path)
    add_broken_model(path, local / "results/pretrained/decoder/checkpoint-16")
    study = SlurmStudy(path, running_cluster, profile)
    declared = study.declared(TABLES, *ON_GPUS)
    first = study.run(TABLES, *ON_GPUS)
    jobs = study.jobs()
    write(path / "config.yaml", FILES["config"])
    yield Finished(study, declared, first, jobs, second=study.run(TABLES, *ON_GPUS))
    running_cluster.clear()


def test_a_broken_checkpoint_ends_the_run_badly_after_all_that_does_not_need_it(finished: Finished) -> None:
    assert finished.first.process.returncode != 0
    failed = {job.comment for job in finished.jobs if job.has_failed}
    assert failed == {"rule_extract_wildcards_broken_checkpoint-16_wiki"}
    plan = finished.declared.values()
    undone = {job.comment for job in plan} - set(by_comment(finished.jobs)) - local_comments(finished.first)
    assert undone == {
        *(job.comment for job in plan if job.rule == "measure" and "broken" in job.comment),
        "rule_gather_wildcards_broken",
        "rule_tables",
    }


def test_the_log_that_a_failure_names_says_why(finished: Finished) -> None:
    named = re.search(
        r"Error in rule extract:.*?\n    log: (\S+?)[, ].*?check log", finished.first.output, re.DOTALL
    )
    assert named, finished.first.output
    log = (finished.study.path / named[1]).read_text()
    assert LACKING in log
    assert log.strip().splitlines()[-1] in finished.first.output


def test_results_are_those_of_a_run_without_a_cluster_to_the_last_bit(
    finished: Finished, local: Path
) -> None:
    finished.second.succeed()
    same_tables(local, finished.study.path)
    same_archives(local, finished.study.path, ("decoder", "encoder"))


def local_comments(run: SnakemakeRun) -> set[str]:
    return {comment for comment, starts in run.started.items() if any(start.local for start in starts)}


def test_what_is_short_runs_where_snakemake_does(finished: Finished) -> None:
    rules = {job.rule for starts in finished.first.started.values() for job in starts if not job.local}
    assert rules == {"pretrain", "extract", "measure"}
    assert local_comments(finished.first).isdisjoint(by_comment(finished.jobs))
    assert [job.comment for job in finished.study.jobs()] == [job.comment for job in finished.jobs]
    assert local_comments(finished.second) == {"rule_tables"}


def given(job: Job) -> tuple[object, ...]:
    return job.account, job.partition, job.megabytes, job.minutes, job.cpus, job.gpus


def wanted(job: Declared) -> tuple[object, ...]:
    names = ("slurm_account", "slurm_partition", "mem_mb", "runtime")
    return *(job.resources[name] for name in names), job.threads, job.resources.get("gpu", 0)


def test_every_job_is_given_what_its_rule_declares(finished: Finished) -> None:
    jobs = by_comment(finished.jobs)
    submitted = set(finished.first.started) - local_comments(finished.first)
    assert submitted == set(jobs)
    for comment in submitted:
        starts = finished.first.started[comment]
        assert [given(job) for job in jobs[comment]] == [wanted(start) for start in starts], comment
        assert given(jobs[comment][0]) == wanted(finished.declared[comment]), comment
    assert {(job.partition, job.gpus) for job in finished.jobs} == {("cpu", 0), ("gpu", 1)}


def test_every_retry_is_given_more_memory_and_time(finished: Finished) -> None:
    retried = [runs for runs in by_comment(finished.jobs).values() if len(runs) > 1]
    assert [len(runs) for runs in retried] == [3]  # the profile's two retries of the broken checkpoint
    for earlier, later in zip(retried[0], retried[0][1:], strict=False):
        assert later.megabytes > earlier.megabytes
        assert later.minutes > earlier.minutes


# ---- What a job may die of ---------------------------------------------------------------------------------


def test_a_job_over_its_memory_or_its_time_is_run_again_with_more(
    pretrained: SlurmStudy, local: Path
) -> None:
    pretrained.hold("measure")
    run = pretrained.start(ENCODER, "--set-resources", "extract:mem_mb=100 * 20 ** (attempt - 1)")
    run.wait_until(lambda: pretrained.held("measure"), "a job that measures")
    (slow,) = pretrained.held("measure")
    pretrained.cluster.end_its_time(slow)
    run.wait_until(lambda: pretrained.jobs("measure")[0].state == "TIMEOUT", "the end of its time")
    pretrained.release("measure")
    run.succeed()
    extract, measure = pretrained.jobs("extract"), pretrained.jobs("measure")
    assert [job.megabytes for job in extract] == [100, 2000]
    assert extract[0].state in ("FAILED", "OUT_OF_MEMORY")
    assert extract[1].state == "COMPLETED"
    assert [job.state for job in measure] == ["TIMEOUT", "COMPLETED"]
    first, second = run.started[slow.comment]
    assert (slow.minutes, measure[1].minutes) == (first.resources["runtime"], second.resources["runtime"])
    assert slow.minutes < measure[1].minutes
    same_archives(local, pretrained.path, ("encoder",))


def test_a_study_outlives_a_cancelled_job_a_dead_node_and_daemons_that_are_killed(
    pretrained: SlurmStudy, local: Path
) -> None:
    cluster, cells = pretrained.cluster, 2
    pretrained.hold("extract")
    run = pretrained.start(DECODER)
    run.wait_until(lambda: len(pretrained.held("extract")) == cells, "extraction of all cells")
    cancelled, other = pretrained.held("extract")
    cluster.cancel(cancelled)
    run.wait_until(lambda: len(run.started[cancelled.comment]) == 2, "a second try of a cancelled job")
    run.wait_until(lambda: len(pretrained.held("extract")) == cells, "a second try that runs")
    for daemon in ("slurmctld", "slurmdbd", other.node):
        cluster.kill_daemon(daemon)
        cluster.start()
    pretrained.hold("measure")
    pretrained.release("extract")
    run.wait_until(lambda: len(pretrained.held("measure")) == cells, "measuring of all cells")
    lost = pretrained.held("measure")
    cluster.kill_node(lost[0].node)
    wait_until(lambda: not pretrained.held("measure"), "SLURM's notice of a dead node")
    cluster.start_now(lost)
    pretrained.release("measure")
    run.succeed()
    ran_once(pretrained.jobs())
    assert [job.state for job in pretrained.jobs("extract")].count("CANCELLED") == 1
    assert {job.node for job in pretrained.jobs("measure") if job.state == "COMPLETED"}.isdisjoint(
        job.node for job in lost
    )
    same_archives(local, pretrained.path, ("decoder",))


def test_a_killed_snakemake_goes_on_where_it_was(pretrained: SlurmStudy, local: Path) -> None:
    pretrained.hold("measure")
    killed = pretrained.start(DECODER)
    killed.wait_until(lambda: len(pretrained.held("measure")) == 2, "measuring of all cells")
    killed.kill()
    assert len(pretrained.held("measure")) == 2  # SLURM knows nothing of it
    pretrained.cluster.clear()
    pretrained.release("measure")
    locked = pretrained.run(DECODER)
    assert locked.process.returncode != 0
    assert "--unlock" in locked.output
    pretrained.run("--unlock").succeed()
    pretrained.run(DECODER).succeed()
    ran_once(pretrained.jobs())
    assert len(pretrained.jobs("extract")) == 2
    assert len(pretrained.jobs("measure")) == 4
    same_archives(local, pretrained.path, ("decoder",))


def test_a_study_in_one_allocation_is_a_study_on_a_workstation(
    cluster: Cluster, local: Path, tmp_path: Path
) -> None:
    """One large job in the place of many: the command of docs/cluster.md."""
    study = tmp_path / "study"
    copy_pretrained(local, study)
    snakemake = shlex.join(map(str, [sys.executable, "-m", "snakemake", *place_of(study)]))
    room = "--resources mem_mb=$SLURM_MEM_PER_NODE --cores $SLURM_CPUS_PER_TASK"
    command = f"{snakemake} {room} {DECODER}"
    asked = ["--account=lab", "--partition=cpu", "--cpus-per-task=2", "--mem=6G", "--time=20"]
    output = tmp_path / "allocation.log"
    batch = ["sbatch", "--wait", f"--output={output}", f"--chdir={study}", *asked, "--wrap", command]
    done = subprocess.run(batch, env=cluster.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + (output.read_text() if output.exists() else "")
    same_archives(local, study, ("decoder",))


# ---- What a profile may say wrong --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "wrong"), [("slurm_account", "nobodys-account"), ("slurm_partition", "no-such-partition")]
)
def test_a_name_that_the_cluster_does_not_know_ends_the_run_and_is_named(
    setting: str, wrong: str, pretrained: SlurmStudy, tmp_path: Path
) -> None:
    pretrained.profile = write_profile(tmp_path / "wrong", **{setting: wrong})
    run = pretrained.run(TABLES)
    assert run.process.returncode != 0
    assert wrong in run.output
    assert not pretrained.jobs()


# ---- Nodes without a network -------------------------------------------------------------------------------


def test_nodes_need_no_network(cluster: Cluster, profile: Path, tmp_path: Path) -> None:
    hub = HubProcess(tmp_path / "hub")
    try:
        published(hub, steps=(0, 16))
        path = tmp_path / "study"
        make_study(path)
        shutil.copy(path / "wikipedia.txt", path / "text.txt")
        write_registry(path, {"tiny": ENTRY})
        shutil.copytree(path, tmp_path / "here")
        address = hub.endpoint.removeprefix("http://").replace(":", "/")
        home = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home")}
        study = SlurmStudy(path, cluster, profile, **home, NODE_CUT_FROM=address)
        run = study.run(TABLES)
        run.succeed()
        run_here(tmp_path / "here", TABLES, **home)
    finally:
        hub.stop()
    assert {"rule_download_wildcards_tiny_step0", "rule_download_wildcards_tiny_step16"} <= local_comments(
        run
    )
    jobs = study.jobs()
    assert {job.state for job in jobs} == {"COMPLETED"}
    seen = {tuple(line.split()) for line in (study.node / "network").read_text().splitlines()}
    ids = {str(job.id) for job in jobs}
    assert seen == {(job, "outside", "reached") for job in ids} | {(job, "inside", "cut") for job in ids}
    same_tables(tmp_path / "here", path)
    same_archives(tmp_path / "here", path, ("tiny",))
