"""Snakemake that asks SLURM for finished jobs every second.

The executor plugin waits ten seconds longer after each question that finds no success; no option says otherwise.
"""

from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

SECONDS_BETWEEN_QUESTIONS = 1.0

if __name__ == "__main__":
    RemoteExecutor.next_seconds_between_status_checks = property(
        lambda self: SECONDS_BETWEEN_QUESTIONS, lambda self, seconds: None
    )
    main()
