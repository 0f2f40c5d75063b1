"""The missing cells of a study, the reason for each, and the command that continues.

Why a job failed its own log says, which ends with `error: …` or a traceback, unless the process was killed: then the
scheduler, whose words are in Snakemake's log, knows more.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from lmshape import paths
from lmshape.jobs import Jobs, Step
from lmshape.jobs.rule import Wildcards
from lmshape.progress import size_text
from lmshape.study.study import Cell, Study

MOST_GROUPS = 8  # on a screen
MOST_NAMES = 4  # in a line, of models, checkpoints or datasets
REASON_CHARACTERS = 400  # of a reason; what libraries say may be a page
NOT_REACHED = "not reached"
INTERRUPTED = "interrupted"

# What Snakemake's log says of jobs that fail: how a command ended, which job it was, which of its files are not there.
# It shows the log of a failed SLURM job, in which another Snakemake says the first two of the same job.
SAID = re.compile(
    r"^Command '[^\n]*' (?:died with|returned non-zero exit status) [^\n]*\n"
    r"|^Error in (?:rule|group) \w+:\n.*?(?=^\[|^Command '|^Error in |\Z)"
    r"|^Job \d+ +completed successfully, but some output files are missing[^\n]*\n(?:[^\n]+ \(missing [^\n]*\n?)+",
    re.MULTILINE | re.DOTALL,
)
RULE_LINE = re.compile(r"^Error in rule (\w+):", re.MULTILINE)
LOGS = re.compile(r"^    log: (.+?) \(check log", re.MULTILINE)  # the job's own, then the scheduler's
FILE = re.compile(r"results/logs/[^\s']+?\.log|^\S+(?= \(missing )", re.MULTILINE)
OF_THE_SCHEDULER = re.compile(r"^    message: (?!None$)", re.MULTILINE)
DATE = re.compile(r"^ *Date: (.+)$", re.MULTILINE)
COMMAND = re.compile(r"^ *Command: (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Missing:
    """Something that a study lacks.

    Attributes
    ----------
    what : a cell, or the name of a result behind the cells
    step : the first job on the way to it that has failed, else the first whose files are not there
    reason : why, in one sentence
    log : of that job; empty where it has not run
    rule : its name in the Snakefile, which the command line takes; models of another layout have another `measure_cell`
    """

    what: Cell | str
    step: Step
    reason: str
    log: str
    rule: str


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
    errors, began = _errors(said), _began(said)
    found = []
    present: dict[str, bool] = {}
    for what, steps in [*_cells(jobs), *_results(jobs, root)]:
        lacking = [step for step in steps if not _is_there(jobs, step, root, present)]
        unmade = bool(lacking) and not _is_made(what, steps, lacking)
        if unmade:
            unlisted = isinstance(what, Cell) and what.checkpoint in jobs.study.models[what.model].unasked
            lacking = [step for step in steps if step in lacking or (unlisted and step[0] == "resolve")]
        reasons = [
            (step, *_reason(jobs, step, root, said=_said(jobs, step, errors), began=began))
            for step in lacking
        ]
        if unmade:
            found.append(Missing(what, *next((one for one in reasons if one[1] != NOT_REACHED), reasons[0])))
        else:
            failed = [
                one for one in reasons if one[2] in errors or (one[2] and ends_with_an_error(root / one[2]))
            ]
            found += [Missing(what, *one) for one in failed[:1]]
    return found


def _is_made(what: Cell | str, steps: Sequence[Step], lacking: Sequence[Step]) -> bool:
    """Whether the targets exist, even if intermediate files have been deleted since."""
    wanted = (
        [step for step in steps if step[0].startswith("measure")] if isinstance(what, Cell) else steps[-1:]
    )
    return not [step for step in wanted if step in lacking]


def _cells(jobs: Jobs) -> Iterator[tuple[Cell | str, list[Step]]]:
    measuring: dict[Cell, list[Step]] = {cell: [] for cell in jobs.study.cells()}
    for name, job in jobs.every():
        if jobs.rules[name].stage in ("extraction", "measuring"):
            measuring[job.cell].append((name, job))
    for cell, lasts in measuring.items():
        yield cell, list(dict.fromkeys(step for last in lasts for step in jobs.leading_to(last)))


def _results(jobs: Jobs, root: Path) -> Iterator[tuple[Cell | str, list[Step]]]:
    """Yield the results behind the cells, each with the jobs that lead to it from there."""
    study = jobs.study
    for name in study.models:
        for cell in study.truncated(name):
            yield f"truncation of {'/'.join(_names(cell))}", [("truncate", Wildcards.of_cell(cell))]
        releases = [("release", job) for job in jobs.rules["release"].jobs() if job.model == name]
        yield f"metrics of {name}", [*releases, ("gather", Wildcards(model=name))]
        yield f"figures of {name}", [("model_figures", Wildcards(model=name))]
    for table in ("tables", "truncation_tables"):
        yield table, [(table, Wildcards())]
    models = {model.pretraining for model in study.models.values()}
    alone = [("pretrain", Wildcards(run=run)) for run in study.trained if run not in models]
    trained = [one for last in alone for one in jobs.leading_to(last)]
    yield "spikes", [*trained, ("spikes", Wildcards())]
    for result in ("claims", "figures"):
        yield result, [(result, Wildcards())]
    yield paths.EXPLORER_PAGE, [("explore", Wildcards())]
    yield paths.INDEX_PAGE, [("index", Wildcards())]
    if ends_with_an_error(root / jobs.rules["report"].log(Wildcards())):  # it is made on request alone
        yield paths.REPORT_PAGE, [("report", Wildcards())]


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
    """Sort what Snakemake said of the last attempt of jobs that failed, by their log files or the outputs they lack."""
    found: dict[str, str] = {}
    for text in SAID.findall(said):
        logs = LOGS.search(text)
        for file in [logs[1].split(", ")[0]] if logs else FILE.findall(text):
            before = found.get(file, "")
            anew = OF_THE_SCHEDULER.search(text) or not (logs or OF_THE_SCHEDULER.search(before))
            found[file] = text if anew else before + text
    return found


def _began(said: str) -> float:
    """Return when the last run began, in seconds of the epoch; 0 where nothing tells."""
    date = DATE.search(said)
    return datetime.fromisoformat(date[1]).timestamp() if date else 0.0


def _said(jobs: Jobs, step: Step, errors: Mapping[str, str]) -> str:
    """Return what Snakemake said of a job, empty where it has not failed."""
    rule, job = jobs.rules[step[0]], step[1]
    return next(filter(None, map(errors.get, (rule.log(job), *rule.outputs(job)))), "")


def _reason(jobs: Jobs, step: Step, root: Path, *, said: str, began: float) -> tuple[str, str, str]:
    """Return why the files of a job are not there, its log and its rule.

    Not reached, without a log, where neither Snakemake nor a log of the last run has a word of the job.
    """
    log = jobs.rules[step[0]].log(step[1])
    if not said and not ((root / log).exists() and (root / log).stat().st_mtime >= began):
        return NOT_REACHED, "", step[0]
    logs, rule = LOGS.search(said), RULE_LINE.search(said)
    reason = why(root, logs[1].split(", ") if logs else [log], said)
    return INTERRUPTED if is_interruption(reason) else reason, log, rule[1] if rule else step[0]


def describe_missing(missing: Sequence[Missing], study: Study, *, command: str) -> str:
    """Describe the missing cells, grouped by reason, and the command that continues, in some 30 lines."""
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


def go_on(said: str, *options: str) -> str:
    """Return the command that makes the rest: that of the last run, by Snakemake's log, else with these options."""
    command = COMMAND.search(said)
    if command is None:
        return shlex.join(["snakemake", "--cores", "all", *options])
    program, _, given = command[1].partition(" ")
    name = Path(program).name
    return f"{'python -m snakemake' if name == '__main__.py' else name} {given}".strip()


def _without_names(one: Missing) -> str:
    """Return the reason with the names of the cell taken out, so that the same error of many cells is reported once."""
    reason, (_, job) = one.reason, one.step
    names = filter(None, [job.model, job.checkpoint, job.dataset, job.text, job.run])
    for name in sorted(names, key=len, reverse=True):
        reason = reason.replace(name, "…")
    return reason


def _describe_group(group: Sequence[Missing], told: set[str]) -> Iterator[str]:
    cells = [one.what for one in group if isinstance(one.what, Cell)]
    yield from _cell_lines(cells)
    yield from (str(one.what) for one in group if not isinstance(one.what, Cell))
    first = group[0]
    if first.reason == NOT_REACHED:
        yield "  not reached: no job of theirs has run"
        return
    yield f"  {first.step[0]}: {first.reason[:REASON_CHARACTERS]}"
    advice = remedy(first.reason, rule=first.rule)
    if advice and advice not in told:
        told.add(advice)
        yield f"  {advice}"
    others = len({one.log for one in group}) - 1
    yield f"  log: {first.log}" + (f" and {others} more like it" if others else "")


def _cell_lines(cells: Sequence[Cell]) -> list[str]:
    """Name cells: one line per model, or one for all of many models."""
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


# Why a job failed, and what to do about it

TAIL_BYTES = 1 << 16  # of a log: a traceback is shorter, and a log may be long
LITTLE_ROOM_BYTES = 4 << 20  # no job gets far with less
TRACEBACK = "Traceback (most recent call last):"
NO_ROOM_WORDS = ("No space left on device", "Disk quota exceeded")

KILLED = re.compile(r"died with <Signals\.(\w+)|exit status (130|137|139|143)\b")
SIGNALS = {"130": "SIGINT", "137": "SIGKILL", "139": "SIGSEGV", "143": "SIGTERM"}
# The kernel's words, and SLURM's where it looks at memory itself; the state of the job is then FAILED.
OUT_OF_MEMORY = re.compile(r"oom[_-]kill|exceeded (?:job )?memory limit", re.IGNORECASE)
SLURM_STATUS = re.compile(r"SLURM status is: '(\w+)'")
SLURM_WORDS = {
    "TIMEOUT": "it ran longer than the time it had asked for",
    "DEADLINE": "it could not end before its deadline",
    "OUT_OF_MEMORY": "it needed more memory than it had asked for",
    "NODE_FAIL": "its node failed",
    "BOOT_FAIL": "its node did not start",
    "CANCELLED": "it was cancelled",
    "PREEMPTED": "another job took its place",
}
NOT_SUBMITTED = re.compile(
    r"sbatch failed\. The error message was '(.*?)'\.\n|submission failed[^:]*: (.*)", re.DOTALL
)
MISSING_OUTPUT = re.compile(r"Job (\d+) +completed successfully, but some output files are missing")

REMEDIES = (
    (
        re.compile(r"No space left on device|no room on the disk \(No space"),
        "Free space on the disk, limit downloads with `disk_budget_gb`, or let activations be deleted "
        "once measured: `keep_activations: false`.",
    ),
    (
        re.compile(r"Disk quota exceeded"),
        "Your quota is used up: delete what you no longer need, limit downloads with "
        "`disk_budget_gb`, or let activations be deleted once measured: `keep_activations: false`.",
    ),
    (
        re.compile(r"SLURM did not take it.*(account|partition|qos)", re.IGNORECASE),
        "Correct `slurm_account` and `slurm_partition` in your profile: profiles/slurm/config.yaml.",
    ),
    (
        re.compile(r"\(TIMEOUT\)|\(DEADLINE\)"),
        "Give it more minutes: `--set-resources {rule}:runtime=…`, or `retries` in the profile.",
    ),
    (
        re.compile(r"\(OUT_OF_MEMORY\)"),
        "Give it more megabytes: `--set-resources {rule}:mem_mb=…`, or `retries` in the profile.",
    ),
    (
        re.compile(r"killed \(SIGKILL\)"),
        "If memory ran out, take fewer jobs at once (`--cores`) or a smaller `extraction: batch_tokens`.",
    ),
    (
        re.compile(r"did not appear in time"),
        "On a slow network disk, wait longer for files: `--latency-wait 60`.",
    ),
)


def why(root: Path, logs: Sequence[str], said: str = "") -> str:
    """Say in one sentence why a job's last attempt failed.

    Parameters
    ----------
    root : the study's folder, to which log files are relative
    logs : the job's own log file, then those of the scheduler
    said : what Snakemake and the scheduler said of the attempt; empty when nothing

    Returns
    -------
    One line: what the scheduler did to the job, else the last error of its log, else what is known at all.
    """
    scheduler = _what_the_scheduler_did(said)
    if scheduler:
        return scheduler
    tails = [_tail(root / log) for log in logs]
    if any(OUT_OF_MEMORY.search(tail or "") for tail in tails):
        return f"SLURM ended it (OUT_OF_MEMORY): {SLURM_WORDS['OUT_OF_MEMORY']}"
    own = tails[0]
    if error := last_error(own or ""):
        return _with_its_cause(error, own or "")
    if MISSING_OUTPUT.search(said):
        return f"it ended well, but its files did not appear in time: {one_line(said.splitlines()[-1])}"
    if killed := KILLED.search(said):
        return f"it was killed ({killed[1] or SIGNALS[killed[2]]}){_ending_with(own)}"
    return _last_line(own or "") or _nothing_in_the_log(said, own, root)


def remedy(reason: str, *, rule: str) -> str:
    """Say what to do about a reason; empty when the reason says it itself, or nothing is known.

    Parameters
    ----------
    reason : as `why` gives it
    rule : name of the rule that failed
    """
    for pattern, advice in REMEDIES:
        if pattern.search(reason):
            return advice.format(rule=rule)
    return ""


def last_error(log: str) -> str:
    """Return the last error of a log: the sentence behind `error: `, or the exception of a traceback.

    Returns
    -------
    One line, empty when the log holds neither.
    """
    lines = re.split(r"[\r\n]+", log)
    for number in range(len(lines) - 1, -1, -1):
        if lines[number].startswith("error: "):
            return lines[number].removeprefix("error: ").strip()
        if lines[number].startswith(TRACEBACK):
            behind = (line.strip() for line in lines[number + 1 :] if not line.startswith((" ", "\t")))
            return next(filter(None, behind), "a traceback that breaks off")
    return ""


def _what_the_scheduler_did(said: str) -> str:
    """Return why a job never ran, or was ended from outside; empty when it just failed."""
    status = SLURM_STATUS.search(said)
    if status and status[1] in SLURM_WORDS:
        return f"SLURM ended it ({status[1]}): {SLURM_WORDS[status[1]]}"
    if refused := NOT_SUBMITTED.search(said):
        text = (refused[1] or refused[2]).split("For further error details")[0]
        return f"SLURM did not take it: {one_line(text)}"
    return ""


def is_interruption(reason: str) -> bool:
    """Whether a reason only says that the user ended the job, as Ctrl-C does to all running jobs."""
    return reason.startswith(("KeyboardInterrupt", "Aborted", "it was killed (SIGINT)"))


def ends_with_an_error(log: Path) -> bool:
    """Whether a log holds an error or a traceback."""
    return bool(last_error(_tail(log) or ""))


def _with_its_cause(error: str, log: str) -> str:
    """Say first that a disk is full: libraries say it last, behind numbers of their own, or in an earlier error."""
    causes = [words for words in NO_ROOM_WORDS if words in log]
    short = error.partition(" (file write failed")[0]  # what HDF5 goes on with is a page
    return f"{causes[0]}: {short}" if causes and causes[0] not in short else error


def one_line(text: str) -> str:
    """Put a text into one line."""
    return " ".join(text.split())


def _tail(log: Path) -> str | None:
    """Read the end of a log; None when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            return file.read().decode("utf-8", errors="replace")
    except OSError:
        return None


def _last_line(log: str) -> str:
    """Return the last line with a letter in it: frames of boxes and bars have none."""
    lines = (line.strip() for line in reversed(re.split(r"[\r\n]+", log)))
    return next((line for line in lines if any(map(str.isalpha, line))), "")


def _ending_with(log: str | None) -> str:
    line = _last_line(log or "")
    return f"; its log ends with: {line}" if line else ""


def _nothing_in_the_log(said: str, log: str | None, root: Path) -> str:
    """Say that a log says nothing: perhaps since the disk had no room for it."""
    kind = "its log does not exist" if log is None else "its log is empty"
    free = shutil.disk_usage(root).free
    if free < LITTLE_ROOM_BYTES:
        return f"No space left on device: {size_text(free)} are free, and {kind}"
    status = re.search(r"exit status (\d+)", said)
    return f"exit code {status[1]}, and {kind}" if status else kind
