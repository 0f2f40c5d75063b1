"""Sites: the place of a cloud in the network, and its path in the file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, cast

import h5py
import numpy as np

SiteName = Literal["embedding", "block", "final_norm", "output"]


@dataclass(frozen=True, slots=True)
class Site:
    """One place of the residual stream.

    Parameters
    ----------
    name : `embedding`, `block` or `final_norm`; `output` for the loss, which has no cloud
    layer : 0 for the embedding, l after block l, the number of blocks for the final norm and the output
    """

    name: SiteName
    layer: int

    @property
    def path(self) -> str:
        """HDF5 path: `layers/00` … `layers/NN`, `final_norm`."""
        return "final_norm" if self.name == "final_norm" else f"layers/{self.layer:02d}"


def mark(item: h5py.HLObject, site: Site) -> None:
    """Write the site into the attributes `site` and `layer` of a dataset or group."""
    item.attrs["site"] = np.bytes_(site.name)  # of fixed length: HDF5 has no checksum of any other string
    item.attrs["layer"] = site.layer


def site_of(item: h5py.HLObject) -> Site:
    """Read the site back from the attributes of a dataset or group."""
    name = item.attrs["site"]
    return Site(cast(SiteName, name.decode() if isinstance(name, bytes) else name), int(item.attrs["layer"]))


def sited(file: h5py.File) -> dict[Site, h5py.HLObject]:
    """All datasets or groups of a file that belong to a site, in the order of the network."""
    names = list(file)  # `in` and `get` take what is damaged for what is not there
    paths = [f"layers/{name}" for name in (file["layers"] if "layers" in names else ())]
    final = ["final_norm"] if "final_norm" in names else []
    items = {site_of(file[path]): file[path] for path in [*paths, *final]}
    return dict(sorted(items.items(), key=_place))


def _place(entry: tuple[Site, h5py.HLObject]) -> tuple[bool, int]:
    site, _ = entry
    return site.name == "final_norm", site.layer


def named_layers(blocks: int) -> dict[str, int]:
    """Few blocks that stand for a network of `blocks` blocks; equal ones are named once, the last first.

    A quarter and half of the way up (rounded up), and the last block; none where there is no block.
    """
    names = {math.ceil(blocks / 4): "early", middle_layer(blocks): "middle", blocks: "last"}
    return {name: layer for layer, name in names.items() if layer > 0}


def middle_layer(blocks: int) -> int:
    """Layer that stands for the middle of a network, however few its blocks."""
    return math.ceil(blocks / 2)


CHUNK_BYTES = 2**20  # large enough to stream at disk speed, small enough for HDF5's own chunk cache
TOKEN_BYTES = 21  # id, sequence, position, draw, nll of 4 bytes each, special of 1
TYPE_BYTES = 64  # id and text of a token type, at most, but for a few that are whole words
SITE_BYTES, CHUNK_ENTRY_BYTES = 6000, 64  # HDF5's own: headers and attributes of a site, its index of chunks


def chunk_rows(n: int, width: int) -> int:
    """Rows of a chunk; the last chunk of a site takes as much of the disk as the others."""
    return max(1, min(n, CHUNK_BYTES // (4 * width)))


def stored_bytes(n: int, width: int, *, sites: int, types: int) -> int:
    """Size of a store of n tokens of so many types: at most this, and beyond 1 MB hardly 2 % less."""
    chunks = -(-n // chunk_rows(n, width))
    site = chunks * (4 * width * chunk_rows(n, width) + CHUNK_ENTRY_BYTES) + SITE_BYTES
    return sites * site + n * TOKEN_BYTES + types * TYPE_BYTES + 2 * SITE_BYTES
