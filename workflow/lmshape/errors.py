"""Errors that a user meets: each names the value, the rule and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class InputError(ValueError):
    """Input that the study cannot work with; the message says what to change."""


def suggest(value: object, valid: Iterable[str]) -> str:
    """Name the valid entries nearest to `value`, or all of them when none is near.

    Parameters
    ----------
    value : the entry that was given
    valid : the entries that exist

    Returns
    -------
    A sentence to append to an error message; empty when nothing is valid.
    """
    names = [str(name) for name in valid]
    near = difflib.get_close_matches(str(value), names, n=3, cutoff=0.5)
    if near:
        return f" Nearest: {', '.join(near)}."
    if names:
        return f" Valid: {', '.join(names[:20])}{', …' if len(names) > 20 else ''}."
    return ""


def unknown(what: str, value: object, valid: Iterable[str]) -> InputError:
    """Build the error for a name that does not exist, with the nearest names that do."""
    return InputError(f"unknown {what} `{value}`.{suggest(value, valid)}")


SOME = 5


def some_of(names: Sequence[str]) -> str:
    """List names for a sentence, the first few of many."""
    shown = ", ".join(names[:SOME])
    return f"{shown} and {len(names) - SOME} others" if len(names) > SOME else shown


def is_or_are(names: Sequence[str]) -> str:
    """Return the verb for as many names."""
    return "is" if len(names) == 1 else "are"


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its name."""
    return (str(error).strip() or repr(error)).splitlines()[0]
