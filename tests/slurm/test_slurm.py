"""Studies on a real SLURM, through the shipped profile: what jobs are given, and what may go wrong on the way."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hub_process import HubProcess
from runs import ENTRY, published, write_registry
from safetensors.torch import load_file, save_file
from snakemake_output import told_missing
from studies import configure
from warm_python import warm_variables

from lmshape.jobs import Jobs, Machine
from lmshape.study.study import study_of

from .cluster import ACCOUNT, GPU_PARTITION, PARTITION, Cluster, Job, wait_until
from .results import same_archives, same_tables
from .study import (
    FILES,
    MODELS,
    TABLES,
    SlurmStudy,
    SnakemakeRun,
    copy_pretrained,
    make_study,
    place_of,
    start_here,
    write,
    write_profile,
)

DECODER, ENCODER = "results/metrics/decoder.parquet", "results/metrics/encoder.parquet"
LACKING = "gpt_neox.layers.1.mlp.dense_4h_to_h.weight"
CELL = ("model", "checkpoint", "dataset")
WILDCARDS = {"pretrain": ("run",), "extract": CELL, "measure": (*CELL, "first", "last")}
# There is no GPU here, but the cluster counts some; extraction finds none and runs on the CPU.
ON_GPUS = ("--set-resources", "extract:gpu=1", "extract:slurm_partition=gpu")
# Jobs that want a GPU by their rule end before they would use it: one out of memory, one out of time.
ENDED = (
    "--retries",
    "0",
    "--set-resources",
    "extract:mem_mb=60 if wildcards.checkpoint == 'checkpoint-0' else 2000",
    "measure:slurm_partition=no-such-partition",
)


def by_comment(jobs: list[Job]) -> dict[str, list[Job]]:
    found: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        found[job.comment].append(job)
    return found


def ran_once(jobs: list[Job]) -> None:
    """No finished work was done again: each job was completed once."""
    for comment, runs in by_comment(jobs).items():
        assert [job.state for job in runs].count("COMPLETED") == 1, (comment, runs)


# ---- Three studies at once, since a cluster makes them wait -------------------------------------------------


@dataclass
class AtOnce:
    """Studies that ran on the cluster at the same time.

    Attributes
    ----------
    broken, first, jobs : a study with a broken model, its first run and the jobs of it
    failing, ended : a study whose jobs SLURM ends or refuses, and its run
    allocated, allocation : a study in one large job, and the end of that job
    """

    broken: SlurmStudy
    first: SnakemakeRun
    jobs: list[Job]
    failing: SlurmStudy
    ended: SnakemakeRun
    allocated: Path
    allocation: subprocess.CompletedProcess[str]


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


def allocate(cluster: Cluster, study: Path) -> subprocess.Popen[str]:
    """Submit one large job in the place of many: the command of docs/cluster.md."""
    snakemake = shlex.join(map(str, [sys.executable, "-m", "snakemake", *place_of(study)]))
    room = "--resources mem_mb=$SLURM_MEM_PER_NODE --cores $SLURM_CPUS_PER_TASK"
    asked = ["--account=lab", "--partition=cpu", "--cpus-per-task=2", "--mem=6G", "--time=20"]
    batch = ["sbatch", "--wait", f"--output={study}.log", f"--chdir={study}", *asked]
    command = [*batch, "--wrap", f"{snakemake} {room} {DECODER}"]
    return subprocess.Popen(command, env=cluster.environment, stderr=subprocess.PIPE, text=True)


def in_time(failing: SlurmStudy) -> list[Job]:
    """The job of a study run with `ENDED` that has memory enough."""
    return [job for job in failing.held("extract") if "checkpoint-16" in job.wildcards]


@pytest.fixture(scope="module")
def at_once(
    running_cluster: Cluster, profile: Path, local: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AtOnce]:
    folder = tmp_path_factory.mktemp("at-once")
    warm = {name: value for name, value in warm_variables().items() if name != "BASH_ENV"}
    broken = SlurmStudy(folder / "broken", running_cluster, profile, **warm)
    failing = SlurmStudy(folder / "failing", running_cluster, profile)
    make_study(broken.path)
    add_broken_model(broken.path, local / "results/pretrained/decoder/checkpoint-16")
    first = broken.start(TABLES, *ON_GPUS)
    copy_pretrained(local, failing.path, extracted="encoder")
    write(failing.path / "config.yaml", {**FILES["config"], "extraction": {"device": "cuda"}})
    failing.hold("extract")
    ended = failing.start(TABLES, *ENDED)
    copy_pretrained(local, folder / "allocated")
    allocation = allocate(running_cluster, folder / "allocated")
    ended.wait_until(lambda: in_time(failing), "a job that extracts")
    running_cluster.end_its_time(in_time(failing)[0])
    for run in (ended, first):
        run.wait()
    errors = allocation.communicate()[1]
    yield AtOnce(
        broken,
        first,
        broken.jobs(),
        failing,
        ended,
        folder / "allocated",
        subprocess.CompletedProcess("sbatch", allocation.returncode, stderr=errors),
    )
    running_cluster.clear()


def test_a_broken_checkpoint_ends_the_run_badly_after_all_that_does_not_need_it(at_once: AtOnce) -> None:
    assert at_once.first.process.returncode != 0
    failed = {job.comment for job in at_once.jobs if job.has_failed}
    assert failed == {"rule_extract_wildcards_broken_checkpoint-16_wiki"}
    undone = at_once.first.planned - at_once.first.finished
    assert undone == Counter(extract=1, measure=1, gather=1, tables=1)
    assert not (at_once.broken.path / "results/metrics/broken.parquet").exists()


def test_the_log_that_a_failure_names_says_why(at_once: AtOnce) -> None:
    output = at_once.first.output
    named = re.search(r"Error in rule extract:.*?\n    log: (\S+?)[, ].*?check log", output, re.DOTALL)
    assert named, output
    log = (at_once.broken.path / named[1]).read_text()
    assert LACKING in log
    assert log.strip().splitlines()[-1] in output
    told = told_missing(output)
    assert "1 of 4 cells is missing" in told
    assert LACKING in told and named[1] in told


def test_the_last_lines_say_what_slurm_did_to_jobs(at_once: AtOnce) -> None:
    assert at_once.ended.process.returncode != 0
    told = told_missing(at_once.ended.output)
    assert "3 of 3 cells are missing" in told
    for name, reason, advice in (
        ("decoder: checkpoint-0 on wiki", "extract: SLURM ended it (OUT_OF_MEMORY)", "extract:mem_mb=…"),
        ("decoder: checkpoint-16 on wiki", "extract: SLURM ended it (TIMEOUT)", "extract:runtime=…"),
        ("encoder: checkpoint-16 on wiki", "measure: SLURM did not take it: ", "`slurm_partition`"),
    ):
        lines = told.partition(f"  {name}\n")[2].splitlines()
        assert reason in lines[0], told
        assert advice in lines[1], told
        assert "log: results/logs/" in lines[2], told
    assert "did not take it: sbatch: error: invalid partition specified: no-such-partition" in told
    assert " results (truncation of decoder/checkpoint-16/wiki, metrics of decoder, …" in told
    behind = at_once.ended.output.rpartition(told)[2].splitlines()
    assert len(behind) < 11, at_once.ended.output


def test_jobs_that_want_a_gpu_go_to_its_partition(at_once: AtOnce) -> None:
    jobs = at_once.failing.jobs("extract")
    assert [(job.partition, job.gpus) for job in jobs] == 2 * [("gpu", 1)]
    states = sorted(job.state for job in jobs)
    assert states in (
        ["FAILED", "TIMEOUT"],
        ["OUT_OF_MEMORY", "TIMEOUT"],
    )  # with cgroups, SLURM says of memory


def test_a_study_in_one_allocation_is_a_study_on_a_workstation(at_once: AtOnce, local: Path) -> None:
    log = Path(f"{at_once.allocated}.log")
    assert at_once.allocation.returncode == 0, at_once.allocation.stderr + log.read_text()
    same_archives(local, at_once.allocated, ("decoder",))


def declared(study: SlurmStudy, job: Job, attempt: int) -> tuple[object, ...]:
    """What the rule of a job asks for, and the command line with `ON_GPUS`."""
    machine = Machine(on_cluster=True, partition=PARTITION, gpu_partition=GPU_PARTITION)
    jobs = Jobs(study_of(study.path / "config.yaml", study.path), machine)
    wildcards = dict(zip(WILDCARDS[job.rule], job.wildcards, strict=True))
    resources, threads = jobs.resources(job.rule), jobs.threads(job.rule)(wildcards)
    memory = resources["mem_mb"](wildcards, attempt=attempt)
    minutes = resources["runtime"](wildcards, attempt=attempt, threads=threads)
    where = ("gpu", 1) if job.rule == "extract" else ("cpu", 0)
    return ACCOUNT, where[0], memory, minutes, threads, where[1]


def given(job: Job) -> tuple[object, ...]:
    return job.account, job.partition, job.megabytes, job.minutes, job.cpus, job.gpus


def test_every_job_is_given_what_its_rule_declares_and_every_retry_more(at_once: AtOnce) -> None:
    jobs = by_comment(at_once.jobs)
    for runs in jobs.values():
        for attempt, job in enumerate(runs, start=1):
            assert given(job) == declared(at_once.broken, job, attempt)
    assert sorted(map(len, jobs.values()))[-2:] == [
        1,
        3,
    ]  # the profile's two retries of the broken checkpoint


def test_what_is_short_runs_where_snakemake_does(at_once: AtOnce) -> None:
    submitted = Counter(job.rule for job in at_once.jobs if job.state == "COMPLETED")
    assert submitted == Counter(pretrain=2, extract=3, measure=3)
    assert {"fetch_text", "tokenize", "gather"} <= set(at_once.first.finished - submitted)


def test_results_are_those_of_a_run_without_a_cluster_to_the_last_bit(at_once: AtOnce, local: Path) -> None:
    study = at_once.broken
    write(study.path / "config.yaml", FILES["config"])
    second = study.run(TABLES, *ON_GPUS)
    second.succeed()
    assert second.finished == Counter(tables=1)
    assert [job.id for job in study.jobs()] == [job.id for job in at_once.jobs]
    same_tables(local, study.path)
    same_archives(local, study.path, ("decoder", "encoder"))


# ---- What a study outlives ---------------------------------------------------------------------------------


@dataclass
class GoneOn:
    """A study whose jobs ran out of memory and time, and whose Snakemake was killed.

    Attributes
    ----------
    slow : the job whose time ended
    running : jobs that ran on after Snakemake was killed
    locked : the run after that, which the lock refuses
    """

    study: SlurmStudy
    slow: Job
    running: list[Job]
    locked: SnakemakeRun


@pytest.fixture(scope="module")
def gone_on(at_once: AtOnce, profile: Path, local: Path, tmp_path_factory: pytest.TempPathFactory) -> GoneOn:
    path = tmp_path_factory.mktemp("gone-on") / "study"
    copy_pretrained(local, path)
    study = SlurmStudy(path, at_once.broken.cluster, profile)
    study.hold("measure")
    killed = study.start(ENCODER, "--set-resources", "extract:mem_mb=100 * 20 ** (attempt - 1)")
    killed.wait_until(lambda: study.held("measure"), "a job that measures")
    (slow,) = study.held("measure")
    study.cluster.end_its_time(slow)
    killed.wait_until(lambda: {job.id for job in study.held("measure")} - {slow.id}, "a second try of it")
    killed.kill()
    running = study.held("measure")
    study.cluster.clear()
    study.release("measure")
    locked = study.run(ENCODER)
    study.run("--unlock").succeed()
    study.run(ENCODER).succeed()
    return GoneOn(study, slow, running, locked)


def test_a_job_over_its_memory_or_its_time_is_run_again_with_more(gone_on: GoneOn) -> None:
    extract, measure = gone_on.study.jobs("extract"), gone_on.study.jobs("measure")
    assert [job.megabytes for job in extract] == [100, 2000]
    assert extract[0].state in ("FAILED", "OUT_OF_MEMORY")
    assert extract[1].state == "COMPLETED"
    assert [job.state for job in measure] == ["TIMEOUT", "CANCELLED", "COMPLETED"]
    assert (measure[1].megabytes, measure[1].minutes) == (
        2 * gone_on.slow.megabytes,
        2 * gone_on.slow.minutes,
    )


def test_a_killed_snakemake_goes_on_where_it_was(gone_on: GoneOn, local: Path) -> None:
    assert len(gone_on.running) == 1  # SLURM knows nothing of it
    assert gone_on.locked.process.returncode != 0
    assert "--unlock" in gone_on.locked.output
    ran_once(gone_on.study.jobs())
    same_archives(local, gone_on.study.path, ("encoder",))


def test_a_study_outlives_a_cancelled_job_a_dead_node_and_daemons_that_are_killed(
    pretrained: SlurmStudy, local: Path
) -> None:
    cluster, cells = pretrained.cluster, 2
    pretrained.hold("extract")
    run = pretrained.start(DECODER)
    run.wait_until(lambda: len(pretrained.held("extract")) == cells, "extraction of all cells")
    cancelled, other = pretrained.held("extract")
    cluster.cancel(cancelled)
    run.wait_until(
        lambda: len(by_comment(pretrained.jobs())[cancelled.comment]) == 2, "a second try of a cancelled job"
    )
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


# ---- What a profile may say wrong --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "wrong"), [("slurm_account", "nobodys-account"), ("slurm_partition", "no-such-partition")]
)
def test_a_name_that_the_cluster_does_not_know_ends_the_run_and_is_named(
    setting: str, wrong: str, cluster: Cluster, tmp_path: Path
) -> None:
    make_study(tmp_path / "study")
    study = SlurmStudy(tmp_path / "study", cluster, write_profile(tmp_path / "wrong", **{setting: wrong}))
    run = study.run(TABLES)
    assert run.process.returncode != 0
    assert wrong in run.output
    assert not study.jobs()


# ---- Nodes without a network -------------------------------------------------------------------------------


def test_nodes_need_no_network_and_a_cell_no_room_for_its_activations(
    cluster: Cluster, profile: Path, tmp_path: Path
) -> None:
    hub = HubProcess(tmp_path / "hub")
    try:
        published(hub, steps=(0, 16))
        path, here = tmp_path / "study", tmp_path / "here"
        make_study(path)
        shutil.copy(path / "wikipedia.txt", path / "text.txt")
        write_registry(path, {"tiny": ENTRY})
        shutil.copytree(path, here)
        configure(path, keep_activations=False)
        address = hub.endpoint.removeprefix("http://").replace(":", "/")
        home = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home")}
        study = SlurmStudy(path, cluster, profile, **home, NODE_CUT_FROM=address)
        run, other = study.start(TABLES), start_here(here, TABLES, **home)
        run.succeed()
        other.succeed()
    finally:
        hub.stop()
    jobs = study.jobs()
    assert {job.state for job in jobs} == {"COMPLETED"}
    assert sorted((job.rule, *job.wildcards) for job in jobs) == [
        ("measure_cell_3_layers", "tiny", f"step{step}", "wiki") for step in (0, 16)
    ]
    assert run.finished["download"] == 2
    seen = {tuple(line.split()) for line in (study.node / "network").read_text().splitlines()}
    ids = {str(job.id) for job in jobs}
    assert seen == {(job, "outside", "reached") for job in ids} | {(job, "inside", "cut") for job in ids}
    assert not (path / "results/activations").exists()
    same_tables(here, path)
    same_archives(here, path, ("tiny",))
