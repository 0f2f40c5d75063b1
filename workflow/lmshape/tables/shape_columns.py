"""What the tables `spectra` and `clouds` have in common: which model, checkpoint, dataset and layer a row is of."""

from __future__ import annotations

from collections.abc import Mapping

from lmshape.bands import named_layers
from lmshape.store import LayerStatistics, Site
from lmshape.tables.columns import COLUMN_DESCRIPTIONS, Value

_PLACE = ("study", "model", "kind", "checkpoint", "step", "dataset", "site", "layer", "depth")
PLACE_DESCRIPTIONS = {
    **{name: COLUMN_DESCRIPTIONS[name] for name in _PLACE},
    "band": "early, middle or last: a quarter and half of the way up, and the last block",
    "rows": COLUMN_DESCRIPTIONS["rows"],
}
PLACE_INTEGERS = ("step", "layer")
PLACE_REALS = ("depth",)


def named_sites(attributes: Mapping[str, Value]) -> dict[Site, str]:
    """Return the blocks that stand for the network of an archive, and the name of each."""
    return {Site("block", layer): name for name, layer in named_layers(int(attributes["blocks"])).items()}


def place_of(
    study: str, attributes: Mapping[str, Value], entry: LayerStatistics, band: str
) -> dict[str, Value]:
    """Return the columns that say where an entry of an archive was taken."""
    cell = {name: attributes[name] for name in ("model", "kind", "checkpoint", "step", "dataset")}
    layer = entry.site.layer
    place = {"site": entry.site.name, "layer": layer, "depth": layer / int(attributes["blocks"])}
    return {"study": study, **cell, **place, "band": band, "rows": entry.rows}
