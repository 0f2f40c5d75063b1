"""A rule of the workflow in Python: inputs, outputs, resources, dependencies and code of its jobs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, partial
from math import inf
from pathlib import Path

from lmshape import paths
from lmshape.errors import InputError, unknown
from lmshape.fingerprint import code_fingerprint
from lmshape.jobs.machine import Machine
from lmshape.study.costs import START_SECONDS, extraction_flops, minutes_for
from lmshape.study.models import Model
from lmshape.study.study import Cell, Study

CONFIG_VARIABLE = "LMSHAPE_CONFIG"  # environment variable, JSON: folder of a study → its whole configuration
DIGEST_DIGITS = 16  # of a digest: 64 bits
LEAST_DISK_MEGABYTES = 10
ARCHIVE_MEGABYTES = 2  # of a layer, at most
LEAST_SECONDS = 4.0  # of a job: Python starts and imports

Files = str | list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wildcards:
    """A job of a rule by the wildcards of its files; empty if the rule has no such wildcard."""

    model: str = ""
    checkpoint: str = ""
    dataset: str = ""
    reader: str = ""
    first: str = ""
    last: str = ""
    text: str = ""
    run: str = ""

    @classmethod
    def of(cls, wildcards: Mapping[str, str]) -> Wildcards:
        """Take the wildcards of a job as Snakemake has them."""
        return cls(**{name: str(value) for name, value in wildcards.items() if name in WILDCARDS})

    @classmethod
    def of_cell(cls, cell: Cell, first: str = "", last: str = "") -> Wildcards:
        """Return the wildcards of a job of a cell, or of a block of its layers."""
        return cls(model=cell.model, checkpoint=cell.checkpoint, dataset=cell.dataset, first=first, last=last)

    @property
    def cell(self) -> Cell:
        """Model, checkpoint and dataset."""
        return Cell(self.model, self.checkpoint, self.dataset)

    @property
    def layers(self) -> tuple[int, int]:
        """First and last layer of a block."""
        return int(self.first), int(self.last)

    def fill(self, pattern: str) -> str:
        """Fill a pattern of `lmshape.paths`."""
        return pattern.format(**{name: getattr(self, name) for name in WILDCARDS})


def cell_wildcards(cell: str) -> dict[str, str]:
    """Read the wildcards of a cell as the command line spells it, MODEL/CHECKPOINT/DATASET.

    Raises
    ------
    InputError
        When it has more or fewer parts.
    """
    names = cell.split("/")
    if len(names) != 3 or not all(names):
        raise InputError(
            f"`--cell {cell}` is not MODEL/CHECKPOINT/DATASET, as in wiki-decoder/checkpoint-64/wiki."
        )
    return dict(zip(("model", "checkpoint", "dataset"), names, strict=True))


def layer_wildcards(layers: str) -> dict[str, str]:
    """Read the wildcards of a block of layers as its files spell it, such as 00-06.

    Raises
    ------
    InputError
        When it is not two numbers.
    """
    first, _, last = layers.partition("-")
    if not (first.isdecimal() and last.isdecimal()):
        raise InputError(f"`--layers {layers}` is not a block of layers, as in 00-06.")
    return paths.layers(int(first), int(last))


WILDCARDS = tuple(field.name for field in fields(Wildcards))


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Resources of a job: CPU threads, and GPUs (None: run by hand, use those of the machine)."""

    threads: int = 1
    gpus: int | None = None


class Rule:
    """One rule of the workflow; each method takes the wildcards of one of its jobs.

    Attributes
    ----------
    stage : under which `lmshape plan` counts its jobs
    submitted : whether a cluster gets its jobs; those of others run beside Snakemake
    brings_weights : whether it looks after what is downloaded, which is the same when it comes once more
    writes : patterns of its outputs
    log_file : pattern of its log
    ancient : Snakemake's flag of a file whose newer date is not a reason to run again
    code : modules or definitions that its numbers depend on, see `lmshape.fingerprint`
    memory_megabytes, time_minutes, disk : what a job needs, where the methods below say nothing else
    rank : priority of its jobs, from which `turns` takes less than 1
    start_seconds : until a job has imported what it needs
    usual_share : what a job took on a quiet machine of two cores, over the estimate that its time limit rests on:
        limits are for slow and shared nodes, and generous, since a killed job is lost
    usual : seconds that it took there, where nothing estimates them
    alone : whether its jobs run one at a time, since they share one connection
    """

    stage: str = "tables and pages"
    submitted: bool = False
    brings_weights: bool = False
    writes: Sequence[str] = ()
    log_file: str
    ancient: Callable[[str], str] = staticmethod(str)
    code: tuple[str, ...] = ()
    memory_megabytes: int = 2000
    time_minutes: int = 30
    disk: int = 100
    rank: float = 0
    start_seconds: float = START_SECONDS
    usual_share: float = 1.0
    usual: float = LEAST_SECONDS
    alone: bool = False

    def __init__(self, study: Study, machine: Machine) -> None:
        self.study = study
        self.machine = machine

    def jobs(self) -> Iterator[Wildcards]:
        """Yield all its jobs in the study."""
        yield Wildcards()

    def inputs(self, job: Wildcards) -> Mapping[str, Files]:
        """Return the files that a job reads by name: the same names for all jobs of the rule."""
        return {}

    def outputs(self, job: Wildcards) -> list[str]:
        """Return the files that a job writes."""
        return [job.fill(pattern) for pattern in self.writes]

    def log(self, job: Wildcards) -> str:
        """Return the log file of a job."""
        return job.fill(self.log_file)

    def facts(self, job: Wildcards) -> object:
        """Return what the result depends on beside inputs and code, as JSON can hold it."""
        return None

    def digest(self, job: Wildcards) -> str:
        """Hash `facts` and code: a job whose digest changes runs again."""
        facts = json.dumps(self.facts(job), sort_keys=True, default=str)
        return hashlib.sha256(f"{facts}\n{self.code_of(job)}".encode()).hexdigest()[:DIGEST_DIGITS]

    def code_of(self, job: Wildcards) -> str:
        """Return the fingerprint of the code behind a job."""
        return code_fingerprint(*self.code) if self.code else ""

    def threads(self, job: Wildcards) -> int:
        """Return the CPU threads of a job."""
        return 1

    def megabytes(self, job: Wildcards) -> int:
        """Return the memory of a job."""
        return self.memory_megabytes

    def seconds(self, job: Wildcards, threads: int) -> float:
        """Estimate the time of a job; 0 where nothing tells."""
        return 0.0

    def minutes(self, job: Wildcards, threads: int) -> int:
        """Return the time limit of a job."""
        seconds = self.seconds(job, threads)
        return minutes_for(seconds) if seconds else self.time_minutes

    def usual_seconds(self, job: Wildcards, threads: int) -> float:
        """Estimate the time of a job on a quiet machine."""
        return max(self.usual, self.usual_share * self.seconds(job, threads))

    def disk_megabytes(self, job: Wildcards) -> int:
        """Return the disk space that a job fills."""
        return self.disk

    def kept_megabytes(self, job: Wildcards) -> int:
        """Return what of it stays filled when the job is done."""
        return self.disk_megabytes(job)

    @property
    def most_megabytes(self) -> float:
        """What all of its jobs fill together, at most."""
        return inf

    def gpus(self, job: Wildcards) -> int:
        """Return the GPUs of a job."""
        return 0

    def priority(self, job: Wildcards) -> float:
        """Return the priority of a job among those that could run."""
        return self.rank - self.turns.get((job.model, job.checkpoint), 0)

    @cached_property
    def turns(self) -> dict[tuple[str, str], float]:
        """Model and checkpoint → its turn among all: 0 for the first, below 1 for the last.

        A checkpoint is finished before the next one is begun, and so is a model. The one with the least to do comes
        first: its figures are there when others have begun.
        """
        models = sorted(self.study.models.values(), key=partial(model_flops, self.study))
        ordered = [(model.name, checkpoint) for model in models for checkpoint in model.measured]
        return {one: place / len(ordered) for place, one in enumerate(ordered)}

    def run(self, job: Wildcards, given: Given) -> None:
        """Do the work of a job; the working directory is the study's."""
        raise NotImplementedError

    def model(self, job: Wildcards) -> Model:
        """Return the model of a job."""
        return self.study.models[job.model]

    def check(self, job: Wildcards) -> None:
        """Refuse a job whose names the study does not have, as may be typed by hand, with the nearest that it has."""
        study, model = self.study, self.study.models.get(job.model)
        known: dict[str, Mapping[str, object]] = {
            "model": study.models,
            "checkpoint": model.checkpoints if model else {},
            "dataset": study.datasets,
            "text": study.texts,
            "run": study.pretraining.runs if study.pretraining else {},
        }
        for what, names in known.items():
            if (name := getattr(job, what)) and name not in names:
                raise unknown(what, name, names)
        if next(self.jobs(), None) is None:
            raise InputError("the study has no job of this rule. `lmshape plan` counts those that it has.")

    @property
    def own_path(self) -> Path | None:
        """File of the user's own metrics."""
        return Path(self.study.own_metrics.path) if self.study.own_metrics else None

    @property
    def own_facts(self) -> list[str]:
        """File of the user's own metrics, and its fingerprint, without comments."""
        return [str(self.own_path), self.study.own_metrics.fingerprint if self.study.own_metrics else ""]


def list_of(files: Files) -> list[str]:
    """Return one file, or several, as a list."""
    return [files] if isinstance(files, str) else files


def model_flops(study: Study, model: Model) -> float:
    """Count the floating-point operations of the forward passes of all cells of a model."""
    cells = len(model.measured) * len(study.datasets_of[model.name])
    return cells * extraction_flops(model, study.sampling)
