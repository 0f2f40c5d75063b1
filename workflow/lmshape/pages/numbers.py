"""Numbers and tables of the page: each number with its interval and no more decimals than that supports."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, isnan, log10, nan
from typing import Any

import pandas as pd

MOST_ROWS = 2000  # of a table in the page; the whole is in its CSV file
MOST_DECIMALS = 4  # of a number that may be 0; one whose interval excludes 0 has up to two more
FINEST = 8  # decimals that tell a bound from a threshold; what is nearer is rounding


@dataclass(frozen=True, slots=True)
class Entry:
    """One cell of a table: its text, its sort key, and the reason to read it with care."""

    text: str
    key: float | str
    flag: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the page; `total` counts its rows before it was cut to `MOST_ROWS`."""

    columns: list[str]
    rows: list[list[Entry]]
    total: int


def table(frame: pd.DataFrame) -> Table:
    """Turn a frame into what the page shows: numbers shortly, NaN as a dash, at most `MOST_ROWS` rows."""
    rows = [[_cell(value) for value in row] for row in frame.head(MOST_ROWS).itertuples(index=False)]
    return Table([str(name).replace("_", " ") for name in frame.columns], rows, len(frame))


def _cell(value: Any) -> Entry:
    if isinstance(value, Entry):
        return value
    if isinstance(value, str):
        return Entry(value, value)
    if pd.isna(value):
        return Entry("–", "")
    return Entry(_short(float(value)), float(value))


def _short(number: float) -> str:
    """Write a number without interval: whole from 1000 on, else with three digits."""
    whole = abs(number) >= 1000 or number == round(number)
    return f"{number:,.0f}" if whole else f"{number:.3g}"


def interval(row: pd.Series, name: str = "value", *, flag: str = "flag", apart_from: float = nan) -> Entry:
    """Write a number with its interval, 0.230 [0.211, 0.249], with no more decimals than the interval supports.

    The interval of `name` is in `name`_low and _high, or ci_low and ci_high. A bound that is not `apart_from`, the
    threshold of a rule, is not written as if it were.
    """
    own = name if f"{name}_low" in row else "ci"
    value, low, high = (float(row[column]) for column in (name, f"{own}_low", f"{own}_high"))
    why = str(row.get(flag) or "")
    if isnan(value):
        return Entry("–", "", why)
    return Entry(_short(value) if isnan(low) else _with_bounds(value, low, high, apart_from), value, why)


def _with_bounds(value: float, low: float, high: float, threshold: float) -> str:
    if high == low or all(number == round(number) for number in (value, low, high)):
        return f"{_short(value)} [{_short(low)}, {_short(high)}]"
    most = MOST_DECIMALS + 2 * (low * high > 0)
    # The particle data group's rule: an error of 0.011 to 0.035 has two digits, one of 0.036 to 0.099 has one.
    decimals = min(max(2 - ceil(log10((high - low) / 2 / 0.355)), 0), most)
    while decimals < FINEST and any(bound != threshold == round(bound, decimals) for bound in (low, high)):
        decimals += 1
    # + 0.0: what rounds to 0 from below has no sign.
    written = [f"{round(number, decimals) + 0.0:,.{decimals}f}" for number in (value, low, high)]
    return f"{written[0]} [{written[1]}, {written[2]}]"
