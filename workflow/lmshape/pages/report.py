"""Snakemake's own report of a study that is being run: its results by category, with captions and provenance.

Snakemake makes a report of what has been run, in a process of its own. Here that process is a job of the run itself, so
that the report is a file like any other: made again when what it shows has changed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from lmshape.errors import InputError
from lmshape.writing import replaced_when_whole


def write_report(output: Path, *, snakefile: Path, target: str, config: str) -> None:
    """Write Snakemake's report of `target` and all that leads to it, as one HTML file that needs no network.

    Parameters
    ----------
    output : HTML file to write
    snakefile : of the workflow; the working directory is the study's
    target : the results that it shows are those behind this file
    config : the study's configuration, as JSON

    Raises
    ------
    InputError
        When Snakemake makes none; its words stand above.
    """
    with replaced_when_whole(output) as partial, TemporaryDirectory() as folder:
        file, page = Path(folder) / "config.json", Path(folder) / "report.html"
        file.write_text(config, encoding="utf-8")
        # the run that this is a job of holds the study's lock, and has set what its own jobs shall have
        command = [
            sys.executable,
            "-m",
            "snakemake",
            "--snakefile",
            str(snakefile),
            "--configfile",
            str(file),
        ]
        command += ["--workflow-profile", "none", "--nolock", "--report", str(page), "--", target]
        if subprocess.run(command, check=False, env=_own_environment()).returncode or not page.is_file():
            raise InputError(f"Snakemake wrote no report of `{target}`; what it said stands above.")
        partial.write_bytes(page.read_bytes())


def _own_environment() -> dict[str, str]:
    """Leave out what Snakemake tells its jobs: a profile named by variable would add options to the command."""
    return {name: value for name, value in os.environ.items() if name != "SNAKEMAKE_PROFILE"}
