"""The audit of every site in the archives of a model: repeated rows, sinks, and how exact the neighbors are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

Value = str | int | float

AUDIT_DESCRIPTIONS = {
    "study": "name of the study, from the config",
    "model": "name of the model, from the registry",
    "checkpoint": "name of the checkpoint",
    "step": "training steps before the checkpoint",
    "dataset": "name of the dataset, from the registry",
    "site": "embedding, block or final_norm",
    "layer": "0 for the embedding, l after block l; the number of blocks for final_norm",
    "rows": "all; no_sink: without the attention sinks; one_per_type: a row of each token id in a draw",
    "n_rows": "number of token rows over all draws",
    "n_unique": "rows that repeat none of their own draw",
    "duplicates": "rows that repeat another of their draw: neighbors are searched without them",
    "zero_rows": "rows of zeros, which have no direction: mean_cosine leaves them out; empty where not counted",
    "sink_rows": "sinks of the site, position 0 and rows over 10 × its median norm, which no_sink leaves out",
    "sink_positions": "position in the sequence → sink rows there, JSON: the 20 most common, then other",
    "sink_tokens": "token, its text in quotes or its id → sink rows of it, JSON: the 20 most common, then other",
    "audit_error": "largest relative error of the neighbor distances of 200 random rows against direct differences",
    "recomputed": "rows whose neighbors could not be certified at first and were searched again",
    "flag": "why the neighbors were not audited, or a doubt about these rows; empty when fine",
}
AUDIT_INTEGERS = ("step", "layer", "n_rows", "n_unique", "duplicates", "zero_rows", "sink_rows", "recomputed")
AUDIT_REALS = ("audit_error",)

# Which family is asked first how many rows there are: paired ones count rows that two sites share, and the released
# protocol's takes the first 4096.
_ASKED = ("neighbor", "spectral", "angular")
_SITES = ("embedding", "block", "final_norm")


class Audits:
    """Collect what the entries of statistics archives say of their rows.

    Parameters
    ----------
    study : name of the study
    """

    def __init__(self, study: str) -> None:
        self._study = study
        self._found: dict[tuple[Value, ...], dict[str, Mapping[str, Value]]] = {}

    def add(
        self, cell: Mapping[str, Value], site: str, layer: int, rows: str, attributes: Mapping[str, Value]
    ) -> None:
        """Take the attributes of one entry of an archive whose root attributes are `cell`; a loss card has none."""
        if site in _SITES:
            key = (*(cell[name] for name in ("model", "checkpoint", "step", "dataset")), site, layer, rows)
            self._found.setdefault(key, {})[str(cell["family"])] = attributes

    def rows(self) -> list[dict[str, Value | None]]:
        """Return the rows of the table, by step, checkpoint and dataset in the order of the files."""
        datasets = list(dict.fromkeys(key[3] for key in self._found))
        ordered = sorted(self._found, key=lambda key: _order(key, datasets))
        return [self._row(key) for key in ordered]

    def _row(self, key: tuple[Value, ...]) -> dict[str, Value | None]:
        model, checkpoint, step, dataset, site, layer, rows = key
        families = self._found[key]
        place = {"site": site, "layer": layer, "rows": rows}
        cell = {"model": model, "checkpoint": checkpoint, "step": step, "dataset": dataset}
        counts = families[_first_of(families)]
        neighbors, angles = families.get("neighbor", {}), families.get("angular", {})
        return {
            "study": self._study,
            **cell,
            **place,
            **{name: counts.get(name) for name in ("n_rows", "n_unique")},
            "duplicates": int(counts["n_rows"]) - int(counts["n_unique"]),
            "zero_rows": angles.get("zero_rows"),
            **{name: counts.get(name) for name in ("sink_rows", "sink_positions", "sink_tokens")},
            **{name: neighbors.get(name) for name in ("audit_error", "recomputed")},
            "flag": _flag(counts, neighbors),
        }


def _flag(counts: Mapping[str, Value], neighbors: Mapping[str, Value]) -> str:
    """Return the doubt about the rows, else why there is no audit of their neighbors."""
    flag = str(neighbors.get("flag") or counts["flag"])
    if flag or "audit_error" in neighbors:
        return flag
    return "neighbors not audited" if neighbors else "neighbors not measured"


def _first_of(families: Iterable[str]) -> str:
    return min(families, key=lambda name: (_ASKED.index(name) if name in _ASKED else len(_ASKED), name))


def _order(key: tuple[Value, ...], datasets: list[Value]) -> tuple[Value, ...]:
    _, checkpoint, step, dataset, site, layer, rows = key
    return (step, checkpoint, datasets.index(dataset), layer, _SITES.index(site), rows)
