"""Which rows may carry the leading axis of a site: those at position 0, other sinks, the rest; first newlines."""

from __future__ import annotations

import numpy as np

from lmshape.texts.tokens import Tokens

GROUPS = ("position_0", "other_sink", "rest")  # a row's group is the place of its name


def groups_of(sinks: np.ndarray, tokens: Tokens) -> np.ndarray:
    """Return the group of each row (n,), a place in `GROUPS`.

    Parameters
    ----------
    sinks : (n,) bool, position 0 and the rows whose norm is over 10 × the median of the site
    tokens : the n tokens
    """
    return np.where(tokens.position == 0, 0, np.where(sinks, 1, 2)).astype(np.int8)


def first_newlines(tokens: Tokens) -> np.ndarray | None:
    """Find the first newline of each sequence past its position 0; None where the texts of tokens are not known.

    A newline is a token of white space alone with a line feed in it, one or more. In Pythia it is a sink, as position
    0 is.

    Returns
    -------
    (n,) bool, at most one True a sequence.
    """
    if not tokens.texts:
        return None
    newlines = [token for token, text in tokens.texts.items() if "\n" in text and not text.strip()]
    index = np.flatnonzero(np.isin(tokens.ids, newlines) & (tokens.position > 0))
    _, first = np.unique(tokens.sequence[index], return_index=True)
    found = np.zeros(len(tokens.ids), dtype=bool)
    found[index[first]] = True
    return found
