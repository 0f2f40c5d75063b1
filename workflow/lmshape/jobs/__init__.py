"""The jobs of the workflow: inputs, outputs, resources, dependencies and code of each rule.

The rules in workflow/rules take all of it from `Jobs`; `python -m lmshape run RULE` runs a job, which reads the study
itself. `RULES` lists the rules, and each says which jobs it has: which job makes what another one reads is read off
their files.

Snakemake does not miss a file that a failed job has not made as long as all that was once made of it is there. So each
digest covers the jobs behind: after a failure, whatever shows numbers of before is still to be made.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import TypeVar

from lmshape import paths
from lmshape.jobs import cells, hub, pages, tables, texts
from lmshape.jobs.machine import Machine
from lmshape.jobs.rule import CONFIG_VARIABLE, DIGEST_DIGITS, WILDCARDS, Files, Rule, Wildcards, list_of
from lmshape.study.study import Study

RULES: dict[str, type[Rule]] = {
    "fetch_text": texts.FetchText,
    "clean_text": texts.CleanText,
    "train_tokenizer": texts.TrainTokenizer,
    "pretrain": texts.Pretrain,
    "tokenize": texts.Tokenize,
    "resolve": hub.Resolve,
    "fetch_tokenizer": hub.FetchTokenizer,
    "download": hub.Download,
    "release": hub.Release,
    "extract": cells.Extract,
    "measure": cells.Measure,
    "measure_own": cells.MeasureOwn,
    "measure_cell": cells.MeasureCell,
    "truncate": cells.Truncate,
    "gather": tables.Gather,
    "model_figures": pages.DrawModelFigures,
    "tables": tables.Tables,
    "spikes": tables.Spikes,
    "truncation_tables": tables.TruncationTables,
    "claims": tables.Claims,
    "figures": pages.DrawFigures,
    "explore": pages.Explore,
    "index": pages.Index,
    "report": pages.Report,
}

Step = tuple[str, Wildcards]  # a job: its rule and its wildcards
InputFunction = Callable[[Mapping[str, str]], Files]
F = TypeVar("F", bound=Callable[..., object])
Result = TypeVar("Result")


class Jobs:
    """The jobs of one study on one machine, as the rules ask for them.

    Every method takes the name of a rule and returns functions of Snakemake's wildcards.
    """

    def __init__(
        self, study: Study, machine: Machine | None = None, *, ancient: Callable[[str], str] = str
    ) -> None:
        self.study = study
        self.machine = machine or Machine()
        self.rules = {name: rule(study, self.machine) for name, rule in RULES.items()}
        self._digests: dict[tuple[str, Wildcards], str] = {}
        for rule in self.rules.values():
            rule.ancient = ancient

    def every(self) -> Iterator[Step]:
        """Yield all jobs of the study."""
        return ((name, job) for name, rule in self.rules.items() for job in rule.jobs())

    def behind(self, step: Step) -> list[Step]:
        """Return the jobs that a job takes its results from, but for downloads."""
        if self.rules[step[0]].brings_weights:
            return []
        return [maker for maker in self._makers_of(step) if not self.rules[maker[0]].brings_weights]

    def leading_to(self, step: Step) -> Iterator[Step]:
        """Yield the jobs that lead to a job, each behind those that it needs, and the job itself."""
        for maker in self._makers_of(step):
            yield from self.leading_to(maker)
        yield step

    def _makers_of(self, step: Step) -> list[Step]:
        files = chain(*map(list_of, self.rules[step[0]].inputs(step[1]).values()))
        return list(dict.fromkeys(self._maker[file] for file in files if file in self._maker))

    @cached_property
    def _maker(self) -> dict[str, Step]:
        """File → the job that makes it."""
        return {file: step for step in self.every() for file in self.rules[step[0]].outputs(step[1])}

    def inputs(self, name: str) -> dict[str, InputFunction]:
        """Return the inputs of a rule by name."""
        rule = self.rules[name]

        def files(read: str, job: Wildcards) -> Files:
            return rule.inputs(job)[read]

        names = next((rule.inputs(job) for job in rule.jobs()), {})  # without jobs nobody asks for files
        return {read: _of_wildcards(partial(files, read)) for read in names}

    def digest(self, name: str) -> Callable[..., str]:
        """Return the digest of what the numbers of a job depend on: its own, and those of the jobs behind it."""
        return _of_wildcards(partial(self.whole_digest, name))

    def whole_digest(self, name: str, job: Wildcards) -> str:
        """Hash the digest of a job together with those of the jobs behind it, each once."""
        if (name, job) not in self._digests:
            behind = [self.whole_digest(*step) for step in self.behind((name, job))]
            own = self.rules[name].digest(job)
            whole = hashlib.sha256("\n".join([own, *behind]).encode()).hexdigest()[:DIGEST_DIGITS]
            self._digests[name, job] = whole if behind else own
        return self._digests[name, job]

    def threads(self, name: str) -> Callable[..., int]:
        """Return the CPU threads of a job."""
        return _of_wildcards(self.rules[name].threads)

    def priority(self, name: str) -> Callable[..., float]:
        """Return the priority of a job."""
        return _of_wildcards(self.rules[name].priority)

    def resources(self, name: str) -> dict[str, Callable[..., object]]:
        """Return memory, time and disk of a job, and its GPUs and partition where it reads weights.

        A second attempt asks for twice the memory and time.
        """
        rule = self.rules[name]

        def mem_mb(wildcards: Mapping[str, str], attempt: int) -> int:
            return attempt * rule.megabytes(Wildcards.of(wildcards))

        def runtime(wildcards: Mapping[str, str], attempt: int, threads: int) -> int:
            return attempt * rule.minutes(Wildcards.of(wildcards), threads)

        def slurm_partition(wildcards: Mapping[str, str]) -> str | None:
            gpus = rule.gpus(Wildcards.of(wildcards))
            return (self.machine.gpu_partition if gpus else None) or self.machine.partition

        chosen: dict[str, Callable[..., object]] = {"mem_mb": _signed(mem_mb), "runtime": _signed(runtime)}
        chosen["disk_mb"] = _of_wildcards(rule.disk_megabytes)
        if isinstance(rule, cells.WeightsReader):
            chosen |= {"gpu": _of_wildcards(rule.gpus), "slurm_partition": _signed(slurm_partition)}
        return chosen

    def summary(self, root: Path, *, before: Mapping[Path, float], seen_from: Path) -> str:
        """Name the results that a run has made, as paths from another folder; the page last.

        Parameters
        ----------
        root : the study's folder
        before : `dated_results` of it before the run, which may have made a part of them (`--until`)
        seen_from : the folder that paths are relative to
        """
        made = [path for path, date in dated_results(root).items() if date != before.get(path)]
        told = (f"{RESULTS[str(path.relative_to(root))] + ':':<9} {_from(seen_from, path)}" for path in made)
        return "\n".join(["", *told])


RESULTS = {
    str(paths.TABLES_FOLDER): "Tables",
    str(paths.FIGURES_FOLDER): "Figures",
    paths.EXPLORER_PAGE: "Explorer",
    paths.INDEX_PAGE: "Open",
}


def dated_results(root: Path) -> dict[Path, float]:
    """Return the results of a study that exist, each with the date of its newest file."""
    there = [root / name for name in RESULTS if (root / name).exists()]
    return {path: max(file.stat().st_mtime for file in (path, *path.glob("*"))) for path in there}


def _from(folder: Path, path: Path) -> Path:
    """Return a path relative to a folder that holds it, else in full."""
    return path.relative_to(folder) if path.is_relative_to(folder) else path


def _of_wildcards(function: Callable[[Wildcards], Result]) -> Callable[..., Result]:
    """Make a function of Snakemake's wildcards of one of a job's."""

    def of_wildcards(wildcards: Mapping[str, str]) -> Result:
        return function(Wildcards.of(wildcards))

    return _signed(of_wildcards)


def _signed(function: F) -> F:
    """Keep the signature of a function: Snakemake asks for it several times per job."""
    function.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return function


__all__ = ["CONFIG_VARIABLE", "RULES", "WILDCARDS", "Jobs", "Machine", "Rule", "Wildcards"]
