"""Which rows of a site are sinks, by position and by token, for a reader who wants to trust its numbers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Iterable

import numpy as np

from lmshape.texts.tokens import Tokens

MOST_NAMED = 20  # positions and tokens by name; the others are one number


def sinks_by_name(sinks: np.ndarray, tokens: Tokens) -> dict[str, str | int]:
    """Say which rows of a site are sinks: attributes that each of its entries in a statistics archive has.

    Parameters
    ----------
    sinks : (n,) bool, the rows that `no_sink` leaves out
    tokens : the n tokens

    Returns
    -------
    `sink_rows`, how many there are; `sink_positions` and `sink_tokens`, JSON objects from the position in the
    sequence, and from the token, to its sink rows: the 20 most common, the rest together under "other".
    A token is named by the `repr` of its text, or by its id where the text is not known.
    """
    named = (_name(int(token), tokens) for token in tokens.ids[sinks])
    return {
        "sink_rows": int(np.count_nonzero(sinks)),
        "sink_positions": most_common(tokens.position[sinks].tolist()),
        "sink_tokens": most_common(named),
    }


def most_common(names: Iterable[Hashable]) -> str:
    """Return name → count as JSON text, most common first, ties in order of their first appearance."""
    counts = Counter(names).most_common()
    named, others = dict(counts[:MOST_NAMED]), sum(count for _, count in counts[MOST_NAMED:])
    return json.dumps(named | ({"other": others} if others else {}), ensure_ascii=False)


def _name(token: int, tokens: Tokens) -> str:
    return repr(tokens.texts[token]) if token in tokens.texts else str(token)
