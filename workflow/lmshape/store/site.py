"""Where in the network a cloud of token representations was taken, and where its file keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import h5py

SiteName = Literal["embedding", "block", "final_norm"]


@dataclass(frozen=True, slots=True)
class Site:
    """One place of the residual stream.

    Parameters
    ----------
    name : `embedding`, `block` or `final_norm`
    layer : 0 for the embedding, l after block l, the number of blocks for the final norm

    Raises
    ------
    ValueError
        For a name and a layer that do not belong together.
    """

    name: SiteName
    layer: int

    def __post_init__(self) -> None:
        if self.name not in ("embedding", "block", "final_norm"):
            raise ValueError(f"`name` is `{self.name}`; it must be `embedding`, `block` or `final_norm`.")
        if (self.layer == 0) != (self.name == "embedding") or self.layer < 0:
            raise ValueError(f"`layer` is {self.layer} for `{self.name}`; only the embedding is layer 0.")

    @property
    def path(self) -> str:
        """HDF5 path: `layers/00` … `layers/NN`, `final_norm`."""
        return "final_norm" if self.name == "final_norm" else f"layers/{self.layer:02d}"


def mark(item: h5py.HLObject, site: Site) -> None:
    """Write the site into the attributes `site` and `layer` of a dataset or group."""
    item.attrs["site"] = site.name
    item.attrs["layer"] = site.layer


def site_of(item: h5py.HLObject) -> Site:
    """Read the site back from the attributes of a dataset or group."""
    return Site(item.attrs["site"], int(item.attrs["layer"]))


def sited(file: h5py.File) -> dict[Site, h5py.HLObject]:
    """All datasets or groups of a file that belong to a site, in the order of the network."""
    paths = [f"layers/{name}" for name in file.get("layers", ())]
    items = {site_of(file[path]): file[path] for path in [*paths, "final_norm"] if path in file}
    return dict(sorted(items.items(), key=_place))


def _place(entry: tuple[Site, h5py.HLObject]) -> tuple[bool, int]:
    site, _ = entry
    return site.name == "final_norm", site.layer
