"""What a study still lacks: its cells compared with the files, why each is missing, and the command that goes on."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lmshape import paths
from lmshape.figures import FIGURES
from lmshape.jobs import Jobs
from lmshape.jobs.behind import Step, measuring, of_pretraining, of_text, wildcards
from lmshape.jobs.failures import Failure, ends_with_an_error, is_interruption, remedy, why
from lmshape.jobs.pages import EXPLORER, REPORT
from lmshape.jobs.rule import Wildcards
from lmshape.jobs.tables import SHAPES
from lmshape.study.models import Model
from lmshape.study.study import Cell, Study

MOST_GROUPS = 8  # on a screen
MOST_NAMES = 4  # in a line, of models, checkpoints or datasets
MOST_CHARACTERS = 400  # of a reason; what libraries say may be a page
NOT_REACHED = "not reached"
INTERRUPTED = "interrupted"

# What Snakemake's log says of a failed job: how its command ended, its error, and files that did not appear.
ERROR = re.compile(
    r"^Error in (?:rule|group) .*?(?=^(?:\[|Logfile |RuleException|Trying to restart |Select jobs )|\Z)",
    re.MULTILINE | re.DOTALL,
)
COMMAND_ENDED = re.compile(
    r"^Command '.*?' (?:returned non-zero exit status \d+|died with <Signals\.\w+: \d+>)",
    re.MULTILINE | re.DOTALL,
)
NO_OUTPUT = re.compile(
    r"^Job \d+ +completed successfully, but some output files are missing.*\n(?:results/.*\n?)+", re.MULTILINE
)
LOG_FILE = re.compile(r"results/logs/\S+?\.log")
RESULT_FILE = re.compile(r"^results/\S+", re.MULTILINE)
SCHEDULER_LOG = re.compile(r"\S*slurm_logs/\S+?\.log")


@dataclass(frozen=True, slots=True)
class Missing:
    """Something that a study lacks.

    Attributes
    ----------
    what : a cell, or the name of a result behind the cells
    step : the first job on the way to it that has failed, else the first whose files are not there
    reason : why, in one sentence
    log : of that job; empty where it has not run
    """

    what: Cell | str
    step: Step
    reason: str
    log: str


def missing_of(jobs: Jobs, root: Path, *, said: str = "") -> list[Missing]:
    """Compare a study with its files.

    Parameters
    ----------
    jobs : of the study
    root : its folder
    said : Snakemake's log of the last run, which knows what the scheduler did to jobs

    Returns
    -------
    Cells in the study's order, then results behind them; empty where nothing is missing.
    """
    errors = _errors(said)
    found = []
    present: dict[str, bool] = {}
    for what, steps in [*_cells(jobs), *_results(jobs)]:
        lacking = [step for step in steps if not _is_there(jobs, step, root, present)]
        reasons = [(step, *_reason(jobs, step, root, errors)) for step in lacking]
        if lacking and not _is_made(what, steps, lacking):
            found.append(Missing(what, *next((one for one in reasons if one[1] != NOT_REACHED), reasons[0])))
        else:
            found += [Missing(what, *one) for one in reasons if _has_failed(one[2], root, errors)][:1]
    return found


def _is_made(what: Cell | str, steps: Sequence[Step], lacking: Sequence[Step]) -> bool:
    """Whether what is asked for is there, although files on the way to it have been deleted since."""
    wanted = (
        [step for step in steps if step[0].startswith("measure")] if isinstance(what, Cell) else steps[-1:]
    )
    return not [step for step in wanted if step in lacking]


def _has_failed(log: str, root: Path, errors: dict[str, str]) -> bool:
    return log in errors or (bool(log) and ends_with_an_error(root / log))


def _cells(jobs: Jobs) -> Iterator[tuple[Cell | str, list[Step]]]:
    for cell in jobs.study.cells():
        yield cell, list(steps_of(jobs.study, cell))


def _results(jobs: Jobs) -> Iterator[tuple[Cell | str, list[Step]]]:
    """Yield the results behind the cells, each with the jobs that lead to it from there."""
    study = jobs.study
    for name, model in study.models.items():
        for cell in study.truncated(name):
            yield f"truncation of {'/'.join(_names(cell))}", [("truncate", wildcards(cell))]
        yield f"metrics of {name}", [*_releases(study, model), ("gather", Wildcards(model=name))]
    for table in ("tables", "truncation_tables"):
        yield table, [(table, Wildcards())]
    yield "spikes", [*_spike_steps(study), ("spikes", Wildcards())]
    yield "claims", [("claims", Wildcards())]
    shapes: list[Step] = [("shapes", Wildcards(model=name)) for name in study.models]
    for figure in study.figures:
        drawn_from = (
            [*shapes, ("combine_shapes", Wildcards())] if set(SHAPES) & set(FIGURES[figure].tables) else []
        )
        yield f"figure {figure}", [*drawn_from, ("figure", Wildcards(figure=figure))]
    yield EXPLORER, [("explore", Wildcards())]
    yield REPORT, [("findings", Wildcards()), ("report", Wildcards())]


def _releases(study: Study, model: Model) -> Iterator[Step]:
    for checkpoint in model.checkpoints if model.on_hub else ():
        for reader in study.readers(model.name, checkpoint):
            yield "release", Wildcards(model=model.name, checkpoint=checkpoint, reader=reader)


def _spike_steps(study: Study) -> Iterator[Step]:
    """Yield the runs whose spikes are looked for and that no model is made of."""
    models = {model.pretraining for model in study.models.values()}
    for run in study.trained:
        if run not in models:
            yield from _pretraining_steps(study, run)


def steps_of(study: Study, cell: Cell) -> Iterator[Step]:
    """Yield the jobs that lead to a cell, in their order."""
    model, job = study.models[cell.model], wildcards(cell)
    if model.pretraining:
        yield from _pretraining_steps(study, model.pretraining)
    if model.on_hub:
        yield "resolve", job
        yield "fetch_tokenizer", job
    text = study.text_of(cell.dataset)
    if text is not None:
        yield from of_text(text.name, clean=study.datasets[cell.dataset].clean)
    yield "tokenize", job
    if model.on_hub:
        yield "download", job
    yield from measuring(study, cell)


def _pretraining_steps(study: Study, run: str) -> Iterator[Step]:
    yield from of_pretraining(study)
    yield "train_tokenizer", Wildcards()
    yield "pretrain", Wildcards(run=run)


def _names(cell: Cell) -> tuple[str, str, str]:
    return cell.model, cell.checkpoint, cell.dataset


def _is_there(jobs: Jobs, step: Step, root: Path, present: dict[str, bool]) -> bool:
    """Tell whether the files of a job exist; each is looked up once."""
    for file in jobs.rules[step[0]].outputs(step[1]):
        if file not in present:
            passing = file.startswith(
                paths.STAGED.partition("{")[0]
            )  # deleted once the weights have been read
            present[file] = passing or (root / file).exists()
        if not present[file]:
            return False
    return True


def _errors(said: str) -> dict[str, str]:
    """Sort what Snakemake said of the last attempt of failed jobs by log file, or by the file that did not appear."""
    found: dict[str, dict[str, str]] = {}
    for pattern, names in ((COMMAND_ENDED, LOG_FILE), (ERROR, LOG_FILE), (NO_OUTPUT, RESULT_FILE)):
        for match in pattern.finditer(said):
            for name in names.findall(match[0]):
                found.setdefault(name, {})[pattern.pattern] = match[0]
    return {name: "\n".join(parts.values()) for name, parts in found.items()}


def _reason(jobs: Jobs, step: Step, root: Path, errors: dict[str, str]) -> tuple[str, str]:
    """Return why the files of a job are not there, and its log; none where it has not run."""
    rule = jobs.rules[step[0]]
    log = rule.log(step[1])
    said = next((errors[name] for name in (log, *rule.outputs(step[1])) if name in errors), "")
    if not said and not (root / log).exists():
        return NOT_REACHED, ""
    reason = why(Failure(step[0], logs=(log, *SCHEDULER_LOG.findall(said)), said=said), root)
    return (INTERRUPTED if is_interruption(reason) else reason), log


def describe(missing: Sequence[Missing], study: Study, *, command: str) -> str:
    """Tell what is missing, alike reasons together, and the command that goes on, in some 30 lines."""
    if not missing:
        return "Nothing is missing: every cell, table, figure and page of the study is there."
    cells = [one for one in missing if isinstance(one.what, Cell)]
    are = "is" if len(cells) == 1 else "are"
    total = len(study.cells())
    lines = [f"{len(cells)} of {total} cells {are} missing (a cell: one checkpoint of a model, one dataset)."]
    groups: dict[tuple[str, str], list[Missing]] = {}
    for one in missing:
        if isinstance(one.what, Cell) or one.reason != NOT_REACHED:
            key = "" if one.reason == NOT_REACHED else one.step[0]
            groups.setdefault((key, _without_names(one)), []).append(one)
    told: set[str] = set()
    for group in list(groups.values())[:MOST_GROUPS]:
        lines += [f"  {line}" for line in _describe_group(group, told)]
    if len(groups) > MOST_GROUPS:
        lines.append(f"  … and {len(groups) - MOST_GROUPS} other reasons.")
    behind = [
        str(one.what) for one in missing if not isinstance(one.what, Cell) and one.reason == NOT_REACHED
    ]
    if behind:
        lines.append(f"  Not made: {_some(behind, 'results')}.")
    return "\n".join([*lines, "What is done is kept. To make the rest:", f"  {command}"])


def command_line(argv: Sequence[str]) -> str:
    """Spell the command of a run as one types it.

    Parameters
    ----------
    argv : its words; the first is a path, which a shell has found for the user unless it is relative
    """
    program = Path(argv[0])
    if program.name == "__main__.py":
        return shlex.join(["python", "-m", program.parent.name, *argv[1:]])
    return shlex.join([program.name if program.is_absolute() else argv[0], *argv[1:]])


def _without_names(one: Missing) -> str:
    """Return the reason with the names of the cell taken out, so that the same error of many cells is told once."""
    reason = one.reason
    for name in sorted(filter(None, _names_of(one.step[1])), key=len, reverse=True):
        reason = reason.replace(name, "…")
    return reason


def _names_of(job: Wildcards) -> list[str]:
    return [job.model, job.checkpoint, job.dataset, job.text, job.run, job.figure]


def _describe_group(group: Sequence[Missing], told: set[str]) -> Iterator[str]:
    cells = [one.what for one in group if isinstance(one.what, Cell)]
    yield from _cell_lines(cells)
    yield from (str(one.what) for one in group if not isinstance(one.what, Cell))
    first = group[0]
    if first.reason == NOT_REACHED:
        yield "  not reached: no job of theirs has run"
        return
    yield f"  {first.step[0]}: {first.reason[:MOST_CHARACTERS]}"
    advice = remedy(first.reason, rule=first.step[0])
    if advice and advice not in told:
        told.add(advice)
        yield f"  {advice}"
    others = len({one.log for one in group}) - 1
    yield f"  log: {first.log}" + (f" and {others} more like it" if others else "")


def _cell_lines(cells: Sequence[Cell]) -> list[str]:
    """Name cells: a line a model, or one for all of many models."""
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
