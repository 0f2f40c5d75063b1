"""What this machine has, told without importing torch: the workflow asks each time it is read."""

from __future__ import annotations

from pathlib import Path


def has_gpu() -> bool:
    """Whether an NVIDIA GPU is here, by its device file."""
    return any(Path("/dev").glob("nvidia[0-9]*"))
