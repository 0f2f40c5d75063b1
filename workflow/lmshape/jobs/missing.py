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
from itertools import islice
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
    found: list[Missing] = []
    present: dict[str, bool] = {}
    for what, steps, lasts in [*_cells(jobs), *_results(jobs, root)]:
        lacking = [step for step in steps if not _is_there(jobs, step, root, present)]
        unmade = any(step in lacking for step in lasts)  # what only led to it may have been deleted since
        if unmade and isinstance(what, Cell) and what.checkpoint in jobs.study.models[what.model].unasked:
            lacking = [step for step in steps if step in lacking or step[0] == "resolve"]
        told = [
            _told(what, jobs, step, root, said=_said(jobs, step, errors), began=began) for step in lacking
        ]
        if unmade:
            found.append(next((one for one in told if one.reason != NOT_REACHED), told[0]))
        else:
            failed = (
                one for one in told if one.log and (one.log in errors or ends_with_an_error(root / one.log))
            )
            found += islice(failed, 1)
    return found


Target = tuple[Cell | str, list[Step], list[Step]]  # what, the jobs that lead to it, and those that make it


def _cells(jobs: Jobs) -> Iterator[Target]:
    makers: dict[Cell, list[Step]] = {cell: [] for cell in jobs.study.cells()}
    for name, job in jobs.every():
        if jobs.rules[name].stage in ("extraction", "measuring"):
            makers[job.cell].append((name, job))
    for cell, lasts in makers.items():
        steps = dict.fromkeys(step for last in lasts for step in jobs.leading_to(last))
        yield cell, list(steps), [step for step in lasts if step[0] != "extract"] or lasts


def _results(jobs: Jobs, root: Path) -> Iterator[Target]:
    """Yield the results behind the cells, each with the jobs that lead to it from there."""
    study, whole = jobs.study, Wildcards()
    models = {model.pretraining for model in study.models.values()}
    alone = [("pretrain", Wildcards(run=run)) for run in study.trained if run not in models]
    found: dict[str, list[Step]] = {}
    for name in study.models:
        for job in map(Wildcards.of_cell, study.truncated(name)):
            found[f"truncation of {job.model}/{job.checkpoint}/{job.dataset}"] = [("truncate", job)]
        releases = [("release", job) for job in jobs.rules["release"].jobs() if job.model == name]
        found[f"metrics of {name}"] = [*releases, ("gather", Wildcards(model=name))]
        found[f"figures of {name}"] = [("model_figures", Wildcards(model=name))]
    found |= {table: [(table, whole)] for table in ("tables", "truncation_tables")}
    found["spikes"] = [*(step for run in alone for step in jobs.leading_to(run)), ("spikes", whole)]
    found |= {result: [(result, whole)] for result in ("claims", "figures")}
    found |= {paths.EXPLORER_PAGE: [("explore", whole)], paths.INDEX_PAGE: [("index", whole)]}
    if ends_with_an_error(root / jobs.rules["report"].log(whole)):  # it is made on request alone
        found[paths.REPORT_PAGE] = [("report", whole)]
    for what, steps in found.items():
        yield what, steps, steps[-1:]


def _is_there(jobs: Jobs, step: Step, root: Path, present: dict[str, bool]) -> bool:
    """Tell whether the files of a job exist; each is looked up once."""
    passing = paths.STAGED.partition("{")[0]  # deleted once the weights have been read
    for file in jobs.rules[step[0]].outputs(step[1]):
        if file not in present:
            present[file] = file.startswith(passing) or (root / file).exists()
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


def _told(what: Cell | str, jobs: Jobs, step: Step, root: Path, *, said: str, began: float) -> Missing:
    """Tell why the files of a job are not there, with its log and its rule.

    Not reached, without a log, where neither Snakemake nor a log of the last run has a word of the job.
    """
    log = jobs.rules[step[0]].log(step[1])
    if not said and not ((root / log).exists() and (root / log).stat().st_mtime >= began):
        return Missing(what, step, NOT_REACHED, "", step[0])
    logs, rule = LOGS.search(said), RULE_LINE.search(said)
    reason = why(root, logs[1].split(", ") if logs else [log], said)
    reason = INTERRUPTED if is_interruption(reason) else reason
    return Missing(what, step, reason, log, rule[1] if rule else step[0])


def describe_missing(missing: Sequence[Missing], study: Study, *, command: str) -> str:
    """Describe the missing cells, grouped by reason, and the command that continues, in some 30 lines."""
    if not missing:
        return (
            "Nothing is missing: every cell, table, figure and page of the study is there. `snakemake -n` says what is "
            "out of date."
        )
    cells = [one for one in missing if isinstance(one.what, Cell)]
    are = "is" if len(cells) == 1 else "are"
    total = len(study.cells())
    lines = [f"{len(cells)} of {total} cells {are} missing (a cell: one checkpoint of a model, one dataset)."]
    groups: dict[tuple[str, str], list[Missing]] = {}
    behind: list[str] = []
    for one in missing:
        if one.reason != NOT_REACHED:
            groups.setdefault((one.step[0], _without_names(one)), []).append(one)
        elif isinstance(one.what, Cell):
            groups.setdefault(("", NOT_REACHED), []).append(one)
        else:
            behind.append(one.what)
    told: set[str] = set()
    for group in list(groups.values())[:MOST_GROUPS]:
        lines += [f"  {line}" for line in _describe_group(group, told)]
    if len(groups) > MOST_GROUPS:
        lines.append(f"  … and {len(groups) - MOST_GROUPS} other reasons.")
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
    first, cells = group[0], [one.what for one in group if isinstance(one.what, Cell)]
    yield from _cell_lines(cells)
    yield from (one.what for one in group if isinstance(one.what, str))
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


def _cell_lines(cells: Sequence[Cell]) -> Iterator[str]:
    """Name cells: one line per model, or one for all of many models."""
    of: dict[str, list[Cell]] = {}
    for cell in cells:
        of.setdefault(cell.model, []).append(cell)
    if len(of) > MOST_NAMES:
        yield f"{_some(list(of), 'models')}: {len(cells)} cells"
        return
    for model, some in of.items():
        checkpoints = list(dict.fromkeys(cell.checkpoint for cell in some))
        datasets = list(dict.fromkeys(cell.dataset for cell in some))
        count = f" ({len(some)} cells)" if len(some) > 1 else ""
        yield f"{model}: {_some(checkpoints, 'checkpoints')} on {_some(datasets, 'datasets')}{count}"


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

_LESS = "limit downloads with `disk_budget_gb`, or let activations be deleted once measured: `keep_activations: false`."
REMEDIES = {  # words of a reason → what to do
    r"No space left on device|no room on the disk \(No space": f"Free space on the disk, {_LESS}",
    r"Disk quota exceeded": f"Your quota is used up: delete what you no longer need, {_LESS}",
    r"(?i)SLURM did not take it.*(account|partition|qos)": (
        "Correct `slurm_account` and `slurm_partition` in your profile: profiles/slurm/config.yaml."
    ),
    r"\(TIMEOUT\)|\(DEADLINE\)": (
        "Give it more minutes: `--set-resources {rule}:runtime=…`, or `retries` in the profile."
    ),
    r"\(OUT_OF_MEMORY\)": "Give it more megabytes: `--set-resources {rule}:mem_mb=…`, or `retries` in the profile.",
    r"killed \(SIGKILL\)": (
        "If memory ran out, take fewer jobs at once (`--cores`) or a smaller `extraction: batch_tokens`."
    ),
    r"did not appear in time": "On a slow network disk, wait longer for files: `--latency-wait 60`.",
}


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
    status, refused = SLURM_STATUS.search(said), NOT_SUBMITTED.search(said)
    if status and status[1] in SLURM_WORDS:
        return f"SLURM ended it ({status[1]}): {SLURM_WORDS[status[1]]}"
    if refused:
        text = (refused[1] or refused[2]).split("For further error details")[0]
        return f"SLURM did not take it: {one_line(text)}"
    tails = [_tail(root / log) for log in logs]
    if any(OUT_OF_MEMORY.search(tail) for tail in tails):
        return f"SLURM ended it (OUT_OF_MEMORY): {SLURM_WORDS['OUT_OF_MEMORY']}"
    own, last = tails[0], _last_line(tails[0])
    if error := last_error(own):
        return _with_its_cause(error, own)
    if MISSING_OUTPUT.search(said):
        return f"it ended well, but its files did not appear in time: {one_line(said.splitlines()[-1])}"
    if killed := KILLED.search(said):
        ending = f"; its log ends with: {last}" if last else ""
        return f"it was killed ({killed[1] or SIGNALS[killed[2]]}){ending}"
    return last or _nothing_in_the_log(said, root, root / logs[0])


def remedy(reason: str, *, rule: str) -> str:
    """Say what to do about a reason; empty when the reason says it itself, or nothing is known.

    Parameters
    ----------
    reason : as `why` gives it
    rule : name of the rule that failed
    """
    found = (advice for pattern, advice in REMEDIES.items() if re.search(pattern, reason))
    return next(found, "").format(rule=rule)


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


def is_interruption(reason: str) -> bool:
    """Whether a reason only says that the user ended the job, as Ctrl-C does to all running jobs."""
    return reason.startswith(("KeyboardInterrupt", "Aborted", "it was killed (SIGINT)"))


def ends_with_an_error(log: Path) -> bool:
    """Whether a log holds an error or a traceback."""
    return bool(last_error(_tail(log)))


def _with_its_cause(error: str, log: str) -> str:
    """Say first that a disk is full: libraries say it last, behind numbers of their own, or in an earlier error."""
    causes = [words for words in NO_ROOM_WORDS if words in log]
    short = error.partition(" (file write failed")[0]  # what HDF5 goes on with is a page
    return f"{causes[0]}: {short}" if causes and causes[0] not in short else error


def one_line(text: str) -> str:
    """Put a text into one line."""
    return " ".join(text.split())


def _tail(log: Path) -> str:
    """Read the end of a log; empty when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            return file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""


def _last_line(log: str) -> str:
    """Return the last line with a letter in it: frames of boxes and bars have none."""
    lines = (line.strip() for line in reversed(re.split(r"[\r\n]+", log)))
    return next((line for line in lines if any(map(str.isalpha, line))), "")


def _nothing_in_the_log(said: str, root: Path, log: Path) -> str:
    """Say that a log says nothing: perhaps since the disk had no room for it."""
    kind = "its log is empty" if log.is_file() else "its log does not exist"
    free = shutil.disk_usage(root).free
    if free < LITTLE_ROOM_BYTES:
        return f"No space left on device: {size_text(free)} are free, and {kind}"
    status = re.search(r"exit status (\d+)", said)
    return f"exit code {status[1]}, and {kind}" if status else kind
