"""The audit of a site: which of its rows repeat, which are sinks, and how exact its neighbor distances are."""

from __future__ import annotations

from collections.abc import Mapping

from lmshape.store.hdf5 import Attributes
from lmshape.tables.columns import SITES, Row, declare, integer, real, shared, text

AUDIT_COLUMNS = declare(
    *shared("study model checkpoint step dataset"),
    text("site", "embedding, block or final_norm"),
    integer("layer", "0 for the embedding, l after block l; the number of blocks for final_norm"),
    *shared("rows"),
    integer("n_rows", "number of token rows over all draws"),
    integer("n_unique", "rows that repeat none of their own draw"),
    integer("duplicates", "rows that repeat another of their draw: neighbors are searched without them"),
    integer(
        "zero_rows",
        "rows of zeros, which have no direction: mean_cosine leaves them out; empty where not counted",
    ),
    integer(
        "sink_rows",
        "sinks of the site, position 0 and rows over 10 × its median norm, which no_sink leaves out",
    ),
    text(
        "sink_positions",
        "position in the sequence → sink rows there, JSON: the 20 most common, then other",
    ),
    text(
        "sink_tokens",
        "token, its text in quotes or its id → sink rows of it, JSON: the 20 most common, then other",
    ),
    real(
        "audit_error",
        "largest relative error of the neighbor distances of 200 random rows against direct differences",
    ),
    integer("recomputed", "rows whose neighbors could not be certified at first and were searched again"),
    text("flag", "why the neighbors were not audited, or a doubt about these rows; empty when fine"),
)

# The families in the order in which they are asked how many rows there are; all others come behind, by name. Paired
# families count the rows that two sites share, and the released protocol's takes the first 4096.
_ASKED = ("neighbor", "spectral", "angular")


class Audits:
    """Collect what the entries of statistics archives say of their rows.

    Parameters
    ----------
    study : name of the study
    """

    def __init__(self, study: str) -> None:
        self._study = study
        self._datasets: dict[str, int] = {}
        self._found: dict[tuple[object, ...], tuple[Row, dict[str, Attributes]]] = {}

    def add(self, cell: Attributes, site: str, layer: int, rows: str, attributes: Attributes) -> None:
        """Take the attributes of one entry of a file whose root attributes are `cell`; a loss has no rows."""
        if site == "output":
            return
        own = {name: cell[name] for name in ("model", "checkpoint", "step", "dataset")}
        place = {"study": self._study, **own, "site": site, "layer": layer, "rows": rows}
        dataset = self._datasets.setdefault(str(cell["dataset"]), len(self._datasets))
        key = (cell["step"], cell["checkpoint"], dataset, layer, SITES.index(site), rows)
        self._found.setdefault(key, (place, {}))[1][str(cell["family"])] = attributes

    def rows(self) -> list[Row]:
        """Return the rows of the table, by step, checkpoint and dataset in the order of the files."""
        return [_row(*self._found[key]) for key in sorted(self._found)]


def _row(place: Row, families: Mapping[str, Attributes]) -> Row:
    counts = families[min(families, key=_asked)]
    neighbors = families.get("neighbor", {})
    return {
        **place,
        **{name: counts.get(name) for name in ("n_rows", "n_unique")},
        "duplicates": int(counts["n_rows"]) - int(counts["n_unique"]),
        "zero_rows": families.get("angular", {}).get("zero_rows"),
        **{name: counts.get(name) for name in ("sink_rows", "sink_positions", "sink_tokens")},
        **{name: neighbors.get(name) for name in ("audit_error", "recomputed")},
        "flag": _flag(counts, neighbors),
    }


def _asked(family: str) -> tuple[int, str]:
    return _ASKED.index(family) if family in _ASKED else len(_ASKED), family


def _flag(counts: Attributes, neighbors: Attributes) -> str:
    """Return the doubt about the rows, else why there is no audit of their neighbors."""
    flag = str(neighbors.get("flag") or counts["flag"])
    if flag or "audit_error" in neighbors:
        return flag
    return "neighbors not audited" if neighbors else "neighbors not measured"
