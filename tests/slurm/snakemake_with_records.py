"""Snakemake, with two things that tests need: each job it starts is noted, and it asks for finished jobs often.

`python snakemake_with_records.py RECORDS ARGUMENTS…` appends a line of JSON to RECORDS for each job that is started,
or in a dry run would be: its rule, wildcards, threads and resources, and whether it runs here.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

SECONDS_BETWEEN_QUESTIONS = 1.5


class Recorder(logging.Filter):
    """Sees all that is logged: filters of a logger stay when Snakemake replaces its handlers."""

    def __init__(self, records: Path) -> None:
        super().__init__()
        self.records = records

    def filter(self, record: logging.LogRecord) -> bool:
        if str(getattr(record, "event", "")) == "job_info":
            job = {
                "rule": record.rule_name,
                "wildcards": list(record.wildcards.values()),
                "threads": record.threads,
                "resources": {name: value for name, value in record.resources.items() if name[0] != "_"},
                "local": record.local,
            }
            with self.records.open("a") as file:
                print(json.dumps(job, default=str), file=file)
        return True


if __name__ == "__main__":
    logging.getLogger("snakemake.logging").addFilter(Recorder(Path(sys.argv.pop(1))))
    # The plugin waits ten seconds longer after each question that finds no success; no option says otherwise.
    RemoteExecutor.next_seconds_between_status_checks = property(
        lambda self: SECONDS_BETWEEN_QUESTIONS, lambda self, seconds: None
    )
    main()
