"""Compare the measuring engine with its peers and write the tables of docs/benchmarks.md.

make bench                                    # everything: about a quarter of an hour on 2 cores
python -m benchmarks --rows 2000 --print      # a try: small clouds, nothing written
"""

from __future__ import annotations

import datetime
import time
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import REPOSITORY
from benchmarks.clouds import CLOUDS, ROWS, saved
from benchmarks.machine import cores, description
from benchmarks.pages import parser_of, publish
from benchmarks.runs import Run, run
from benchmarks.sections import LOOP_ROWS, dimension_section, neighbors_section, spectrum_section

PAGE = REPOSITORY / "docs/benchmarks.md"
COMMAND = "make bench"
SQUARE = 3072  # rows of the matrices whose product gives the machine's rate


def compare(rows: int, threads: int) -> str:
    """Run every comparison on clouds of at most so many rows and return the tables."""
    begun = time.perf_counter()
    paths = {cloud.name: saved(cloud, rows) for cloud in CLOUDS}
    massive = next(cloud for cloud in CLOUDS if cloud.name == "decoder-15")
    fewer = [saved(massive, few) for few in LOOP_ROWS if few <= rows] or [paths[massive.name]]
    runner = partial(_told, threads=threads)
    measured = runner("rate", "rates", fewer[0], min(SQUARE, 4 * rows))
    if measured.failure:
        raise RuntimeError(f"the rate of the matrix product was not measured: {measured.failure}")
    single, double = measured.found
    parts = [
        f"{datetime.date.today():%d %B %Y}. {description(threads)}",
        f"Matrix product, measured in this run: {single:.0f} GFLOP/s in float32, {double:.0f} in float64.",
        "## Neighbors",
    ]
    for cloud in CLOUDS:
        for k in cloud.neighbors:
            parts.append(neighbors_section(cloud, paths[cloud.name], k, single, runner))
    middle = paths["decoder-15"]
    parts += ["## From rows to a dimension: SmolLM2, block 15", dimension_section(middle, fewer, runner)]
    parts += ["## Spectra: SmolLM2, block 15", spectrum_section(middle, runner)]
    parts.append(f"The whole run took {(time.perf_counter() - begun) / 60:.0f} minutes.")
    return "\n\n".join(parts)


def _told(task: str, name: str, cloud: Path, k: int, *, threads: int) -> Run:
    found = run(task, name, cloud, k, threads=threads)
    shape = "×".join(map(str, np.load(cloud, mmap_mode="r").shape))
    outcome = found.failure or f"{found.seconds:.2f} s, best of {found.runs}"
    print(f"{task} {name} {cloud.stem} {shape} k={k}: {outcome}", flush=True)
    return found


def main() -> None:
    """Read the arguments, compare, and write or print."""
    parser = parser_of(__doc__, PAGE)
    parser.add_argument("--rows", type=int, default=ROWS, help="most rows of a cloud")
    parser.add_argument("--threads", type=int, default=cores())
    arguments = parser.parse_args()
    text = compare(arguments.rows, arguments.threads)
    publish(text, PAGE, COMMAND, arguments)


if __name__ == "__main__":
    main()
