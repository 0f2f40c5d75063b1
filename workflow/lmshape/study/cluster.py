"""What the SLURM profile says of the cluster, looked over before a job is submitted.

SLURM refuses a job of a wrong account or partition only when it is submitted, each one again; a study has thousands.
"""

from __future__ import annotations

import builtins
import getpass
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lmshape.errors import InputError, suggest
from lmshape.metrics.registry import OWN_FAMILY
from lmshape.study.costs import (
    MEASURING_START_SECONDS,
    START_SECONDS,
    extraction_seconds,
    measuring_seconds,
    pretraining_seconds,
    threads_of,
    truncation_seconds,
    truncation_wants_gpu,
    wants_gpu,
)
from lmshape.study.models import Model
from lmshape.study.study import Study

PROFILE = "profiles/slurm/config.yaml"
UNSET = "CHANGE_ME"
NO_PARTITION = "none"  # of `gpu_partition`: the cluster has no GPUs for us
ASK = {
    "slurm_account": "sacctmgr --noheader show associations user=$USER format=account",
    "slurm_partition": "sinfo --summarize",
    "gpu_partition": "sinfo --summarize",
}
SECONDS = 30.0  # that SLURM may take to answer


def check_profile(settings: Mapping[str, str | None]) -> None:
    """Refuse an account or a partition that the cluster does not have.

    Where SLURM's commands are missing or do not answer, nothing is said: submitting will.

    Parameters
    ----------
    settings : `slurm_account`, `slurm_partition` and `gpu_partition`, as the profile has them

    Raises
    ------
    InputError
        Naming the setting, its value, what there is, and the file.
    """
    for name, value in settings.items():
        if value == UNSET:
            raise InputError(
                f"`{name}` is {UNSET} in the SLURM profile. Fill it in, in {PROFILE} or a copy of it: "
                f"`{ASK[name]}` lists what there is."
            )
        if value is not None and hasattr(builtins, value):
            raise InputError(
                f"`{name}` is {value} in the SLURM profile, which Snakemake takes for Python. Write it in two pairs of "
                f"quotes: {name}: \"'{value}'\"."
            )
    partitions = _answer(["sinfo", "--noheader", "--format=%R"])
    for name in ("slurm_partition", "gpu_partition"):
        partition = settings.get(name)
        if partition is not None and partition != NO_PARTITION:
            _check(name, partition, partitions)
    user = getpass.getuser()
    accounts = _answer(
        ["sacctmgr", "--noheader", "--parsable2", "show", "associations", f"user={user}", "format=account"]
    )
    account = settings.get("slurm_account")
    if account is not None:
        _check("slurm_account", account, accounts)


def _check(name: str, value: str, known: list[str]) -> None:
    # Several may be named, separated by commas: SLURM, or the executor plugin, chooses.
    for one in filter(None, re.split(r"[,\s]+", value.strip("'\""))):
        # SLURM keeps accounts in lower case, and takes them in any
        if known and one.lower() not in {other.lower() for other in known}:
            raise InputError(
                f"`{name}` is {one} in the SLURM profile; this cluster has no such name.{suggest(one, known)} "
                f"Correct it in {PROFILE}, or your copy of it; `{ASK[name]}` lists what there is."
            )


def _answer(command: list[str]) -> list[str]:
    """Return the lines that a command of SLURM prints, each once; none where it cannot be asked."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return []
    return (
        list(dict.fromkeys(filter(None, map(str.strip, done.stdout.splitlines()))))
        if done.returncode == 0
        else []
    )


SUBMITTED = (
    "pretrain",
    "extract",
    "truncate",
    "measure",
)  # rules by the beginning of their names; others are local
JOB_SECONDS = (
    10.0  # of scheduling, two Snakemakes inside the job and srun: docs/cluster.md has what was measured
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Submissions:
    """Jobs of one model, or of the study's pretraining.

    Attributes
    ----------
    model : name
    jobs : how many, over all rules
    seconds : of all their work, estimated, on as many threads as they ask for
    overhead_seconds : of scheduling and of starting Python, beside that
    """

    model: str
    jobs: int
    seconds: float
    overhead_seconds: float

    @property
    def all_seconds(self) -> float:
        """The jobs' whole time."""
        return self.seconds + self.overhead_seconds

    @property
    def share(self) -> float:
        """Overhead as a share of the jobs' whole time."""
        return self.overhead_seconds / self.all_seconds


def submissions_of(study: Study) -> list[Submissions]:
    """Estimate the submitted jobs of a study, model by model, its pretraining runs last."""
    of_models = [_of_model(model, study) for model in study.models.values()]
    vocabulary = study.pretraining.vocabulary if study.pretraining else 0
    trained = [
        _pretraining(name, pretraining_seconds(recipe, vocabulary)) for name, recipe in study.trained.items()
    ]
    return of_models + trained


def together(every: Sequence[Submissions]) -> Submissions:
    """Sum up the submissions of a study."""
    return Submissions(
        model="",
        jobs=sum(one.jobs for one in every),
        seconds=sum(one.seconds for one in every),
        overhead_seconds=sum(one.overhead_seconds for one in every),
    )


def describe_submissions(study: Study, jobs: Mapping[str, int]) -> str:
    """Tell in one line what is submitted of the jobs still to run."""
    submitted = sum(count for rule, count in jobs.items() if rule.startswith(SUBMITTED))
    if not submitted:
        return "cluster    nothing to submit"
    whole = together(submissions_of(study))
    return (
        f"cluster    {submitted} of them submitted, the others run beside Snakemake; about "
        f"{_hours(submitted / whole.jobs * whole.all_seconds)} of jobs, {whole.share:.1%} of it "
        "start-up and scheduling"
    )


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:,.0f} hours" if seconds > 36_000 else f"{max(seconds / 60, 1):,.0f} minutes"


def _of_model(model: Model, study: Study) -> Submissions:
    cells = len(model.checkpoints) * len(study.datasets_of[model.name])
    threads, device = threads_of(model), study.extraction.device
    on_gpu = wants_gpu(model, study.sampling) if device == "auto" else device != "cpu"
    extraction = extraction_seconds(model, study.sampling, threads=threads, on_gpu=on_gpu)
    measuring = _measuring(model, study, threads=threads)
    work = extraction - START_SECONDS + sum(one - MEASURING_START_SECONDS for one in measuring)
    jobs = 1 + len(measuring)
    start = START_SECONDS + MEASURING_START_SECONDS * len(measuring)
    truncating = _truncating(model, study, threads=threads)
    return Submissions(
        model=model.name,
        jobs=cells * jobs + len(truncating),
        seconds=cells * work + sum(truncating) - START_SECONDS * len(truncating),
        overhead_seconds=cells * (JOB_SECONDS * jobs + start)
        + (JOB_SECONDS + START_SECONDS) * len(truncating),
    )


def _truncating(model: Model, study: Study, *, threads: int) -> list[float]:
    """Seconds of each truncation of a model."""
    cells, truncating, rows = study.truncated(model.name), study.truncating, study.rows
    if not cells or truncating is None:
        return []
    on_gpu = study.extraction.device != "cpu"
    if study.extraction.device == "auto":
        on_gpu = truncation_wants_gpu(model, study.sampling, truncating, rows=rows)
    seconds = truncation_seconds(model, study.sampling, truncating, rows=rows, threads=threads, on_gpu=on_gpu)
    return [seconds] * len(cells)


def _measuring(model: Model, study: Study, *, threads: int) -> list[float]:
    """Seconds of the measuring jobs of a cell: a block of layers each, the user's own metrics apart."""
    library = [family for family in study.measured_families if family != OWN_FAMILY]
    own = [family for family in study.measured_families if family == OWN_FAMILY]
    blocks = study.blocks_of(model.name)
    return [
        measuring_seconds(
            model.width,
            study.sampling,
            families=families,
            rows=study.rows,
            sites=last - first + 1 + (last == model.blocks),  # the final norm goes with the last block
            threads=threads,
            metrics=study.metrics,
        )
        for families in filter(None, (library, own))
        for first, last in blocks
    ]


def _pretraining(name: str, seconds: float) -> Submissions:
    overhead = JOB_SECONDS + START_SECONDS
    return Submissions(model=name, jobs=1, seconds=seconds - START_SECONDS, overhead_seconds=overhead)
