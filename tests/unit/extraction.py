"""An extraction of a tiny checkpoint, read back."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tiny_models import CELL, MASK_TOKEN

from lmshape.models.extract import extract
from lmshape.models.opened import Opening
from lmshape.site import Site
from lmshape.store.activations import Activations
from lmshape.store.tokens import Tokens

OF_OPENING = {field.name for field in fields(Opening)}


class Extracted(NamedTuple):
    """Sites, rows (sites, n, d), nll, attributes and the loss card of an extraction."""

    sites: list[Site]
    rows: np.ndarray
    nll: np.ndarray
    attributes: dict
    card: dict


def extracted(folder: Path, tokens: Tokens, tmp_path: Path, **changes: object) -> Extracted:
    """Extract with the options of `extract` and of `Opening` mixed."""
    opening = {"kind": "decoder", "threads": 1, "device": "cpu"}
    opening |= {name: changes.pop(name) for name in OF_OPENING & changes.keys()}
    options = {"attributes": CELL, "seed": 5, "mask_token_id": MASK_TOKEN, "progress": False, **changes}
    store, card = tmp_path / "a.h5", tmp_path / "a.json"
    extract(folder, tokens, opening=Opening(**opening), output=store, loss_output=card, **options)
    with Activations(store) as activations:
        rows = np.stack([activations.read(site) for site in activations.sites])
        known = activations.attributes
        return Extracted(activations.sites, rows, activations.nll, known, json.loads(card.read_text()))
