"""The remaining cost of a study: jobs, wall time and disk by stage on this machine, and the jobs of a cluster."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lmshape.jobs import Jobs
from lmshape.jobs.graph import every_job
from lmshape.jobs.rule import Machine, Rule, Wildcards
from lmshape.progress import size_text
from lmshape.study.costs import MEASURING_START_SECONDS, START_SECONDS
from lmshape.study.plan import duration_text
from lmshape.study.study import Study

DOWNLOAD_BYTES = 5e7  # per second: a usual connection of an institute
LEAST_SECONDS = 4.0  # of a job: Python starts and imports
ARCHIVE_MEGABYTES = 2  # of a layer, at most

# What a job took on a quiet machine of two cores, over the estimate that its time limit rests on. Limits are for slow
# and shared nodes, and generous: a killed job is lost.
SHARES = {
    "pretrain": 0.13,
    "extract": 0.3,
    "measure": 0.5,
    "measure_cell": 0.4,
    "truncate": 0.3,
    "gather": 0.03,
}
SECONDS = {
    "tables": 10.0,
    "spikes": 10.0,
    "claims": 10.0,
    "figures": 40.0,
    "clean_text": 4.0,
}  # without an estimate
STAGES = {
    "texts and tokens": ("fetch_text", "clean_text", "train_tokenizer", "tokenize"),
    "pretraining": ("pretrain",),
    "downloads": ("resolve", "fetch_tokenizer", "download", "release"),
    "extraction": ("extract",),
    "measuring": ("measure", "measure_own", "measure_cell"),
    "truncation": ("truncate",),
    "tables and pages": ("gather tables spikes truncation_tables claims figures explore index".split()),
}


@dataclass(frozen=True, slots=True)
class Stage:
    """The remaining jobs of a stage.

    Attributes
    ----------
    name : of the stage
    jobs : how many
    seconds : of wall time on this machine, estimated
    megabytes : of disk that it fills, at most
    """

    name: str
    jobs: int
    seconds: float
    megabytes: float


def stages_of(jobs: Jobs, planned: Mapping[str, int], *, cores: int) -> list[Stage]:
    """Estimate the stages of a study that have jobs to run.

    Parameters
    ----------
    jobs : of the study, on this machine
    planned : jobs still to run, by rule, as Snakemake plans them
    cores : that run jobs at once
    """
    every: dict[str, list[Wildcards]] = {}
    for name, job in every_job(jobs.study):
        every.setdefault(name, []).append(job)
    counts = {rule: _count(rule, planned) for rules in STAGES.values() for rule in rules}
    stages = []
    for name, rules in STAGES.items():
        due = [(rule, counts[rule]) for rule in rules if counts[rule] and rule in every]
        parts = [
            (
                _wall_seconds(jobs.rules[rule], rule, every[rule], count, cores),
                _disk(jobs, rule, every[rule], count),
            )
            for rule, count in due
        ]
        if parts:
            stages.append(Stage(name, sum(count for _, count in due), *map(sum, zip(*parts, strict=True))))
    return stages


def _count(rule: str, planned: Mapping[str, int]) -> int:
    """Count the planned jobs of a rule; models of another layout have a `measure_cell_…` of their own."""
    layouts = [name for name in planned if rule == "measure_cell" and name.startswith("measure_cell_")]
    return sum(planned.get(name, 0) for name in [rule, *layouts])


def _wall_seconds(rule: Rule, name: str, every: Sequence[Wildcards], count: int, cores: int) -> float:
    """Estimate the wall time of some of the jobs of a rule: that of a usual job, so many times."""
    seconds, core_seconds = [], []
    for job in every:
        threads = max(rule.threads(job), 1)
        took = _seconds(rule, name, job, threads)
        seconds.append(took)
        alone = rule.gpus(job) or name == "download"  # of one GPU, of one connection
        core_seconds.append(took * (cores if alone else min(threads, cores)))
    share = min(count / len(every), 1.0)
    return max(share * sum(core_seconds) / cores, max(seconds))


def _disk(jobs: Jobs, name: str, every: Sequence[Wildcards], count: int) -> float:
    """Megabytes that some of the jobs of a rule fill, at most; of what passes through, those of the largest job."""
    study = jobs.study
    of_each = [jobs.rules[name].disk_megabytes(job) for job in every]
    whole = min(count / len(every), 1.0) * sum(of_each)
    if name == "measure_cell":
        archives = sum(ARCHIVE_MEGABYTES * (study.models[job.model].blocks + 2) for job in every)
        return min(whole, max(of_each) + archives * count / len(every))
    if name == "download" and study.disk_budget_bytes is not None and not study.keep_weights:
        return min(whole, study.disk_budget_bytes / 1e6)
    return whole


def _seconds(rule: Rule, name: str, job: Wildcards, threads: int) -> float:
    if name == "download":
        return LEAST_SECONDS + rule.disk_megabytes(job) * 1e6 / DOWNLOAD_BYTES
    return max(LEAST_SECONDS, SHARES.get(name, 1.0) * rule.seconds(job, threads), SECONDS.get(name, 0.0))


def usable_cores() -> int:
    """Return the CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe_stages(stages: Iterable[Stage], *, cores: int, gpus: int) -> str:
    """Tell the stages as a table: its first line is the whole."""
    stages = list(stages)
    if not stages:
        return "Nothing to run: the study is complete."
    whole = Stage(
        "all", *(sum(getattr(stage, name) for stage in stages) for name in ("jobs", "seconds", "megabytes"))
    )
    here = f"{cores} {'core' if cores == 1 else 'cores'}, {gpus or 'no'} {'GPU' if gpus == 1 else 'GPUs'}"
    lines = [
        f"About {duration_text(whole.seconds)} on this machine ({here}), "
        f"{size_text(whole.megabytes * 1e6)} of disk at most.",
        "",
        f"{'stage':<18}{'jobs':>7}{'time':>13}{'disk':>11}",
    ]
    lines += [
        f"{stage.name:<18}{stage.jobs:>7,}{duration_text(stage.seconds):>13}{size_text(stage.megabytes * 1e6):>11}"
        for stage in [*stages, whole]
    ]
    return "\n".join(
        [*lines, f"Time is right within a factor of 3; downloads at {DOWNLOAD_BYTES / 1e6:.0f} MB/s."]
    )


# What of it a cluster gets

SUBMITTED = ("pretrain", "extract", "truncate", "measure")  # beginnings of rules; others are local
JOB_SECONDS = (
    10.0  # of scheduling, two Snakemakes inside the job and srun: docs/cluster.md has what was measured
)
CLUSTER = Machine(on_cluster=True, partition="cpu", gpu_partition="gpu")


@dataclass(frozen=True, slots=True)
class Submissions:
    """Jobs together.

    Attributes
    ----------
    jobs : how many
    seconds : of all their time, estimated, on as many threads as they ask for
    overhead_seconds : of scheduling and of starting Python, within that
    """

    jobs: int
    seconds: float
    overhead_seconds: float

    @property
    def share(self) -> float:
        """Overhead as a share of the jobs' time."""
        return self.overhead_seconds / self.seconds


def submissions_of(study: Study) -> dict[str, Submissions]:
    """Estimate the submitted jobs of a study: name of a model, or of a pretraining run → its jobs."""
    rules = Jobs(study, CLUSTER).rules
    found: dict[str, list[tuple[float, float]]] = {}
    for name, job in every_job(study):
        if name.startswith(SUBMITTED):
            start = MEASURING_START_SECONDS if name in ("measure", "measure_own") else START_SECONDS
            work = rules[name].seconds(job, rules[name].threads(job))
            found.setdefault(job.model or job.run, []).append((JOB_SECONDS + work, JOB_SECONDS + start))
    return {name: Submissions(len(jobs), *map(sum, zip(*jobs, strict=True))) for name, jobs in found.items()}


def in_all(every: Iterable[Submissions]) -> Submissions:
    """Sum up submissions."""
    parts = [(one.jobs, one.seconds, one.overhead_seconds) for one in every]
    return Submissions(*map(sum, zip(*parts, strict=True)))


def describe_submissions(study: Study, jobs: Mapping[str, int]) -> str:
    """Tell in one line what is submitted of the jobs still to run."""
    submitted = sum(count for rule, count in jobs.items() if rule.startswith(SUBMITTED))
    if not submitted:
        return "cluster    nothing to submit"
    whole = in_all(submissions_of(study).values())
    return (
        f"cluster    {submitted} of them submitted, the others run beside Snakemake; about "
        f"{_hours(submitted / whole.jobs * whole.seconds)} of jobs, {whole.share:.1%} of it start-up and scheduling"
    )


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:,.0f} hours" if seconds > 36_000 else f"{max(seconds / 60, 1):,.0f} minutes"
