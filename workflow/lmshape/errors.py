"""Errors that a user meets: each names the value, the rule and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager


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


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its name."""
    return (str(error).strip() or repr(error)).splitlines()[0]


@contextmanager
def about(what: str) -> Iterator[None]:
    """Put what an input error is about in front of its message."""
    try:
        yield
    except InputError as error:
        raise InputError(f"`{what}`: {error}") from None


class Problems(list[str]):
    """Faults of one input, a sentence each, that are told together."""

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Add an input error of a block to the list, and go on behind the block."""
        try:
            yield
        except InputError as error:
            self.append(str(error))

    def raise_all(self, *, what: str) -> None:
        """Raise one error that tells every problem once, if there is any."""
        told = list(dict.fromkeys(self))
        if len(told) == 1:
            raise InputError(told[0])
        if told:
            raise InputError(
                f"{len(told)} faults in {what}:\n" + "\n".join(f"- {problem}" for problem in told)
            )
