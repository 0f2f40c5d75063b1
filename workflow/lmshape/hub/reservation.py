"""Room for a checkpoint's way through a study.

That is: for its weights until the last dataset has been read, and for the activations that will be deleted until they
are.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from socket import gethostname

from lmshape.hub.receipt import has_weights
from lmshape.paths import partial_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """Room for one checkpoint.

    Attributes
    ----------
    folder : of its weights, from the working directory
    weights_bytes : what will be downloaded
    datasets : those that will be read, and truncations, which read the weights as well
    activations : dataset → its activation file, of those that will be deleted once measured
    activation_bytes : size of each of these files
    process, host : that downloads, and the machine it runs on; one that is dead will not finish
    """

    folder: str
    weights_bytes: int
    datasets: list[str]
    activations: Mapping[str, str] = field(default_factory=dict)
    activation_bytes: int = 0
    process: int = field(default_factory=os.getpid)
    host: str = field(default_factory=gethostname)

    @property
    def name(self) -> str:
        """Model and checkpoint."""
        return "/".join(Path(self.folder).parts[-2:])

    @property
    def results(self) -> Path:
        """Folder of all results, where the book of reservations lies."""
        return Path(self.folder).parents[2]

    @property
    def total(self) -> int:
        """Most that the checkpoint will ever hold."""
        return self.weights_bytes + self.activation_bytes * len(self.activations)

    @property
    def arriving(self) -> bool:
        """Whether its weights are on their way: what an earlier visit of theirs has left behind says nothing now."""
        return partial_folder(Path(self.folder)).exists()

    def held_weights(self) -> int:
        """Bytes of weights that it holds or still will: of what has been deleted, nothing."""
        return self.weights_bytes if self.arriving or has_weights(Path(self.folder)) else 0

    def held(self) -> int:
        """Bytes of weights and passing activations that it holds or still will."""
        waiting = [dataset for dataset, file in self.activations.items() if self._waits(dataset, Path(file))]
        return self.held_weights() + self.activation_bytes * len(waiting)

    def begin(self) -> None:
        """Hold the room from now on: the partial folder says that the download is on its way."""
        partial_folder(Path(self.folder)).mkdir(parents=True, exist_ok=True)

    def _waits(self, dataset: str, file: Path) -> bool:
        # In the order in which they come: weights on their way, weights unread, activations. Looked at in any other,
        # a file that moves on between two looks would be seen in neither place.
        folder = Path(self.folder)
        return (
            self.arriving
            or (has_weights(folder) and not mark(folder, "read", dataset).exists())
            or file.exists()
        )


def has_failed(folder: Path, reader: str) -> bool:
    """Whether a dataset could not be extracted, or a truncation not be made: it waits for its dataset's extraction."""
    return any(mark(folder, "failed", name).exists() for name in (reader, reader.partition("@")[0]))


def mark(folder: Path, word: str, dataset: str) -> Path:
    """Name the file that says what has become of a dataset: `read` or `failed`."""
    return folder / f".{word}-{dataset}"
