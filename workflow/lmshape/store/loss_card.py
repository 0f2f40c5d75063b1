"""The loss card: what a cell's loss is computed from, draw by draw, kept when its activations are gone."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from lmshape.store.hdf5 import Attributes
from lmshape.writing import replaced_when_whole


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
    """Write `{"attributes": {…}, "draws": [{"draw", "tokens", "nats", "bytes"}, …]}`.

    JSON has no NaN and no infinity: both are written as null.
    """
    card = {
        "attributes": {key: _or_null(value) for key, value in attributes.items()},
        "draws": [{key: _or_null(value) for key, value in asdict(draw).items()} for draw in draws],
    }
    with replaced_when_whole(path) as partial:
        partial.write_text(json.dumps(card, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _or_null(value: str | int | float) -> str | int | float | None:
    return None if isinstance(value, float) and not math.isfinite(value) else value
