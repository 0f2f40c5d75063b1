"""What a study hands to Snakemake and to a cluster: jobs, the time and memory of planning them, overhead, disk.

python -m benchmarks.cluster            # a few minutes; writes to docs/cluster.md
python -m benchmarks.cluster --print    # nothing written
"""

from __future__ import annotations

import datetime
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks import REPOSITORY
from benchmarks.machine import cores, processor
from benchmarks.pages import parser_of, publish, table
from lmshape.jobs.plan import Work, disk_peak, plan_of, submissions_of, submitted_of
from lmshape.progress import size_text
from lmshape.study.study import Study, study_of

PAGE = REPOSITORY / "docs/cluster.md"
COMMAND = "python -m benchmarks.cluster"
STUDIES = {
    "embedded": (REPOSITORY / "config/config.yaml", {}),
    "pythia": (REPOSITORY / "config/studies/pythia.yaml", {}),
    "olmo": (REPOSITORY / "config/studies/olmo.yaml", {}),
    "pythia, all 154 checkpoints": (REPOSITORY / "config/studies/pythia.yaml", {"checkpoints": "all"}),
}
_COUNT = re.compile(r"^(\w+)\s+(\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Planning:
    """A dry run of a new study: jobs by rule, wall and CPU seconds, most resident bytes."""

    jobs: dict[str, int]
    seconds: float
    cpu_seconds: float
    resident: int


def planning(configfile: Path, folder: Path) -> Planning:
    """Plan a study as `snakemake -n` does, and measure the process."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile"), "--dry-run"]
    command += ["--quiet", "rules", "--configfile", str(configfile), "--directory", str(folder)]
    with tempfile.TemporaryFile("w+") as output:
        begun = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begun
        output.seek(0)
        text = output.read()
    if status:
        raise RuntimeError(f"`{configfile}` cannot be planned:\n{text}")
    counts = text.partition("Job stats:")[2].partition("total")[0]
    jobs = {rule: int(count) for rule, count in _COUNT.findall(counts)}
    return Planning(jobs, seconds, usage.ru_utime + usage.ru_stime, 1024 * usage.ru_maxrss)


def plans() -> tuple[list[list[str]], list[list[str]]]:
    """Plan every study; rows of the table of studies, and of the submitted jobs of Pythia by model."""
    studies, models = [], []
    with tempfile.TemporaryDirectory() as name:
        for number, (title, (source, changes)) in enumerate(STUDIES.items()):
            configfile = Path(name) / f"{number}.yaml"
            configfile.write_text(yaml.safe_dump({**yaml.safe_load(source.read_text()), **changes}))
            planned = planning(configfile, Path(name) / f"{number}")
            study = study_of(configfile, Path(name) / f"{number}")
            studies.append(_study_row(title, planned, study))
            if title == "pythia":
                models = [_model_row(*one) for one in submissions_of(study).items()]
            print(f"{title}: {planned.seconds:.1f} s", file=sys.stderr)
    return studies, models


def _study_row(title: str, planned: Planning, study: Study) -> list[str]:
    submitted = sum(submissions_of(study).values(), Work())
    peak, _ = disk_peak(plan_of(study), study)
    return [
        title,
        f"{sum(planned.jobs.values()):,}",
        f"{submitted_of(planned.jobs):,}",
        f"{planned.seconds:.1f} s",
        f"{planned.cpu_seconds:.1f} s",
        size_text(planned.resident),
        f"{submitted.seconds / 3600:,.0f} h",
        f"{submitted.overhead:.1%}",
        size_text(peak),
    ]


def _model_row(model: str, one: Work) -> list[str]:
    a_job = one.seconds / one.jobs
    return [
        model,
        f"{one.jobs}",
        f"{a_job:,.0f} s",
        f"{one.overhead_seconds / one.jobs:.0f} s",
        f"{one.overhead:.1%}",
    ]


def main() -> None:
    """Measure, and write the tables."""
    arguments = parser_of(__doc__, PAGE).parse_args()
    studies, models = plans()
    head = "study | jobs | submitted | planning | CPU | memory | job time | overhead | disk, at most"
    text = (
        f"{datetime.date.today()}, {processor()}, {cores()} cores.\n\n{table(head, studies)}\n\n"
        "Submitted jobs of `pythia`, as the cost model has them:\n\n"
        + table("model | submitted | a job takes | of it overhead | share", models)
    )
    publish(text, PAGE, COMMAND, arguments)


if __name__ == "__main__":
    main()
