"""Values with their intervals in few bytes, read again by workflow/report/explore/numbers.js.

A value and the ends of its interval are written as whole numbers with common decimals, `DIGITS` digits of the largest
of the three. The bytes of like significance of all numbers stand together, since these repeat; zlib does the rest.
"""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass

import numpy as np

DIGITS = 7  # kept; the page shows `HIDDEN` fewer, the CSV files copied from it all of them
HIDDEN = 3
LEAST_DECIMALS, MOST_DECIMALS = -100, 100  # what the page can write; smaller numbers become 0
MOST_FLAGS = 2**16

# What there is of a number.
WITH_INTERVAL, WITHOUT_INTERVAL, NO_VALUE, ABSENT = range(4)


@dataclass(frozen=True, slots=True)
class Numbers:
    """Columns of equal length: values, the ends of their intervals, places of their flags in a list of texts.

    Attributes
    ----------
    value, low, high : (n,) float64; NaN where there is none
    flag : (n,) integers
    present : (n,) bool; whether the table has such a row at all
    """

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    flag: np.ndarray
    present: np.ndarray


def pack(numbers: Numbers) -> str:
    """Return columns as text for the page: 16 planes of n bytes, compressed, in base 64.

    The planes: decimals; what there is (`WITH_INTERVAL` and so on); 2 of the flag, then 4 each, the least significant
    byte first, of the value, of value less low, and of how much longer the upper half of the interval is.
    """
    there, decimals, (value, low, high) = _written(numbers)
    below = value - low
    longer = (high - value) - below
    planes = [
        decimals.astype(np.int8).view(np.uint8),
        there,
        *_planes(numbers.flag.astype("<u2")),
        *(plane for column in (value, below, longer) for plane in _planes(column.astype("<i4"))),
    ]
    return base64.b64encode(zlib.compress(np.concatenate(planes).tobytes())).decode()


def _written(numbers: Numbers) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Return what there is of each number, its decimals, and its three parts as whole numbers; 0 for what is not."""
    has_value = numbers.present & np.isfinite(numbers.value)
    has_interval = has_value & np.isfinite(numbers.low) & np.isfinite(numbers.high)
    value = np.where(has_value, numbers.value, 0.0)
    parts = [value, *(np.where(has_interval, end, value) for end in (numbers.low, numbers.high))]
    decimals = common_decimals(np.max(np.abs(parts), axis=0))
    there = np.select(
        [has_interval, has_value, numbers.present], [WITH_INTERVAL, WITHOUT_INTERVAL, NO_VALUE], ABSENT
    )
    return there.astype(np.uint8), decimals, [whole(part, decimals) for part in parts]


def common_decimals(largest: np.ndarray) -> np.ndarray:
    """Return the decimals with which numbers of this magnitude have `DIGITS` digits; 0 for zero."""
    magnitude = np.floor(np.log10(np.where(largest > 0, largest, 1.0)))
    decimals = np.where(largest > 0, DIGITS - 1 - magnitude, 0)
    return np.clip(decimals, LEAST_DECIMALS, MOST_DECIMALS).astype(np.int64)


def whole(numbers: np.ndarray, decimals: np.ndarray) -> np.ndarray:
    """Return numbers times 10^decimals, cut to whole numbers so that fewer digits of them round as the number does.

    Rounding twice may go wrong: 0.12345 from 0.123449, then 0.1235. What is cut off makes a last digit of 0 or 5 one
    greater (ROUND_05UP of the decimal arithmetic), which tells the second rounding that there was more.
    """
    scaled = np.abs(numbers) * np.power(10.0, decimals)
    nearest = np.rint(scaled)
    # float64: 0.29 times 10^8 is a little under 29 000 000
    exact = np.abs(scaled - nearest) <= 4 * np.spacing(scaled)
    cut = np.floor(scaled)
    cut = np.where((cut % 5 == 0) & (cut > 0), cut + 1, cut)
    return (np.sign(numbers) * np.where(exact, nearest, cut)).astype(np.int64)


def _planes(column: np.ndarray) -> np.ndarray:
    """Return the bytes of a column (n,), those of like significance together: (bytes of one number, n)."""
    return column.view(np.uint8).reshape(len(column), -1).T
