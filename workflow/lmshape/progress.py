"""Progress: a bar on a terminal, occasional lines in a log file."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from typing import Any

from tqdm import tqdm

SECONDS_BETWEEN_LOG_LINES = 15


class _Lines:
    """A stream on which every refresh of the bar becomes a line of its own."""

    def write(self, text: str) -> None:
        line = text.strip()
        if line:
            sys.stderr.write(line + "\n")

    def flush(self) -> None:
        sys.stderr.flush()


def progress(total: int, *, description: str, unit: str, done: int = 0) -> tqdm:
    """Count `total` units of work: done, rate and time left.

    Parameters
    ----------
    total, done : units of work, and how many of them were done before
    description, unit : what is worked on, and the word for one unit

    Returns
    -------
    A tqdm bar; in a log file it writes a line every 15 seconds, and no control characters.
    """
    lines: dict[str, Any] = {
        "file": _Lines(),
        "mininterval": SECONDS_BETWEEN_LOG_LINES,
        "maxinterval": inf,
        "bar_format": "{desc}: {n_fmt}/{total_fmt}{unit} ({percentage:.0f} %), {rate_fmt}, {remaining} left{postfix}",
    }
    return tqdm(
        total=total,
        initial=done,
        desc=description,
        unit=f" {unit}",
        unit_scale=total > 10_000,
        **({} if sys.stderr.isatty() else lines),
    )


@contextmanager
def site_by_site(total: int, *, family: str) -> Iterator[Callable[[str], None]]:
    """Give a function to call with the name of each of `total` sites when it is measured.

    A bar on a terminal, one line per site in a log file.
    """
    terminal = sys.stderr.isatty()
    started = time.monotonic()
    with tqdm(total=total, desc=family, unit="layer", disable=not terminal) as bar:

        def finished(site: str) -> None:
            nonlocal started
            seconds, started = time.monotonic() - started, time.monotonic()
            bar.update()
            if not terminal:
                print(f"{family}: {site} measured in {seconds:.1f} s", file=sys.stderr, flush=True)

        yield finished


def size_text(size: float) -> str:
    """Write a number of bytes with three digits and a decimal unit, as disks and the hub count.

    >>> size_text(910_000_000)
    '910 MB'
    """
    if size < 999.5:  # what three digits round to 1.00 kB
        return f"{size:.0f} B"
    text = tqdm.format_sizeof(size)
    return f"{text[:-1]} {text[-1]}B"


def gigabytes_above(size: float) -> str:
    """Write a number of bytes in gigabytes, rounded up, as a bound that holds them.

    >>> gigabytes_above(6_301_000_000)
    '6.31'
    """
    return f"{math.ceil(size / 10**7) / 100:.12g}"
