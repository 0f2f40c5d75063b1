"""Memory that arrays leave: kept for the next ones, as the C library would return it and have new pages zeroed."""

from __future__ import annotations

import ctypes
import sys

TRIM_THRESHOLD, MAP_THRESHOLD = -1, -3  # glibc's names for its parameters, malloc.h
MAPPED_BYTES = 2**28  # arrays beyond have pages of their own, which go back at once
KEPT_BYTES = 2**31 - 1  # most that mallopt takes


def keep_freed_memory() -> None:
    """Let this process keep freed memory, up to 2 GiB, from now on; without glibc nothing happens.

    Matrices of 32 MiB are otherwise mapped anew each time: over a tenth of the time of linearity at width 2048.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(MAP_THRESHOLD, MAPPED_BYTES)
        mallopt(TRIM_THRESHOLD, KEPT_BYTES)
