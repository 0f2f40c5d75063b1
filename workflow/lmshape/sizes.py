"""Numbers of bytes as people write them."""

from __future__ import annotations

_UNITS = (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3))


def size_text(size: float) -> str:
    """Write a number of bytes with three digits and a decimal unit, as disks and the hub count.

    >>> size_text(910_000_000)
    '910 MB'
    """
    for unit, bytes_of_unit in _UNITS:
        if size >= bytes_of_unit:
            return f"{size / bytes_of_unit:#.3g}".rstrip(".") + f" {unit}"
    return f"{size:.0f} B"
