"""Room for the activations of one cell of a local run, within the disk budget that downloads share.

A cell at a time, so that whoever has room can be extracted and measured without asking again. What is held is read off
two files: a marker, which stands for activations that are still to come, and the activations themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lmshape.ending.running import last_run
from lmshape.paths import ROOM


@dataclass(frozen=True, slots=True, kw_only=True)
class Passing:
    """Room for one cell.

    Attributes
    ----------
    marker : made when room has been taken; Snakemake deletes it when the activations are there
    activations : their file; it is deleted once measured
    activation_bytes : its size
    """

    marker: str
    activations: str
    activation_bytes: int

    @property
    def name(self) -> str:
        """Model, checkpoint and dataset."""
        return "/".join(Path(self.marker).parts[-3:])

    @property
    def results(self) -> Path:
        """Folder of all results, where the book of reservations lies."""
        return Path(self.marker).parents[3]

    @property
    def total(self) -> int:
        """Most that the cell will ever hold."""
        return self.activation_bytes

    def held_weights(self) -> int:
        """Nothing: weights of a local run are the user's."""
        return 0

    def held(self) -> int:
        """Bytes of activations that it holds or still will."""
        # In this order: a file that comes between two looks would otherwise be seen in neither place.
        return self.activation_bytes if self._is_awaited() or Path(self.activations).exists() else 0

    def begin(self) -> None:
        """Hold the room from now on."""
        marker = Path(self.marker)
        marker.parent.mkdir(parents=True, exist_ok=True)
        failed_mark(marker).unlink(missing_ok=True)
        unmeasured_mark(marker).unlink(missing_ok=True)
        marker.touch()

    @property
    def is_stuck(self) -> bool:
        """Whether measuring has failed: only another run, or another attempt, will free its room."""
        return not self._is_awaited() and unmeasured_mark(Path(self.marker)).exists()

    def _is_awaited(self) -> bool:
        marker = Path(self.marker)
        return marker.exists() and not failed_mark(marker).exists()


def failed_mark(marker: Path) -> Path:
    """Name the file that says that a cell could not be extracted, so that others may have its room."""
    return marker.with_name(f".failed-{marker.name}")


def unmeasured_mark(marker: Path) -> Path:
    """Name the file that says that the activations of a cell could not be measured, and stay."""
    return marker.with_name(f".unmeasured-{marker.name}")


def forget_rooms(root: Path) -> None:
    """Take back all room that was taken for activations to come.

    Called before a study is planned: what is still to be extracted asks for room again. A run that goes on keeps its
    own, for a dry run may stand beside it.
    """
    _, goes_on = last_run(root)
    if goes_on:
        return
    for path in root.glob(ROOM.format(model="*", checkpoint="*", dataset="*")):
        path.unlink(missing_ok=True)
