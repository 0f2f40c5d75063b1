"""Which cells a run has left undone, and the failed job that each waits for."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from lmshape.ending.failures import Failure, why
from lmshape.study.study import Cell, Study
from lmshape.writing import replaced_when_whole

MISSING = "results/missing.tsv"
INTERRUPTED = "the run was interrupted"
COLUMNS = ("model", "checkpoint", "dataset", "failed", "attempts", "why", "log")


@dataclass(frozen=True, slots=True)
class Cause:
    """A job that failed for good, and why, in one line."""

    failure: Failure
    reason: str


@dataclass(frozen=True, slots=True)
class Missing:
    """A cell that is not done; no cause where it waits for no failure, but the run did not get so far."""

    cell: Cell
    cause: Cause | None


def causes_of(failures: Iterable[Failure], root: Path) -> list[Cause]:
    """Read the logs of failed jobs, below a study's folder, for why they failed."""
    return [Cause(failure, why(failure, root)) for failure in failures]


def missing_cells(undone: Iterable[Cell], causes: Sequence[Cause], study: Study) -> list[Missing]:
    """Find the first failure that each cell waits for.

    Parameters
    ----------
    undone : cells that the run was to make and has not
    causes : failed jobs, in their order
    study : says which texts and trainings a cell comes from

    Returns
    -------
    The cells in the order given. Time: linear in cells and failures.
    """
    cause_of = _finder(causes, study)
    return [Missing(cell, cause_of(cell)) for cell in undone]


def write_missing(path: Path, missing: Sequence[Missing], *, stopped: str) -> None:
    """Write the complete list, a line a cell; where no cell is missing there is no file.

    Parameters
    ----------
    path : file to write, whole or not at all
    missing : the cells
    stopped : why cells without a cause were not reached
    """
    if not missing:
        path.unlink(missing_ok=True)
        return
    with replaced_when_whole(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, dialect="excel-tab", lineterminator="\n")
        writer.writerow(COLUMNS)
        for one in missing:
            writer.writerow([one.cell.model, one.cell.checkpoint, one.cell.dataset, *_columns(one, stopped)])


def not_reached(stopped: str) -> str:
    """Say of cells without a cause why they are not done."""
    return "interrupted, or not begun" if stopped == INTERRUPTED else f"not reached: {stopped}"


def _columns(one: Missing, stopped: str) -> list[str | int]:
    if one.cause is None:
        return ["", 0, not_reached(stopped), ""]
    failure = one.cause.failure
    return [failure.rule, failure.attempts, one.cause.reason, failure.logs[0] if failure.logs else ""]


def _finder(causes: Sequence[Cause], study: Study) -> Callable[[Cell], Cause | None]:
    """Look causes up by the names of a cell that the failed job has among its wildcards."""
    found: dict[tuple[str | None, ...], list[int]] = defaultdict(list)
    for number, cause in enumerate(causes):
        wildcards = cause.failure.wildcards
        found[wildcards.get("model"), wildcards.get("checkpoint"), wildcards.get("dataset")].append(number)

    def cause_of(cell: Cell) -> Cause | None:
        keys = product((cell.model, None), (cell.checkpoint, None), (cell.dataset, None))
        numbers = sorted(number for key in keys for number in found.get(key, ()))
        concerning = (causes[number] for number in numbers if _concerns(causes[number].failure, cell, study))
        return next(concerning, None)

    return cause_of


def _concerns(failure: Failure, cell: Cell, study: Study) -> bool:
    """Whether a cell waits for a job, given that no name of its own says otherwise."""
    run = study.models[cell.model].pretraining
    if "run" in failure.wildcards:
        return failure.wildcards["run"] == run
    if "text" in failure.wildcards:
        return failure.wildcards["text"] in _texts(cell, study)
    return failure.rule != "train_tokenizer" or bool(run)


def _texts(cell: Cell, study: Study) -> set[str]:
    """Name the texts that a cell's tokens and its model's training come from."""
    read = study.text_of(cell.dataset)
    trained = study.pretraining.text if study.pretraining and study.models[cell.model].pretraining else None
    return {name for name in (read.name if read else None, trained) if name}
