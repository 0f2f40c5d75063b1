"""Methods run one after the other, each in its own process with the same number of threads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import BENCH, REPOSITORY
from benchmarks.machine import THREAD_VARIABLES
from benchmarks.methods import METHODS, Task

LONGEST_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Run:
    """What a method found on a cloud, and what that took.

    Attributes
    ----------
    title : of the method, with the version of its package
    found : its result; empty where it has none
    seconds, runs : the shortest of so many runs; NaN where it failed
    megabytes : resident memory (MiB) beyond the rows as they came and what importing took
    failure : why there is no result; "" where there is one
    """

    title: str
    found: np.ndarray
    seconds: float
    runs: int
    megabytes: float
    failure: str = ""


def run(task: Task, name: str, cloud: Path, k: int, *, threads: int) -> Run:
    """Run a method on the rows of a file; a method that fails or is not installed is told, not raised."""
    method = METHODS[task][name]
    folder = BENCH / method.environment
    python = str(folder / "bin/python") if method.environment else sys.executable
    if not Path(python).exists():
        return _failed(method.title, f"not installed: {method.package}")
    environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))}
    with tempfile.TemporaryDirectory() as place:
        result = Path(place) / "found.npy"
        command = [python, "-m", "benchmarks.worker", task, name, str(cloud.resolve()), str(k), str(result)]
        try:
            done = subprocess.run(
                command,
                cwd=REPOSITORY,
                env=environment,
                capture_output=True,
                text=True,
                timeout=LONGEST_SECONDS,
            )
        except subprocess.TimeoutExpired:
            return _failed(method.title, f"not done in {LONGEST_SECONDS} s")
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            return _failed(method.title, lines[-1])
        taken = json.loads(done.stdout.strip().splitlines()[-1])
        found = np.load(result)
    title = f"{method.title} ({taken['version']})" if taken["version"] else method.title
    return Run(title, found, taken["seconds"], taken["runs"], taken["megabytes"])


def _failed(title: str, why: str) -> Run:
    return Run(title, np.empty(0), float("nan"), 0, float("nan"), why)
