"""No HDF5 file is opened with locks: network file systems have none, or wrong ones."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from lmshape.study.registry import REPOSITORY

pytestmark = pytest.mark.slow

MODULES = sorted((REPOSITORY / "workflow/lmshape").rglob("*.py"))


def openings(path: Path) -> Iterator[ast.Call]:
    """Calls of h5py.File in a module."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("h5py.File", "File"):
            yield node


@pytest.mark.parametrize(
    "path", [path for path in MODULES if list(openings(path))], ids=lambda path: path.stem
)
def test_files_are_opened_without_locks(path: Path) -> None:
    for call in openings(path):
        locking = {word.arg: ast.unparse(word.value) for word in call.keywords}.get("locking")
        assert locking == "False", f"{path.name}:{call.lineno}: {ast.unparse(call)}"


def test_there_are_such_calls() -> None:
    assert sum(len(list(openings(path))) for path in MODULES) >= 2


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_no_other_name_hides_one(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.ImportFrom):
            assert node.module != "h5py", f"{path.name}:{node.lineno}: call it h5py.File, so that it is found"
