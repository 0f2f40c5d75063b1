"""The statistics archive: what is kept of a layer, enough to recompute every metric without the model."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from lmshape.site import Site, mark, sited
from lmshape.store.hdf5 import Attributes, open_format, read_attributes, write_attributes, write_format
from lmshape.writing import written_on_scratch

STATISTICS_FORMAT = "lmshape-statistics"


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


def write_statistics(path: str | Path, *, attributes: Attributes, layers: Iterable[LayerStatistics]) -> None:
    """Write an archive: arrays at `/layers/03/all/<array>`, `/final_norm/no_sink/<array>`.

    `layers` may be a generator: each entry is written before the next one is asked for.
    """
    with written_on_scratch(path) as partial, h5py.File(partial, "w", locking=False) as file:
        write_format(file, STATISTICS_FORMAT)
        write_attributes(file, attributes)
        for layer in layers:
            _write_layer(file, layer)


def _write_layer(file: h5py.File, layer: LayerStatistics) -> None:
    mark(file.require_group(layer.site.path), layer.site)
    group = file.create_group(f"{layer.site.path}/{layer.rows}")
    write_attributes(group, layer.attributes)
    for name, array in layer.arrays.items():
        group.create_dataset(name, data=array)


def read_statistics_attributes(path: str | Path) -> dict[str, str | int | float]:
    """Read the root attributes of an archive; errors as `read_statistics`."""
    with open_format(path, STATISTICS_FORMAT) as file:
        return read_attributes(file)


def read_statistics(
    path: str | Path, *, sites: Container[Site] | None = None, arrays: Container[str] | None = None
) -> tuple[dict[str, str | int | float], list[LayerStatistics]]:
    """Read an archive: its root attributes, and its entries in the order of the network.

    `sites` and `arrays` name those that are wanted, if not all are: others are not read. `InputError` for a file that
    is missing, truncated, or of another format or version.
    """
    with open_format(path, STATISTICS_FORMAT) as file:
        layers = [
            LayerStatistics(site, rows, _read_arrays(group, arrays), read_attributes(group))
            for site, place in sited(file).items()
            if sites is None or site in sites
            for rows, group in place.items()
        ]
        return read_attributes(file), layers


def _read_arrays(group: h5py.Group, wanted: Container[str] | None) -> dict[str, np.ndarray]:
    return {name: group[name][()] for name in group if wanted is None or name in wanted}
