"""What Snakemake's logger tells of jobs that fail, kept until the run ends."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field

from lmshape.ending.failures import MISSING_OUTPUT

STOPPING = ("Terminating processes on user request", "Will exit after finishing currently running jobs")


@dataclass(slots=True)
class Told:
    """What Snakemake's log records have told so far.

    Attributes
    ----------
    said : number of a job → what was said of its last failed attempt
    logs : number of a job → its log files and those of the scheduler
    last_error : text of the last error of any kind
    interrupted : whether the user has ended the run
    locked : whether the run was refused since another one holds the folder
    """

    said: dict[int, str] = field(default_factory=dict)
    logs: dict[int, tuple[str, ...]] = field(default_factory=dict)
    last_error: str = ""
    interrupted: bool = False
    locked: bool = False


class ErrorRecords(logging.Handler):
    """Collect what Snakemake's logger says of jobs that fail; it holds no more than one text for each of them.

    An executor tells the exit code in an error of its own, right before the job's and from the same thread.
    """

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.told = Told()
        self._before: dict[int, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Note a record; a fault in here is printed as logging does, and does not reach Snakemake."""
        try:
            self._note(str(getattr(record, "event", "")), record)
        except Exception:
            self.handleError(record)

    def _note(self, event: str, record: logging.LogRecord) -> None:
        thread = threading.get_ident()
        if event == "job_error":
            texts = (record.rule_msg, self._before.pop(thread, ""))
            self.told.said[record.jobid] = "\n".join(text for text in texts if text)
            self.told.logs[record.jobid] = tuple(map(str, record.log))
        elif event == "error":
            text = record.getMessage()
            self._before[thread] = self.told.last_error = text
            self.told.locked |= getattr(record, "exception", "") == "LockException"
            if found := MISSING_OUTPUT.search(text):  # of which no error of a job follows
                self.told.said[int(found[1])] = self._before.pop(thread)
        elif record.levelno == logging.INFO and str(record.msg).startswith(STOPPING):
            self.told.interrupted = True
