"""What a study submits to a cluster: how many jobs, how long they take, and what of it is start-up and scheduling."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lmshape.jobs import Jobs
from lmshape.jobs.graph import every_job
from lmshape.jobs.rule import Machine
from lmshape.study.costs import MEASURING_START_SECONDS, START_SECONDS
from lmshape.study.study import Study

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


def together(every: Iterable[Submissions]) -> Submissions:
    """Sum up submissions."""
    parts = [(one.jobs, one.seconds, one.overhead_seconds) for one in every]
    return Submissions(*map(sum, zip(*parts, strict=True)))


def describe_submissions(study: Study, jobs: Mapping[str, int]) -> str:
    """Tell in one line what is submitted of the jobs still to run."""
    submitted = sum(count for rule, count in jobs.items() if rule.startswith(SUBMITTED))
    if not submitted:
        return "cluster    nothing to submit"
    whole = together(submissions_of(study).values())
    return (
        f"cluster    {submitted} of them submitted, the others run beside Snakemake; about "
        f"{_hours(submitted / whole.jobs * whole.seconds)} of jobs, {whole.share:.1%} of it start-up and scheduling"
    )


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:,.0f} hours" if seconds > 36_000 else f"{max(seconds / 60, 1):,.0f} minutes"
