"""What the comparison ran on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

import psutil
from threadpoolctl import threadpool_info

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
NAMED = ("numpy", "scipy", "numba", "torch", "scikit-learn", "scikit-dimension")


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """Return the name of the processor as the system tells it."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def description(threads: int) -> str:
    """Return processor, memory, threads and versions in two sentences."""
    import numpy  # noqa: F401, loads the BLAS that is named
    import scipy.linalg  # noqa: F401

    blas = sorted(
        {
            f"{pool['internal_api']} {pool['version']} ({pool.get('architecture', 'unknown')})"
            for pool in threadpool_info()
            if pool["user_api"] == "blas"
        }
    )
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in NAMED)
    many = f"{threads} thread{'s' if threads > 1 else ''}"
    return (
        f"{processor()}, {cores()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB of memory, {many} for every "
        f"method; {platform.system()}, Python {platform.python_version()}. {versions}; "
        f"NumPy's BLAS: {', '.join(blas)}."
    )
