"""The graph of jobs, read off their files: which job makes what another one reads.

Snakemake does not miss a file that a failed job has not made as long as all that was once made of it is there. So each
digest covers the jobs behind: after a failure, whatever shows numbers of before is still to be made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

from lmshape import paths
from lmshape.jobs.rule import Rule, Wildcards
from lmshape.study.study import Cell, Study

Step = tuple[str, Wildcards]  # a job: its rule and its wildcards

OF_WEIGHTS = ("resolve", "fetch_tokenizer", "download", "release")  # what is downloaded once more is the same
SINGLE = ("train_tokenizer tables spikes truncation_tables claims explore figures index report").split()


class Graph:
    """The jobs of a study.

    Parameters
    ----------
    study, rules : the study and its rules by name
    """

    def __init__(self, study: Study, rules: Mapping[str, Rule]) -> None:
        self._study, self._rules = study, rules

    def behind(self, step: Step) -> list[Step]:
        """Return the jobs that a job takes its results from, but for downloads and what it only waits for."""
        rule = self._rules[step[0]]
        if step[0] in OF_WEIGHTS:
            return []
        makers = self._makers_of(step, [read for read in rule.reads if read not in rule.awaited])
        return [maker for maker in makers if maker[0] not in OF_WEIGHTS]

    def leading_to(self, step: Step) -> Iterator[Step]:
        """Yield the jobs that lead to a job, each behind those that it needs, and the job itself."""
        for maker in self._makers_of(step, self._rules[step[0]].reads):
            yield from self.leading_to(maker)
        yield step

    def _makers_of(self, step: Step, reads: Sequence[str]) -> list[Step]:
        inputs = self._rules[step[0]].inputs(step[1])
        files = [
            file
            for read in reads
            for file in ([inputs[read]] if isinstance(inputs[read], str) else inputs[read])
        ]
        return list(dict.fromkeys(self._maker[file] for file in files if file in self._maker))

    @cached_property
    def _maker(self) -> dict[str, Step]:
        return {
            file: step for step in every_job(self._study) for file in self._rules[step[0]].outputs(step[1])
        }


def every_job(study: Study) -> Iterator[Step]:
    """Yield all jobs of a study."""
    yield from ((rule, Wildcards()) for rule in SINGLE)
    for text in study.texts:
        yield from ((rule, Wildcards(text=text)) for rule in ("fetch_text", "clean_text"))
    yield from (("pretrain", Wildcards(run=run)) for run in study.trained)
    for name, model in study.models.items():
        of_model = ("gather", *(("resolve", "fetch_tokenizer") if model.on_hub else ()))
        yield from ((rule, Wildcards(model=name)) for rule in of_model)
        yield from (
            ("tokenize", Wildcards(model=name, dataset=dataset)) for dataset in study.datasets_of[name]
        )
        yield from (("truncate", wildcards(cell)) for cell in study.truncated(name))
        for checkpoint in model.measured if model.on_hub else ():
            yield "download", Wildcards(model=name, checkpoint=checkpoint)
            for reader in study.readers(name, checkpoint):
                yield "release", Wildcards(model=name, checkpoint=checkpoint, reader=reader)
    for cell in study.cells():
        yield from measuring(study, cell)


def measuring(study: Study, cell: Cell) -> Iterator[Step]:
    """Yield the jobs that measure a cell, the extraction first."""
    if not study.keep_activations:
        yield "measure_cell", wildcards(cell)
        return
    yield "extract", wildcards(cell)
    for block in study.blocks_of(cell.model):
        layers = paths.layers(*block)
        if study.library_families:
            yield "measure", wildcards(cell, **layers)
        if study.own_metrics:
            yield "measure_own", wildcards(cell, **layers)


def wildcards(cell: Cell, first: str = "", last: str = "") -> Wildcards:
    """Return the wildcards of a job of a cell, or of a block of its layers."""
    return Wildcards(
        model=cell.model, checkpoint=cell.checkpoint, dataset=cell.dataset, first=first, last=last
    )
