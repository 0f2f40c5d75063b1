"""An extraction of a tiny checkpoint, read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tiny_models import CELL, MASK_TOKEN

from lmshape.extract import extract
from lmshape.store import Activations, Site
from lmshape.tokens import Tokens


class Extracted(NamedTuple):
    """Sites, rows (sites, n, d), nll, attributes and the loss card of an extraction."""

    sites: list[Site]
    rows: np.ndarray
    nll: np.ndarray
    attributes: dict
    card: dict


def extracted(folder: Path, tokens: Tokens, tmp_path: Path, **changes: object) -> Extracted:
    options = {
        "kind": "decoder",
        "attributes": CELL,
        "threads": 1,
        "seed": 5,
        "device": "cpu",
        "mask_token_id": MASK_TOKEN,
        "progress": False,
        **changes,
    }
    store, card = tmp_path / "a.h5", tmp_path / "a.json"
    extract(folder, tokens, output=store, loss_output=card, **options)
    with Activations(store) as activations:
        rows = np.stack([activations.read(site) for site in activations.sites])
        known = activations.attributes
        return Extracted(activations.sites, rows, activations.nll, known, json.loads(card.read_text()))
