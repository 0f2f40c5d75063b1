"""What this machine has, told without importing torch: the workflow asks each time it is read."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path


@cache
def gpu_count() -> int:
    """NVIDIA GPUs that processes here may use: by their device files, as far as CUDA_VISIBLE_DEVICES lets them."""
    return visible_gpus(Path("/dev"), os.environ.get("CUDA_VISIBLE_DEVICES"))


def visible_gpus(devices: Path, visible: str | None) -> int:
    """Count the GPUs of a folder of device files of which a list of names lets some be seen; None: all.

    As CUDA reads it: names after -1, and all of an empty list, do not count.
    """
    present = len(list(devices.glob("nvidia[0-9]*")))
    if visible is None:
        return present
    names = [name.strip() for name in visible.split(",")]
    valid = names[: names.index("-1")] if "-1" in names else names
    return min(present, len([name for name in valid if name]))
