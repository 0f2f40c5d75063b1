"""The loss card: what a cell's loss is computed from, draw by draw, kept when its activations are gone."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

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
        "attributes": {key: or_null(value) for key, value in attributes.items()},
        "draws": [{key: or_null(value) for key, value in asdict(draw).items()} for draw in draws],
    }
    with replaced_when_whole(path) as partial:
        partial.write_text(json.dumps(card, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_loss_card(path: Path) -> tuple[dict[str, Any], list[DrawLoss]]:
    """Read attributes and draws; null becomes NaN."""
    card = json.loads(path.read_text(encoding="utf-8"))
    attributes = {key: or_nan(value) for key, value in card["attributes"].items()}
    draws = [{key: or_nan(value) for key, value in draw.items()} for draw in card["draws"]]
    return attributes, [DrawLoss(**draw) for draw in draws]


def or_null(value: Any) -> Any:
    """Return None for NaN and infinity, which JSON cannot hold; all else as it is."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def or_nan(value: Any) -> Any:
    """Return NaN for None, all else as it is."""
    return math.nan if value is None else value
