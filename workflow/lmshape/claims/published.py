"""Numbers that public sources give for single models: `published.yaml`, shown beside a study's own."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import yaml

from lmshape.claims.claim import Finding


def published(finding: Finding, quantity: str) -> Finding:
    """Add what a source gives for the model's `quantity`; the finding as it is where none does."""
    entry = _numbers()[quantity].get(finding.model)
    if entry is None:
        return finding
    return replace(finding, published=str(entry["value"]), published_source=entry["source"])


@cache
def _numbers() -> dict[str, dict[str, dict[str, str | int]]]:
    return yaml.safe_load(Path(__file__).with_name("published.yaml").read_text(encoding="utf-8"))
