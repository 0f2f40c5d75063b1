"""The plan of a study, as `lmshape plan` prints it.

Downloads, disk and floating-point operations of each model; jobs, wall time and disk by stage on this machine; the jobs
that a cluster gets; and verdicts on the checkpoints of published runs.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from math import isnan, nan
from pathlib import Path

from lmshape.checkpoints import Checkpoint
from lmshape.errors import InputError, some_of
from lmshape.hub.integrity import AUDIT_VERDICTS, corrections
from lmshape.jobs import RULES, Jobs
from lmshape.jobs.cells import MeasureCell
from lmshape.jobs.hub import DOWNLOAD_BYTES
from lmshape.jobs.machine import Machine, gpu_count, usable_cores
from lmshape.jobs.rule import Rule, Wildcards, model_flops
from lmshape.progress import gigabytes_above, size_text
from lmshape.store.tokens import LEAST_UNSPELLED
from lmshape.study.costs import activation_bytes, checkpoint_bytes, truncation_flops
from lmshape.study.models import Model
from lmshape.study.registry import REPOSITORY, find_file
from lmshape.study.study import Study
from lmshape.texts.corpus import read_text
from lmshape.texts.tokenizer import TextTokenizer, load_tokenizer, tokenizer_files

GPU_FLOPS = 1e14  # for a rough idea of the time; the docs say what was measured

_JOB_STATISTICS = re.compile(r"^(\w+)\s+(\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPlan:
    """The cost of one model.

    Attributes
    ----------
    model : name
    checkpoints, cells : how many
    download_bytes : of all its checkpoints, 0 for a local run; NaN where it is unknown
    checkpoint_bytes : of the largest of them
    tokens : read in all its cells together
    forward_flops : floating-point operations of the forward passes
    activation_bytes : of the activations of all its cells
    """

    model: str
    checkpoints: int
    cells: int
    download_bytes: float
    checkpoint_bytes: float
    tokens: int
    forward_flops: float
    activation_bytes: int


def whole_plan(study: Study, planned: Mapping[str, int], root: Path, *options: str) -> str:
    """Tell all that is known before a study runs.

    Parameters
    ----------
    study, root : the study and its folder
    planned : jobs still to run, by rule, as Snakemake plans them
    options : of the command line, for the commands that are shown
    """
    cores, gpus = usable_cores(), gpu_count()
    stages = stages_of(Jobs(study, Machine(gpus=gpus)), planned, cores=cores)
    lines = (
        describe_stages(stages, cores=cores, gpus=gpus) + "\n",
        describe_plan(plan_of(study), study, planned),
        describe_submissions(study, planned),
        describe_truncations(study),
        describe_spelling(study, root),
        describe_verdicts(study, *options),
    )
    return "\n".join(filter(None, lines))


def plan_of(study: Study) -> list[ModelPlan]:
    """Plan every model of a study, from its lock, if there is one, else from the registry."""
    return [_plan_model(model, study) for model in study.models.values()]


def disk_peak(plans: Iterable[ModelPlan], study: Study) -> tuple[float, str]:
    """Most bytes of downloaded weights at any moment, and what it rests on."""
    plans = list(plans)
    largest = _largest(one.checkpoint_bytes for one in plans)
    if study.disk_budget_bytes is not None and not study.keep_weights:
        return study.disk_budget_bytes, f"`disk_budget_gb`; it must be at least {_bound(largest)}"
    whole = sum(one.download_bytes for one in plans)
    if study.keep_weights:
        return whole, "all weights, which are kept"
    return whole, f"at most, without `disk_budget_gb`; with it, {_bound(largest)} would do"


def describe_activations(plans: Iterable[ModelPlan], study: Study) -> str:
    """Tell what activations take: they stay in results/, or the job of their cell holds them, or writes to scratch."""
    if study.keep_activations:
        return f"{size_text(sum(one.activation_bytes for one in plans))} that stay in results/"
    rule = MeasureCell(study, Machine(gpus=gpu_count()))
    held = {one.model: rule.held_bytes(Wildcards(model=one.model)) for one in plans}
    passing = [
        activation_bytes(study.models[name], study.sampling.most_tokens)
        for name, size in held.items()
        if not size
    ]
    places = {"memory": max(held.values(), default=0), "scratch": max(passing, default=0)}
    told = [f"{size_text(size)} in {place}" for place, size in places.items() if size] or ["0 B"]
    return f"none stay; while it measures, a job holds up to {', '.join(told)}"


def describe_spelling(study: Study, root: Path) -> str:
    """Tell which texts of this machine do not suit the tokenizer of a model of this machine."""
    lines = []
    for name, model in study.models.items():
        texts = filter(None, map(study.text_of, study.datasets_of[name]))
        plain = {text.name: text.plain_path for text in texts if text.plain_path}
        if plain and tokenizer_files(root / model.tokenizer):
            reader = TextTokenizer(load_tokenizer(root / model.tokenizer, remote_code=model.remote_code))
            shares = {one: reader.unspelled(read_text(root / path)) for one, path in plain.items()}
            lines += [
                f"text       `{one}` does not suit the tokenizer of `{name}`: {share:.1%} of its bytes have no token"
                for one, share in shares.items()
                if share > LEAST_UNSPELLED
            ]
    return "\n".join(lines)


def planned_jobs(configfile: Path, root: Path) -> dict[str, int]:
    """Count the jobs that are still to run, by rule, as Snakemake itself plans them.

    Raises
    ------
    InputError
        When Snakemake cannot plan the study; its words follow.
    """
    _check_cache()
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile"), "--dry-run"]
    # relative to here, as Snakemake has it, and not to the study
    config = find_file(configfile, root=Path.cwd())
    command += ["--quiet", "rules", "--configfile", str(config), "--directory", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"Snakemake cannot plan `{configfile}`:\n{done.stdout}{done.stderr}")
    table = (done.stdout + done.stderr).partition("Job stats:")[2].partition("total")[0]
    return {rule: int(count) for rule, count in _JOB_STATISTICS.findall(table)}


def _check_cache() -> None:
    """Refuse a folder of caches that cannot be written: Snakemake keeps one there, and would end in a traceback."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    with suppress(OSError):
        (folder / "snakemake").mkdir(parents=True, exist_ok=True)
    if not os.access(folder / "snakemake", os.W_OK):
        raise InputError(
            f"`{folder}` cannot be written, and Snakemake keeps a cache there. Name another folder, and run again: "
            "`export XDG_CACHE_HOME=/scratch/$USER/cache`."
        )


def describe_plan(plans: Sequence[ModelPlan], study: Study, jobs: Mapping[str, int]) -> str:
    """Tell the plan as a table and a few lines."""
    peak, why = disk_peak(plans, study)
    known = sum(one.download_bytes for one in plans if not isnan(one.download_bytes))
    unknown = ", ".join(one.model for one in plans if isnan(one.download_bytes))
    rest = f" and that of {unknown}, whose size is unknown" if unknown else ""
    due = ", ".join(f"{count} {rule}" for rule, count in jobs.items()) or "none"
    return "\n".join(
        [
            f"{'model':<24} checkpoints  cells   download  activations         tokens  forward FLOPs",
            *map(_describe_model, plans),
            "",
            f"download   {size_text(known)}{rest}",
            *([f"disk peak  {_size(peak)} of weights ({why})"] if known or unknown else []),
            f"activations {describe_activations(plans, study)}",
            f"forward    {_operations(sum(one.forward_flops for one in plans))}",
            f"jobs       {sum(jobs.values())} still to run: {due}",
        ]
    )


def _describe_model(one: ModelPlan) -> str:
    return (
        f"{one.model:<24} {one.checkpoints:>11} {one.cells:>6} {_size(one.download_bytes):>10} "
        f"{size_text(one.activation_bytes):>12} {one.tokens:>14,} {one.forward_flops:>14.2g}"
    )


def describe_truncations(study: Study) -> str:
    """Tell in one line what the truncations of a study take, beside its extractions; empty where there are none."""
    cells = [cell for model in study.models for cell in study.truncated(model)]
    if not cells or study.truncating is None:
        return ""
    flops = sum(
        truncation_flops(
            study.models[cell.model], study.sampling, study.truncating, rows=study.truncated_rows
        )
        for cell in cells
    )
    counted = "1 cell" if len(cells) == 1 else f"{len(cells)} cells"
    return f"truncation {counted}, {_operations(flops, ' beside')}"


def _operations(flops: float, where: str = "") -> str:
    return f"{flops:.2g} FLOPs{where}: {duration_text(flops / GPU_FLOPS)} on a GPU that reaches 100 TFLOP/s"


def _plan_model(model: Model, study: Study) -> ModelPlan:
    cells = len(model.measured) * len(study.datasets_of[model.name])
    tokens = study.sampling.most_tokens
    sizes = [checkpoint_bytes(model, one) for one in model.measured]
    return ModelPlan(
        model=model.name,
        checkpoints=len(model.checkpoints),
        cells=cells,
        download_bytes=sum(sizes),
        checkpoint_bytes=_largest(sizes),
        tokens=cells * tokens,
        forward_flops=model_flops(study, model),
        activation_bytes=cells * activation_bytes(model, tokens),
    )


def _largest(sizes: Iterable[float]) -> float:
    """Take the largest, NaN if any is unknown: `max` would forget it or not, as it comes."""
    sizes = list(sizes)
    return nan if any(map(isnan, sizes)) else max(sizes, default=0)


def _size(size: float) -> str:
    return "unknown" if isnan(size) else size_text(size)


def _bound(size: float) -> str:
    return "unknown" if isnan(size) else f"{gigabytes_above(size)} GB"


def duration_text(seconds: float) -> str:
    """Write a duration in the largest unit of which there are two."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 1):.0f} s"


def describe_verdicts(study: Study, *options: str) -> str:
    """List the verdicts on the checkpoints of each published run, the skipped ones, and unverified facts.

    Parameters
    ----------
    study : the study
    options : of the command line, which the command that verifies repeats
    """
    models = [model for model in study.models.values() if model.on_hub]
    said: dict[tuple[str, str], list[str]] = {}  # of several models in one line
    for model in models:
        for line in _verdicts_on(model):
            said.setdefault(line, []).append(model.name)
    lines = [f"{head:<10} {', '.join(names)}: {text}" for (head, text), names in said.items()]
    return "\n".join([*lines, *_not_verified(models, " ".join(options))])


def _verdicts_on(model: Model) -> Iterator[tuple[str, str]]:
    from lmshape.hub.client import gate  # imports the hub's client

    if told := gate(model.entry):
        yield "gate", told
    if model.remote_code:
        yield (
            "code",
            f"Python code of {model.entry['repository']} runs with your rights (`remote_code: true`)",
        )
    everyone = [*model.checkpoints.values(), *model.passed_over]
    if any(one.verdict for one in everyone):
        yield "verdicts", f"of the {len(model.checkpoints)} chosen {_sums(model.checkpoints.values())}"
    if model.passed_over:
        names = some_of([one.name for one in model.passed_over])
        yield "skipped", f"{_sums(model.passed_over)} ({names})"
    if model.same:
        equal = [f"{some_of([one.name for one in others])} as {name}" for name, others in model.same.items()]
        yield "equal", f"{'; '.join(equal)} (equal weights are downloaded and measured once)"
    for correction in corrections(model.lock) if model.lock else ():
        yield "registry", correction


def _sums(checkpoints: Iterable[Checkpoint]) -> str:
    counts = Counter(one.verdict or "not verified" for one in checkpoints)
    return ", ".join(f"{counts[name]} {name}" for name in (*AUDIT_VERDICTS, "not verified") if counts[name])


def _not_verified(models: Sequence[Model], options: str) -> Iterator[str]:
    """Name the runs of which the hub was not asked, and the one command that asks."""
    unverified = [model for model in models if model.unverified]
    if unverified:
        names = ", ".join(model.name for model in unverified)
        keys = sorted({key for model in unverified for key in model.entry.get("unverified", ())})
        listed = ", ".join(f"`{key}`" for key in keys)
        of_registry = f", and {listed} of their entries in the registry" if keys else ""
        command = " ".join(filter(None, ["lmshape lock", options]))
        yield (
            f"unverified  the checkpoints of {names}{of_registry}. `{command}` asks the hub, downloads no "
            "weights, and may change what `every` and `log` choose; run it before the study."
        )


@dataclass(frozen=True, slots=True)
class Work:
    """What jobs take together, estimated; works add up.

    Attributes
    ----------
    jobs : how many
    seconds : of wall time on this machine, or of submitted jobs one after the other
    megabytes : of disk that they fill, at most
    overhead_seconds : of scheduling and of starting Python, within the seconds
    """

    jobs: int = 0
    seconds: float = 0.0
    megabytes: float = 0.0
    overhead_seconds: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(*(ours + theirs for ours, theirs in zip(astuple(self), astuple(other), strict=True)))

    @property
    def overhead(self) -> float:
        """Overhead as a share of the jobs' time."""
        return self.overhead_seconds / self.seconds


def stages_of(jobs: Jobs, planned: Mapping[str, int], *, cores: int) -> dict[str, Work]:
    """Estimate the stages of a study that have jobs to run, by name.

    Parameters
    ----------
    jobs : of the study, on this machine
    planned : jobs still to run, by rule, as Snakemake plans them
    cores : that run jobs at once
    """
    due = by_rule(planned)
    found: dict[str, Work] = {}
    for name, rule in jobs.rules.items():
        every = list(rule.jobs())
        if due[name] and every:
            found[rule.stage] = found.get(rule.stage, Work()) + _work(rule, every, due[name], cores)
    return found


def by_rule(planned: Mapping[str, int]) -> Counter[str]:
    """Count planned jobs by rule; `measure_cell_26_layers` and `pretrain_unkept` of the Snakefile are parts of one."""
    counts: Counter[str] = Counter()
    for name, count in planned.items():
        rules = (rule for rule in sorted(RULES, key=len, reverse=True) if name.startswith(rule))
        counts[next(rules, name)] += count
    return counts


def _work(rule: Rule, every: Sequence[Wildcards], count: int, cores: int) -> Work:
    """Estimate some of the jobs of a rule: a usual job, so many times.

    Of the disk, what passes through is that of the largest job.
    """
    share = min(count / len(every), 1.0)
    seconds, core_seconds = [], []
    for job in every:
        threads = max(rule.threads(job), 1)
        took = rule.usual_seconds(job, threads)
        seconds.append(took)
        core_seconds.append(took * (cores if rule.alone or rule.gpus(job) else min(threads, cores)))
    of_each = list(map(rule.disk_megabytes, every))
    passing = max(of_each) + count / len(every) * sum(map(rule.kept_megabytes, every))
    return Work(
        jobs=count,
        seconds=max(share * sum(core_seconds) / cores, max(seconds)),
        megabytes=min(share * sum(of_each), passing, rule.most_megabytes),
    )


def describe_stages(stages: Mapping[str, Work], *, cores: int, gpus: int) -> str:
    """Tell the stages as a table: its first line is the whole."""
    if not stages:
        return "Nothing to run: the study is complete."
    whole = sum(stages.values(), Work())
    here = f"{cores} {'core' if cores == 1 else 'cores'}, {gpus or 'no'} {'GPU' if gpus == 1 else 'GPUs'}"
    lines = [
        f"About {duration_text(whole.seconds)} on this machine ({here}), "
        f"{size_text(whole.megabytes * 1e6)} of disk at most.",
        "",
        f"{'stage':<18}{'jobs':>7}{'time':>13}{'disk':>11}",
    ]
    lines += [
        f"{name:<18}{work.jobs:>7,}{duration_text(work.seconds):>13}{size_text(work.megabytes * 1e6):>11}"
        for name, work in {**stages, "all": whole}.items()
    ]
    return "\n".join(
        [*lines, f"Time is right within a factor of 3; downloads at {DOWNLOAD_BYTES / 1e6:.0f} MB/s."]
    )


# What of it a cluster gets

# Of scheduling, two Snakemakes inside the job and srun: docs/cluster.md has what was measured.
JOB_SECONDS = 10.0
CLUSTER = Machine(on_cluster=True, partition="cpu", gpu_partition="gpu")


def submissions_of(study: Study) -> dict[str, Work]:
    """Estimate the submitted jobs of a study, on the threads that they ask for, by model or pretraining run."""
    found: dict[str, Work] = {}
    for rule in Jobs(study, CLUSTER).rules.values():
        for job in rule.jobs() if rule.submitted else ():
            name, seconds = job.model or job.run, JOB_SECONDS + rule.seconds(job, rule.threads(job))
            one = Work(jobs=1, seconds=seconds, overhead_seconds=JOB_SECONDS + rule.start_seconds)
            found[name] = found.get(name, Work()) + one
    return found


def submitted_of(planned: Mapping[str, int]) -> int:
    """Count the planned jobs that a cluster gets; the others run beside Snakemake."""
    return sum(count for name, count in by_rule(planned).items() if name in RULES and RULES[name].submitted)


def describe_submissions(study: Study, jobs: Mapping[str, int]) -> str:
    """Tell in one line what is submitted of the jobs still to run."""
    submitted = submitted_of(jobs)
    if not submitted:
        return "cluster    nothing to submit"
    whole = sum(submissions_of(study).values(), Work())
    seconds = submitted / whole.jobs * whole.seconds
    time = f"{seconds / 3600:,.0f} hours" if seconds > 36_000 else f"{max(seconds / 60, 1):,.0f} minutes"
    return (
        f"cluster    {submitted} of them submitted, the others run beside Snakemake; about {time} of jobs, "
        f"{whole.overhead:.1%} of it start-up and scheduling"
    )
