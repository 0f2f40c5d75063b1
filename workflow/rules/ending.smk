"""How a run ends: when something has failed, its last lines say what is missing, why, and what makes it."""

import atexit
import traceback
from operator import attrgetter
from types import SimpleNamespace

from snakemake.logging import logger

from lmshape.ending import running
from lmshape.ending.aftermath import ENDED_EARLY
from lmshape.ending.aftermath import LATER
from lmshape.ending.aftermath import NEEDS
from lmshape.ending.aftermath import Aftermath
from lmshape.ending.aftermath import command_line
from lmshape.ending.aftermath import last_words
from lmshape.ending.error_records import ErrorRecords
from lmshape.ending.failures import Failure
from lmshape.ending.failures import is_interruption
from lmshape.ending.failures import last_error
from lmshape.ending.failures import one_line
from lmshape.ending.missing import INTERRUPTED
from lmshape.ending.missing import MISSING
from lmshape.ending.missing import causes_of
from lmshape.ending.missing import missing_cells
from lmshape.ending.missing import write_missing

STUDY_FOLDER = Path.cwd()  # Snakemake leaves it before it exits
RECORDS = ErrorRecords()
RUN = SimpleNamespace(note=None, whole=False)


def refuse_unlocking():
    """Nobody unlocks a study that is being run, whatever the reason for the lock was thought to be."""
    reason = running.refuse_unlocking(STUDY_FOLDER) if "--unlock" in sys.argv else ""
    if reason:
        raise WorkflowError(reason)


def begin_run():
    os.environ[RETRIES] = str(workflow.execution_settings.retries)
    RUN.note = running.begin(STUDY_FOLDER, command_line(sys.argv))


def end_run():
    """A run that has made all it was to make leaves no list of what is missing."""
    RUN.whole = True
    (STUDY_FOLDER / MISSING).unlink(missing_ok=True)


def tell_the_end():
    """Snakemake's own epilogue comes after `onerror`, and where it dies itself nothing else is called."""
    try:
        if RECORDS.told.locked:
            print(running.who_holds_it(STUDY_FOLDER), file=sys.stderr)
        elif RUN.note and not RUN.whole:
            print(last_words(aftermath(), command_line(sys.argv)), file=sys.stderr)
    except Exception:
        traceback.print_exc()
        print("What failed could not be summed up: see above.", file=sys.stderr)


def aftermath():
    """Sum up what the plan had and what of it is done."""
    undone = list(single_jobs(workflow.dag.needrun_jobs()))
    failed = single_jobs(workflow.scheduler.failed if workflow.scheduler else ())
    in_order = sorted(failed, key=attrgetter("jobid"))  # Snakemake keeps a set
    causes = causes_of(map(failure_of, in_order), STUDY_FOLDER)
    if RECORDS.told.interrupted:
        causes = [cause for cause in causes if not is_interruption(cause.reason)]
    stopped = why_stopped()
    missing = missing_cells(undone_cells(undone), causes, study)
    try:
        write_missing(STUDY_FOLDER / MISSING, missing, stopped=stopped)
    except OSError as error:  # a full disk must not take the summary with it
        print(f"\n{MISSING} could not be written: {error}", file=sys.stderr)
    return Aftermath(
        missing=missing,
        causes=causes,
        cells=len(study.cells()),
        later=undone_later(undone),
        stopped=stopped,
    )


def single_jobs(jobs):
    """Jobs, those of groups one by one."""
    for job in jobs:
        yield from (job.jobs if job.is_group() else [job])


def failure_of(job):
    told = RECORDS.told
    logs = dict.fromkeys([*map(str, job.log), *told.logs.get(job.jobid, ())])
    return Failure(
        job.rule.name,
        dict(job.wildcards.items()),
        logs=tuple(logs),
        attempts=job.attempt,
        said=told.said.get(job.jobid, ""),
    )


def undone_cells(jobs):
    """Cells in the order of the study; a cell whose weights were only not released is done."""
    undone = set()
    for job in jobs:
        names = dict(job.wildcards.items())
        if {
            "model",
            "checkpoint",
            "dataset",
        } <= names.keys() and not job.rule.name.startswith("release"):
            undone.add(Cell(names["model"], names["checkpoint"], names["dataset"]))
    return [cell for cell in study.cells() if cell in undone]


def undone_later(jobs):
    later = {}
    for job in jobs:
        if job.rule.name in LATER:
            later.setdefault(job.rule.name, set()).update(
                dict(job.wildcards.items()).values()
            )
    return later


def why_stopped():
    """Why cells that wait for no failure are not done."""
    if RECORDS.told.interrupted:
        return INTERRUPTED
    if workflow.scheduler and workflow.scheduler.failed:
        return NEEDS if workflow.execution_settings.keep_going else ENDED_EARLY
    error = RECORDS.told.last_error
    return f"Snakemake ended: {last_error(error) or one_line(error)}"


if workflow.is_main_process:
    refuse_unlocking()
    logger.addHandler(RECORDS)
    atexit.register(tell_the_end)
