"""The statistics of a cell's layers and its loss, draw by draw; they outlive the activations.

From the statistics archive every metric can be recomputed without the model, from the loss card the loss.
"""

from __future__ import annotations

import json
import math
import shlex
import zlib
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lmshape.errors import InputError
from lmshape.site import Site, mark, sited
from lmshape.store.hdf5 import (
    Attributes,
    name_axes,
    new_file,
    noticed,
    open_format,
    read_attributes,
    write_array,
    write_attributes,
)
from lmshape.writing import replaced_when_whole

STATISTICS_FORMAT = "lmshape-statistics"
DRAW, LEFT_OUT = "draw", "left_out"  # axes of K entries, and of K + 1: no draw left out, then each


@dataclass(frozen=True, slots=True)
class LayerStatistics:
    """The statistics of one family for one site and one choice of rows.

    Parameters
    ----------
    site : where the cloud was taken
    rows : which rows of it: `all`, `no_sink` or `one_per_type`
    arrays : the family's arrays by name
    attributes : `n_rows`, `n_unique`, `d`, `draws` and `flag`, the reason of a doubt or of NaN ("" when fine)
    """

    site: Site
    rows: str
    arrays: dict[str, np.ndarray]
    attributes: dict[str, str | int | float]


@contextmanager
def new_statistics(
    path: str | Path, *, attributes: Attributes, axes: Mapping[str, Sequence[str]] | None = None
) -> Iterator[Callable[[LayerStatistics], None]]:
    """Give a function that writes an entry: arrays at `/layers/03/all/<array>`, `/final_norm/no_sink/<array>`.

    The archive appears in the end. `axes` names those of an array; of others the one axis is `draw` or `left_out`, by
    its length.
    """
    with new_file(path, STATISTICS_FORMAT, attributes) as file:
        yield lambda layer: _write_layer(file, layer, axes or {})


def _write_layer(file: h5py.File, layer: LayerStatistics, axes: Mapping[str, Sequence[str]]) -> None:
    mark(file.require_group(layer.site.path), layer.site)
    group = file.create_group(f"{layer.site.path}/{layer.rows}")
    write_attributes(group, layer.attributes)
    for name, array in layer.arrays.items():
        over = DRAW if len(array) == layer.attributes["draws"] else LEFT_OUT
        name_axes(write_array(group, name, array), *axes.get(name, (over,)), place=group)


def read_statistics_attributes(path: str | Path) -> dict[str, str | int | float]:
    """Read the root attributes of an archive; errors as `read_statistics`."""
    with open_format(path, STATISTICS_FORMAT) as file, noticed(path):
        return read_attributes(file)


def read_statistics(
    path: str | Path, *, sites: Container[Site] | None = None, arrays: Container[str] | None = None
) -> tuple[dict[str, str | int | float], list[LayerStatistics]]:
    """Read an archive: its root attributes, and its entries in the order of the network.

    `sites` and `arrays` select some of them; others are not read. `InputError` for a file that
    is missing, truncated, or of another format or version.
    """
    with open_format(path, STATISTICS_FORMAT) as file, noticed(path):
        layers = [
            LayerStatistics(
                site,
                rows,
                {
                    name: item[()]
                    for name in group
                    if (arrays is None or name in arrays) and not (item := group[name]).is_scale
                },
                read_attributes(group),
            )
            for site, place in sited(file).items()
            if sites is None or site in sites
            for rows, group in place.items()
        ]
        return read_attributes(file), layers


@dataclass(frozen=True, slots=True)
class DrawLoss:
    """Sums over the predicted tokens of one draw.

    Parameters
    ----------
    draw : number of the draw
    tokens : predicted tokens
    nats : their negative log-likelihood; not finite in a diverged checkpoint
    bytes : UTF-8 bytes of the text that they stand for
    """

    draw: int
    tokens: int
    nats: float
    bytes: float


def write_loss_card(path: str | Path, *, attributes: Attributes, draws: Iterable[DrawLoss]) -> None:
    """Write `{"attributes": {…}, "draws": [{"draw", "tokens", "nats", "bytes"}, …], "crc32"}`.

    JSON has no NaN and no infinity: both are written as null.
    """
    card: dict[str, Any] = {
        "attributes": {key: or_null(value) for key, value in attributes.items()},
        "draws": [{key: or_null(value) for key, value in asdict(draw).items()} for draw in draws],
    }
    card["crc32"] = _crc32(card)
    with replaced_when_whole(path) as partial:
        partial.write_text(json.dumps(card, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_loss_card(path: Path) -> tuple[dict[str, Any], list[DrawLoss]]:
    """Read attributes and draws; null becomes NaN. `InputError` for a file that is not a loss card."""
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        if "crc32" in card and card.pop("crc32") != _crc32(card):
            raise ValueError("its checksum does not match")
        attributes = {key: or_nan(value) for key, value in card["attributes"].items()}
        draws = [{key: or_nan(value) for key, value in draw.items()} for draw in card["draws"]]
        return attributes, [DrawLoss(**draw) for draw in draws]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"`{path}` is not a loss card ({error!r}). Delete it, `rm {shlex.quote(str(path))}`, and run the study "
            "again."
        ) from error


def _crc32(card: dict[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(card, sort_keys=True).encode()):08x}"


def or_null(value: Any) -> Any:
    """Return None for NaN and infinity, which JSON cannot hold; all else as it is."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def or_nan(value: Any) -> Any:
    """Return NaN for None, all else as it is."""
    return math.nan if value is None else value
