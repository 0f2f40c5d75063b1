"""Other programs' readers of tables and archives: `make test` installs them below .docs/."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

INSTALLED = str(Path(__file__).parents[2] / ".docs")


def reader(name: str) -> ModuleType:
    """Import a reader; skip the test where it is not installed."""
    if INSTALLED not in sys.path:
        sys.path.append(INSTALLED)  # at the end: the study's own packages come first
    return pytest.importorskip(name)
