"""Numbers of bytes as people write them."""

from __future__ import annotations

import math

_UNITS = (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3))


def size_text(size: float) -> str:
    """Write a number of bytes with three digits and a decimal unit, as disks and the hub count.

    >>> size_text(910_000_000)
    '910 MB'
    """
    for unit, bytes_of_unit in _UNITS:
        count = size / bytes_of_unit
        if count >= 0.9995:  # what three digits round to 1.00
            decimals = 2 if count < 9.995 else 1 if count < 99.95 else 0
            return f"{count:.{decimals}f} {unit}"
    return f"{size:.0f} B"


def gigabytes_above(size: float) -> str:
    """Write a number of bytes in gigabytes, rounded up, as a bound that holds them.

    >>> gigabytes_above(6_301_000_000)
    '6.31'
    """
    return f"{math.ceil(size / 10**7) / 100:.12g}"
