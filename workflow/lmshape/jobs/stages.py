"""The remaining cost of a study: jobs, wall time and disk by stage on this machine, and the jobs of a cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lmshape.jobs import RULES, Jobs
from lmshape.jobs.hub import DOWNLOAD_BYTES
from lmshape.jobs.machine import Machine
from lmshape.jobs.rule import Rule, Wildcards
from lmshape.progress import size_text
from lmshape.study.plan import duration_text
from lmshape.study.study import Study


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
    due = by_rule(planned)
    found: dict[str, list[Stage]] = {}
    for name, rule in jobs.rules.items():
        every = list(rule.jobs())
        if due[name] and every:
            seconds = _wall_seconds(rule, every, due[name], cores)
            found.setdefault(rule.stage, []).append(
                Stage(rule.stage, due[name], seconds, _disk(rule, every, due[name]))
            )
    return [_sum(name, stages) for name, stages in found.items()]


def by_rule(planned: Mapping[str, int]) -> Counter[str]:
    """Count planned jobs by rule; `measure_cell_26_layers` and `pretrain_unkept` of the Snakefile are parts of one."""
    counts: Counter[str] = Counter()
    for name, count in planned.items():
        rules = (rule for rule in sorted(RULES, key=len, reverse=True) if name.startswith(rule))
        counts[next(rules, name)] += count
    return counts


def _sum(name: str, stages: Iterable[Stage]) -> Stage:
    parts = [(stage.jobs, stage.seconds, stage.megabytes) for stage in stages]
    return Stage(name, *map(sum, zip(*parts, strict=True)))


def _wall_seconds(rule: Rule, every: Sequence[Wildcards], count: int, cores: int) -> float:
    """Estimate the wall time of some of the jobs of a rule: that of a usual job, so many times."""
    seconds, core_seconds = [], []
    for job in every:
        threads = max(rule.threads(job), 1)
        took = rule.usual_seconds(job, threads)
        seconds.append(took)
        core_seconds.append(took * (cores if rule.alone or rule.gpus(job) else min(threads, cores)))
    share = min(count / len(every), 1.0)
    return max(share * sum(core_seconds) / cores, max(seconds))


def _disk(rule: Rule, every: Sequence[Wildcards], count: int) -> float:
    """Megabytes that some of the jobs of a rule fill, at most; of what passes through, those of the largest job."""
    of_each, share = list(map(rule.disk_megabytes, every)), min(count / len(every), 1.0)
    passing = max(of_each) + count / len(every) * sum(map(rule.kept_megabytes, every))
    return min(share * sum(of_each), passing, rule.most_megabytes)


def describe_stages(stages: Iterable[Stage], *, cores: int, gpus: int) -> str:
    """Tell the stages as a table: its first line is the whole."""
    stages = list(stages)
    if not stages:
        return "Nothing to run: the study is complete."
    whole = _sum("all", stages)
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
    found: dict[str, list[tuple[float, float]]] = {}
    for rule in Jobs(study, CLUSTER).rules.values():
        for job in rule.jobs() if rule.submitted else ():
            work = rule.seconds(job, rule.threads(job))
            parts = JOB_SECONDS + work, JOB_SECONDS + rule.start_seconds
            found.setdefault(job.model or job.run, []).append(parts)
    return {name: Submissions(len(jobs), *map(sum, zip(*jobs, strict=True))) for name, jobs in found.items()}


def submitted_of(planned: Mapping[str, int]) -> int:
    """Count the planned jobs that a cluster gets; the others run beside Snakemake."""
    return sum(count for name, count in by_rule(planned).items() if name in RULES and RULES[name].submitted)


def in_all(every: Iterable[Submissions]) -> Submissions:
    """Sum up submissions."""
    parts = [(one.jobs, one.seconds, one.overhead_seconds) for one in every]
    return Submissions(*map(sum, zip(*parts, strict=True)))


def describe_submissions(study: Study, jobs: Mapping[str, int]) -> str:
    """Tell in one line what is submitted of the jobs still to run."""
    submitted = submitted_of(jobs)
    if not submitted:
        return "cluster    nothing to submit"
    whole = in_all(submissions_of(study).values())
    return (
        f"cluster    {submitted} of them submitted, the others run beside Snakemake; about "
        f"{_hours(submitted / whole.jobs * whole.seconds)} of jobs, {whole.share:.1%} of it start-up and scheduling"
    )


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:,.0f} hours" if seconds > 36_000 else f"{max(seconds / 60, 1):,.0f} minutes"
