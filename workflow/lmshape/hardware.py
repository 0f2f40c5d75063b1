"""What this machine has, told without importing torch: the workflow asks each time it is read."""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def gpu_count() -> int:
    """NVIDIA GPUs of this machine, by their device files."""
    return len(list(Path("/dev").glob("nvidia[0-9]*")))
