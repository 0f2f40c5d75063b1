"""One method on one cloud in a process of its own: `python -m benchmarks.worker TASK METHOD CLOUD K RESULT`.

Its result goes to a file, and what it took to one line of JSON. Nothing of the project is imported but by the
method, so that DADApy's environment can run it.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np

from benchmarks.methods import METHODS, Method

REPEATS = 3
FEWEST_RUNS = 2  # a first run may pay for page faults that a second does not: ten times as long, for one peer
ENOUGH_SECONDS = 15.0  # a third run follows only where the first two took less
ENDURED_SECONDS = 60.0  # and a second only where the first did
WARM_ROWS = 80  # more than 64 neighbors; enough to import and compile what every size needs


def measure(method: Method, x: np.ndarray, k: int) -> tuple[np.ndarray, dict[str, float | int]]:
    """Return what a method finds, with the shortest time of up to three runs and the memory of the first."""
    if len(x) > WARM_ROWS:
        method.run(x[:WARM_ROWS], k)
    before = resident("VmRSS")
    seconds = []
    memory = 0.0
    while _again(seconds):
        start = time.perf_counter()
        found = method.run(x, k)
        seconds.append(time.perf_counter() - start)
        memory = memory or resident("VmHWM") - before
    return found, {"seconds": min(seconds), "runs": len(seconds), "megabytes": memory / 2**20}


def _again(seconds: list[float]) -> bool:
    """Tell whether a method that has taken these times shall run once more."""
    if len(seconds) < FEWEST_RUNS:
        return sum(seconds) < ENDURED_SECONDS
    return len(seconds) < REPEATS and sum(seconds) < ENOUGH_SECONDS


def resident(name: str) -> float:
    """Return the resident memory of this process, bytes: `VmRSS` now, `VmHWM` at most; NaN outside Linux.

    Not that of `getrusage`, which begins at the parent's.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return float(fields[name].split()[0]) * 1024


def main() -> None:
    """Run what the arguments name."""
    task, name, cloud, k, result = sys.argv[1:]
    warnings.simplefilter("ignore")  # of the peers; what they return is compared
    method = METHODS[task][name]
    x = np.load(cloud)
    found, taken = measure(method, x, int(k))
    np.save(result, np.asarray(found, dtype=np.float64))
    version = importlib.metadata.version(method.package) if method.package else ""
    print(json.dumps({**taken, "version": version}))


if __name__ == "__main__":
    main()
