"""Which jobs a job takes its results from: a change behind it counts for it too, until it has run.

Snakemake does not miss a file that a failed job has not made as long as all that was once made of it is there. So each
digest covers the jobs behind: after a failure, whatever shows numbers of before is still to be made.
"""

from __future__ import annotations

from collections.abc import Iterator

from lmshape import paths
from lmshape.figures import FIGURES
from lmshape.jobs.rule import Wildcards
from lmshape.study.study import Cell, Study

Step = tuple[str, Wildcards]  # a job: its rule and its wildcards

TABLES_OF = {  # rule → tables beside those of every figure
    "spikes": ("spikes", "warnings", "alarms", "before_spikes"),
    "truncation_tables": ("truncation", "truncation_ranks"),
    "claims": ("claims",),
}
FIXED: dict[str, tuple[str, ...]] = {  # rules with one job each
    "truncation_tables": ("tables",),
    "spikes": ("tables",),
    "claims": ("tables", "spikes", "truncation_tables"),
    "explore": ("tables",),
    "figures": ("tables",),
    "findings": ("tables", "claims", "figures"),
    "report": ("findings",),
}


def jobs_behind(study: Study, rule: str, job: Wildcards) -> Iterator[Step]:
    """Yield the jobs that a job takes its results from; weights that are downloaded once more are none."""
    for name in FIXED.get(rule, ()):
        yield name, Wildcards()
    if rule in ("clean_text", "train_tokenizer", "pretrain", "tokenize"):
        yield from _behind_texts(study, rule, job)
    elif rule in ("extract", "measure_cell", "truncate"):
        yield "tokenize", Wildcards(model=job.model, dataset=job.dataset)
        run = study.models[job.model].pretraining
        yield from [("pretrain", Wildcards(run=run))] if run else []
    elif rule in ("measure", "measure_own"):
        yield "extract", Wildcards(model=job.model, checkpoint=job.checkpoint, dataset=job.dataset)
    elif rule == "gather":
        for cell in study.cells():
            if cell.model == job.model:
                yield from measuring(study, cell)
    else:
        yield from _behind_results(study, rule)


def _behind_texts(study: Study, rule: str, job: Wildcards) -> Iterator[Step]:
    if rule == "clean_text":
        yield "fetch_text", job
        return
    if rule != "tokenize":
        yield from of_pretraining(study)
    elif text := study.text_of(job.dataset):
        yield from of_text(text.name, clean=study.datasets[job.dataset].clean)
    if rule == "pretrain" or (rule == "tokenize" and study.models[job.model].pretraining):
        yield "train_tokenizer", Wildcards()


def _behind_results(study: Study, rule: str) -> Iterator[Step]:
    if rule == "tables":
        yield from (("gather", Wildcards(model=name)) for name in study.models)
    elif rule == "truncation_tables":
        yield from (("truncate", wildcards(cell)) for name in study.models for cell in study.truncated(name))
    elif rule in ("spikes", "findings"):
        yield from (("pretrain", Wildcards(run=run)) for run in study.trained)
    if rule == "figures":
        drawn = [FIGURES[name] for name in study.figures]
        read = {table for figure in drawn for table in figure.tables}
        yield from ((name, Wildcards()) for name, tables in TABLES_OF.items() if read & set(tables))
        if any(figure.draws_losses for figure in drawn):
            yield from (("pretrain", Wildcards(run=run)) for run in study.trained)


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


def of_text(text: str, *, clean: bool) -> Iterator[Step]:
    """Yield the jobs that bring a text."""
    yield "fetch_text", Wildcards(text=text)
    if clean:
        yield "clean_text", Wildcards(text=text)


def of_pretraining(study: Study) -> Iterator[Step]:
    """Yield the jobs that bring the text of the models that the study trains."""
    assert study.pretraining is not None  # else there would be no such job
    yield from of_text(study.pretraining.text, clean=study.pretraining.clean)


def wildcards(cell: Cell, first: str = "", last: str = "") -> Wildcards:
    """Return the wildcards of a job of a cell, or of a block of its layers."""
    return Wildcards(
        model=cell.model, checkpoint=cell.checkpoint, dataset=cell.dataset, first=first, last=last
    )
