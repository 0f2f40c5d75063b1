"""What Snakemake prints, read: the jobs of a plan, and what is missing at the end."""

from __future__ import annotations

import re
from collections import Counter

JOB_STATISTICS = re.compile(r"^(\w+)\s+(\d+)$", re.MULTILINE)
MISSING = re.compile(
    r"^\d+ of \d+ cells? (?:is|are) missing .*?^What is done is kept.*?$\n  .*?$", re.MULTILINE | re.DOTALL
)


def jobs_of(output: str) -> Counter[str]:
    """Count the jobs that Snakemake plans, by rule; an empty counter where nothing is to be done."""
    table = output.partition("Job stats:")[2].partition("total")[0]
    return Counter({rule: int(count) for rule, count in JOB_STATISTICS.findall(table)})


def told_missing(output: str) -> str:
    """Return what `lmshape missing` said at the end of a run that failed."""
    told = MISSING.search(output)
    assert told, output
    return told[0]
