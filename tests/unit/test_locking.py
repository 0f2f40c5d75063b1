"""No HDF5 file is opened with locks: network file systems have none, or wrong ones."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from lmshape.study.registry import REPOSITORY

pytestmark = pytest.mark.slow

MODULES = sorted((REPOSITORY / "workflow/lmshape").rglob("*.py"))


def opening(path: Path) -> Iterator[ast.AST]:
    """Calls of h5py.File in a module, and imports of names from h5py."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("h5py.File", "File"):
            yield node
        elif isinstance(node, ast.ImportFrom) and node.module == "h5py":
            yield node


def test_files_are_opened_without_locks_and_under_one_name() -> None:
    found = [(path, node) for path in MODULES for node in opening(path)]
    assert len(found) >= 2
    for path, node in found:
        place = f"{path.name}:{node.lineno}: {ast.unparse(node)}"
        assert isinstance(node, ast.Call), f"{place}: call it h5py.File, so that it is found"
        assert {word.arg: ast.unparse(word.value) for word in node.keywords}.get("locking") == "False", place
