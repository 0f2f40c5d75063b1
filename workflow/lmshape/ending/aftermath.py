"""The last words of a run that failed: which cells are missing, why, and the command that makes them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lmshape.ending.failures import Failure, remedy
from lmshape.ending.missing import INTERRUPTED, MISSING, Cause, Missing, not_reached
from lmshape.study.study import Cell

MOST_LINES = 20  # on a screen, of the groups; the file has all of them
MOST_NAMES = 4  # in a line, of models, checkpoints or datasets
MOST_CHARACTERS = 400  # of a reason; what libraries say may be a page
LATER = {
    "gather": "metrics of",
    "truncate": "truncation of",
    "tables": "tables",
    "spikes": "spikes",
    "claims": "claims",
    "figure": "figures",
    "findings": "findings",
    "explore": "explorer",
    "report": "report",
}

ENDED_EARLY = "the run ended at the first failure; with `--keep-going` it does all that does not depend on it"
NEEDS = "something that it needs was not made"


@dataclass(frozen=True, slots=True, kw_only=True)
class Aftermath:
    """What a run has left undone.

    Attributes
    ----------
    missing : cells that it was to make and has not
    causes : all jobs that failed for good
    cells : number of cells of the study
    later : name of a rule behind the cells → the models or figures that it has not made
    stopped : why cells without a cause were not reached; empty when there are none
    """

    missing: Sequence[Missing]
    causes: Sequence[Cause]
    cells: int
    later: Mapping[str, Collection[str]]
    stopped: str = ""


@dataclass(slots=True)
class _Group:
    """Cells that are missing for one reason, and the jobs that failed for it; no jobs: not reached."""

    cells: list[Cell] = field(default_factory=list)
    causes: dict[int, Cause] = field(default_factory=dict)


def last_words(end: Aftermath, command: str) -> str:
    """Write the summary of a run that failed.

    Parameters
    ----------
    end : what is missing and why
    command : what makes the rest, as one types it

    Returns
    -------
    A text of some 30 lines at most, however much is missing.
    """
    lines = ["", _headline(end), *_within(list(_groups(end)), end)]
    if end.later:
        lines.append(f"  Not made: {', '.join(_later(end.later))}.")
    if end.missing:
        lines.append(f"  Every missing cell with its reason and log: {MISSING}")
    return "\n".join([*lines, "What is done is kept; the same command makes the rest:", f"  {command}"])


def command_line(argv: Sequence[str]) -> str:
    """Spell the command of this run as one types it.

    Parameters
    ----------
    argv : its words; the first is a path, which a shell has found for the user unless it is relative
    """
    program = Path(argv[0])
    if program.name == "__main__.py":
        words = "python -m snakemake"
    else:
        words = program.name if program.is_absolute() else shlex.quote(argv[0])
    return " ".join([words, *map(shlex.quote, argv[1:])])


def _headline(end: Aftermath) -> str:
    interrupted = "The run was interrupted. " if end.stopped == INTERRUPTED else ""
    count, jobs = len(end.missing), len(end.causes)
    if not count:
        what = f"{jobs} {'job' if jobs == 1 else 'jobs'} failed" if jobs else "not everything was made"
        return f"{interrupted}No cell is missing, but {what}:"
    are = "is" if count == 1 else "are"
    return f"{interrupted}{count} of {end.cells} cells {are} missing (a cell: one checkpoint of a model, one dataset):"


def _groups(end: Aftermath) -> Iterator[tuple[_Group, str]]:
    """Put alike failures together, in the order of the cells, then of the jobs; with the words of each."""
    groups: dict[tuple[str, ...], _Group] = {}
    for cell, cause in [
        *((one.cell, one.cause) for one in end.missing),
        *((None, one) for one in end.causes),
    ]:
        group = groups.setdefault(_likeness(cause), _Group())
        if cell:
            group.cells.append(cell)
        if cause:
            group.causes[id(cause)] = cause
    told: set[str] = set()
    for group in groups.values():
        yield group, "\n".join(_group_lines(group, end, told))


def _within(groups: Sequence[tuple[_Group, str]], end: Aftermath) -> list[str]:
    """Keep as many groups as the screen has lines for, and count the rest."""
    lines: list[str] = []
    for number, (_, text) in enumerate(groups):
        if number and len(lines) + text.count("\n") + 1 > MOST_LINES:
            rest = [group for group, _ in groups[number:]]
            cells, jobs = sum(len(group.cells) for group in rest), sum(len(group.causes) for group in rest)
            return [*lines, f"  … and {cells} more cells, for other reasons; {jobs} more jobs failed."]
        lines += text.split("\n")
    return lines


def _group_lines(group: _Group, end: Aftermath, told: set[str]) -> Iterator[str]:
    causes = list(group.causes.values())
    yield from (f"  {line}" for line in _cell_lines(group.cells) or [causes[0].failure.name])
    rule, reason = (causes[0].failure.rule, causes[0].reason) if causes else ("", end.stopped)
    yield f"    {_times(causes)}{_shortened(reason)}" if causes else f"    {_shortened(not_reached(reason))}"
    advice = remedy(reason, rule=rule)
    if advice and advice not in told:
        told.add(advice)
        yield f"    {advice}"
    if causes and causes[0].failure.logs:
        others = f" and {len(causes) - 1} more like it" if len(causes) > 1 else ""
        yield f"    log: {causes[0].failure.logs[0]}{others}"


def _times(causes: Sequence[Cause]) -> str:
    attempts = max(cause.failure.attempts for cause in causes)
    return f"{causes[0].failure.rule} failed{f' {attempts} times' if attempts > 1 else ''}: "


def _cell_lines(cells: Sequence[Cell]) -> list[str]:
    """Say which cells: a line a model, or one for all of many models."""
    of: dict[str, list[Cell]] = {}
    for cell in cells:
        of.setdefault(cell.model, []).append(cell)
    if len(of) > MOST_NAMES:
        return [f"{_some(list(of), 'models')}: {len(cells)} cells"]
    return [f"{model}: {_checkpoints_and_datasets(some)}" for model, some in of.items()]


def _checkpoints_and_datasets(cells: Sequence[Cell]) -> str:
    checkpoints = list(dict.fromkeys(cell.checkpoint for cell in cells))
    datasets = list(dict.fromkeys(cell.dataset for cell in cells))
    count = f" ({len(cells)} cells)" if len(cells) > 1 else ""
    return f"{_some(checkpoints, 'checkpoints')} on {_some(datasets, 'datasets')}{count}"


def _some(names: Sequence[str], what: str) -> str:
    """List names; of many the first, the last and their number."""
    if len(names) <= MOST_NAMES:
        return ", ".join(names)
    return f"{len(names)} {what} ({names[0]}, {names[1]}, …, {names[-1]})"


def _later(later: Mapping[str, Collection[str]]) -> Iterator[str]:
    """Name what comes behind the cells, in the order of its making."""
    for rule, words in LATER.items():
        if rule in later:
            yield f"{words} {_some(sorted(later[rule]), 'models')}" if rule == "gather" else words


def _shortened(reason: str) -> str:
    return reason if len(reason) <= MOST_CHARACTERS else f"{reason[: MOST_CHARACTERS - 2]} …"


def _likeness(cause: Cause | None) -> tuple[str, ...]:
    """Return what alike failures share: rule, model, and a reason that names the same but for the job's own names."""
    if cause is None:
        return ()
    failure: Failure = cause.failure
    reason = cause.reason
    for name in sorted(failure.wildcards.values(), key=len, reverse=True):
        reason = reason.replace(name, "*")
    return (failure.rule, failure.wildcards.get("model", ""), re.sub(r"\d+(\.\d+)?", "#", reason))
