"""The median magnitude of the entries of many rows, exactly, from counts of their digits: in little memory.

The bits of a float without its sign are in the order of its size. Sixteen at a time, from the first, are counted; the
middle of the counts says which the median starts with, and the next pass counts the following sixteen of the entries
that start so: two passes for float32, four for float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

DIGIT_BITS = 16
DIGITS = 2**DIGIT_BITS

Blocks = Callable[[], Iterable[tuple[int, np.ndarray]]]


def median_magnitudes(blocks: Blocks, subsets: Sequence[Sequence[int]]) -> np.ndarray:
    """Return the median of |entry| over the rows of each union of parts, float64 (len(subsets),).

    Parameters
    ----------
    blocks : starts a pass over (part, rows (m, d)): float16, float32 or float64, one dtype in all
    subsets : parts of each union, none of them empty
    """
    parts = 1 + max(part for subset in subsets for part in subset)
    dtype = next(iter(blocks()))[1].dtype
    word = np.dtype(f"u{dtype.itemsize}")
    starts = np.zeros((len(subsets), 2), dtype=word)  # what the two middle entries of each union start with
    ranks = np.zeros((len(subsets), 2), dtype=np.int64)  # and how many with this start are smaller
    for shift in range(8 * dtype.itemsize - DIGIT_BITS, -1, -DIGIT_BITS):
        known = np.unique(starts)
        counts = _count_digits(blocks(), known, shift=shift, parts=parts)
        for own, subset in enumerate(subsets):
            united = counts[list(subset)].sum(axis=0)
            if shift == 8 * dtype.itemsize - DIGIT_BITS:
                entries = int(united.sum())
                ranks[own] = (entries - 1) // 2, entries // 2
            for middle in (0, 1):
                digit, ranks[own, middle] = _digit(
                    united[known == starts[own, middle]][0], ranks[own, middle]
                )
                starts[own, middle] = int(starts[own, middle]) << DIGIT_BITS | digit
    return starts.view(dtype).astype(np.float64).mean(axis=1)


def count_over(blocks: Blocks, limits: np.ndarray, subsets: Sequence[Sequence[int]]) -> np.ndarray:
    """Return how many entries of each union of parts are of a magnitude over its limit, int64 (len(subsets),)."""
    counts = np.zeros(len(subsets), dtype=np.int64)
    lowest = limits.min()
    for part, rows in blocks():
        sizes = np.abs(rows)
        large = sizes[sizes > lowest].astype(np.float64)
        for own, subset in enumerate(subsets):
            if part in subset and len(large):
                counts[own] += np.count_nonzero(large > limits[own])
    return counts


def _count_digits(
    blocks: Iterable[tuple[int, np.ndarray]], known: np.ndarray, *, shift: int, parts: int
) -> np.ndarray:
    """Count the digits at `shift` of the entries that start with each of `known`: (parts, len(known), DIGITS)."""
    counts = np.zeros((parts, len(known), DIGITS), dtype=np.int64)
    for part, rows in blocks:
        bits = np.abs(rows).view(known.dtype).ravel()
        digits = (bits >> shift & (DIGITS - 1)).astype(np.intp)
        if shift == 8 * known.dtype.itemsize - DIGIT_BITS:
            counts[part, 0] += np.bincount(digits, minlength=DIGITS)
            continue
        starts = bits >> (shift + DIGIT_BITS)
        for place, start in enumerate(known):
            counts[part, place] += np.bincount(digits[starts == start], minlength=DIGITS)
    return counts


def _digit(counts: np.ndarray, rank: int) -> tuple[int, int]:
    """Return the digit of the entry with `rank` smaller ones, and its rank among the entries of that digit."""
    ends = np.cumsum(counts)
    digit = int(np.searchsorted(ends, rank, side="right"))
    return digit, int(rank - (ends[digit - 1] if digit else 0))
