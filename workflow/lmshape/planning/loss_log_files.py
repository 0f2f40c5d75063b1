"""The logs of other training runs that a study looks for loss spikes in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lmshape.planning.registry import find_file


@dataclass(frozen=True, slots=True, kw_only=True)
class LossLog:
    """Files of a training run of somebody else: its losses, and what `lmshape.monitor` measured in it, if anything."""

    losses: Path
    geometry: Path | None

    @property
    def files(self) -> list[Path]:
        """The files that there must be."""
        return [self.losses, *([self.geometry] if self.geometry else [])]


def read_loss_log(entry: str | Mapping[str, str], *, root: Path) -> LossLog:
    """Read an entry of `loss_logs`: paths from the working directory, else from the repository."""
    files = {"losses": entry} if isinstance(entry, str) else entry
    found = {key: find_file(path, root=root) for key, path in files.items()}
    return LossLog(losses=found["losses"], geometry=found.get("geometry"))
