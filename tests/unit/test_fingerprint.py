"""The fingerprint changes with the code that runs, and with nothing else."""

from __future__ import annotations

from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest

from lmshape.errors import InputError
from lmshape.fingerprint import PACKAGE, WITHOUT_RESULTS, code_fingerprint, fingerprint_in

SOURCES = {
    "__init__.py": '"""A package."""\n\n__version__ = "0.1"\n',
    "base.py": '"""Base."""\n\n\ndef base(x):\n    """Return x."""\n    return x\n',
    "other.py": "def other():\n    return 1\n",
    "late.py": "def late():\n    return 1\n",
    "hints.py": "Hint = int\n",
    "station.py": (
        "from __future__ import annotations\n\nfrom typing import TYPE_CHECKING\n\nimport numpy\n\n"
        "from pkg.shapes import round_one\n\nif TYPE_CHECKING:\n    from pkg.hints import Hint\n\n\n"
        "def station(x: Hint) -> None:\n    from .late import late\n\n    return round_one(late())\n"
    ),
    "shapes/__init__.py": '"""Shapes."""\n\nfrom pkg.shapes.flat import square\nfrom pkg.shapes.round import '
    'circle as round_one\n\n__all__ = ["square", "round_one"]\n',
    "shapes/flat.py": "def square():\n    return 4\n",
    "shapes/round.py": "from pkg.base import base\n\n\ndef circle(x):\n    return base(x)\n",
    "driver/__init__.py": "from pkg.other import other\n\n\ndef drive():\n    return other()\n",
    "driver/gear.py": "def gear():\n    return 2\n",
    "whole.py": "import pkg.shapes as shapes\n\n\ndef whole():\n    return shapes.square()\n",
    "module.py": "from pkg import base, shapes\nfrom pkg import __version__\n",
    "star.py": "from pkg.shapes import *\n",
}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "pkg"
    for name, source in SOURCES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return folder


def changes(package: Path, file: str, old: str, new: str, *, of: str) -> bool:
    """Whether an edit of a file changes the fingerprint of a module."""
    path = package / file
    before = fingerprint_in(package, (of,))
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    return fingerprint_in(package, (of,)) != before


def test_twelve_hexadecimal_digits_whatever_the_order(package: Path) -> None:
    one = fingerprint_in(package, ("pkg.base", "pkg.other"))
    assert len(one) == 12 and int(one, 16) >= 0
    assert one == fingerprint_in(package, ("pkg.other", "pkg.base"))
    assert one != fingerprint_in(package, ("pkg.base",))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return x", "return  (x)  # the same"),
        ("def base", "# why\n\n\n\ndef base"),
        ('"""Return x."""', '"""Say something else."""'),
        ('    """Return x."""\n', ""),
        ('"""Base."""\n', ""),
        ("return x", '"""An idle text."""\n    return x'),
    ],
)
def test_comments_docstrings_and_formatting_do_not_count(package: Path, old: str, new: str) -> None:
    assert not changes(package, "base.py", old, new, of="pkg.base")


@pytest.mark.parametrize("new", ["return x + 1", "return 'x'", "x = x\n    return x"])
def test_a_change_in_a_body_counts(package: Path, new: str) -> None:
    assert changes(package, "base.py", "return x", new, of="pkg.base")


def test_constants_of_another_type_count(package: Path) -> None:
    assert changes(package, "other.py", "return 1", "return 1.0", of="pkg.other")
    assert changes(package, "other.py", "return 1.0", "return True", of="pkg.other")


def test_imports_are_followed_through_several_modules(package: Path) -> None:
    assert changes(package, "base.py", "return x", "return -x", of="pkg.station")


def test_imports_inside_functions_are_followed(package: Path) -> None:
    assert changes(package, "late.py", "return 1", "return 2", of="pkg.station")


def test_modules_that_are_not_imported_do_not_count(package: Path) -> None:
    assert not changes(package, "other.py", "return 1", "return 2", of="pkg.station")


def test_imports_for_type_checkers_do_not_count(package: Path) -> None:
    assert not changes(package, "hints.py", "int", "float", of="pkg.station")


def test_a_package_of_exports_leads_only_to_what_is_taken_from_it(package: Path) -> None:
    assert not changes(package, "shapes/flat.py", "return 4", "return 5", of="pkg.station")
    assert changes(package, "shapes/round.py", "base(x)", "base(2 * x)", of="pkg.station")


def test_an_export_more_changes_nothing(package: Path) -> None:
    new = '__all__ = ["square", "round_one", "other"]\nfrom pkg.other import other'
    old = '__all__ = ["square", "round_one"]'
    assert not changes(package, "shapes/__init__.py", old, new, of="pkg.station")


@pytest.mark.parametrize("module", ["pkg.whole", "pkg.module", "pkg.star", "pkg.shapes"])
def test_a_package_taken_as_a_whole_counts_as_a_whole(package: Path, module: str) -> None:
    assert changes(package, "shapes/flat.py", "return 4", "return 5", of=module)
    assert changes(package, "base.py", "return x", "return -x", of=module)


def test_a_module_taken_from_its_package_counts(package: Path) -> None:
    (package / "shapes" / "__init__.py").write_text("")
    assert changes(package, "base.py", "return x", "return -x", of="pkg.module")


def test_a_package_on_the_way_counts_when_it_holds_code(package: Path) -> None:
    assert changes(
        package, "driver/__init__.py", "return other()", "return 2 * other()", of="pkg.driver.gear"
    )
    assert changes(package, "other.py", "return 1", "return 2", of="pkg.driver.gear")


def test_the_version_does_not_count(package: Path) -> None:
    assert not changes(package, "__init__.py", "0.1", "0.2", of="pkg.station")
    assert not changes(package, "__init__.py", "0.2", "0.3", of="pkg.module")


def test_circular_imports_end(package: Path) -> None:
    (package / "a.py").write_text("from pkg.b import b\na = 1\n")
    (package / "b.py").write_text("from pkg.a import a\nb = 1\n")
    (package / "loop").mkdir()
    (package / "loop" / "__init__.py").write_text("from pkg.loop import x\n")
    (package / "c.py").write_text("from pkg.loop import x\n")
    assert changes(package, "b.py", "b = 1", "b = 2", of="pkg.a")
    assert fingerprint_in(package, ("pkg.c",))


def test_an_unknown_module_is_refused(package: Path) -> None:
    with pytest.raises(InputError, match=r"unknown module `pkg\.bse`\. Nearest: pkg\.base"):
        fingerprint_in(package, ("pkg.bse",))
    with pytest.raises(InputError, match="unknown module `numpy`"):
        fingerprint_in(package, ("numpy",))


def test_only_the_module_that_is_meant_is_without_results(package: Path) -> None:
    (package / "errors.py").write_text("def refuse():\n    return 1\n")
    (package / "refusing.py").write_text("from pkg.errors import refuse\n")
    assert changes(package, "errors.py", "return 1", "return 2", of="pkg.refusing")


def copied(folder: Path) -> Path:
    return Path(copytree(PACKAGE, folder / "lmshape", ignore=ignore_patterns("*.nb?", "__pycache__")))


def append(package: Path, module: str) -> None:
    path = package.parent.joinpath(*module.split(".")).with_suffix(".py")
    path.write_text(path.read_text(encoding="utf-8") + "\n_MORE = 1\n", encoding="utf-8")


def test_modules_without_results_exist_and_do_not_count(tmp_path: Path) -> None:
    package = copied(tmp_path)
    stations = (
        "lmshape.models.extract",
        "lmshape.tables.study_tables",
        "lmshape.metrics.spectral",
        "lmshape.texts.tokenizer",
    )
    before = fingerprint_in(package, stations)
    for module in WITHOUT_RESULTS:
        append(package, module)
    assert fingerprint_in(package, stations) == before


# What makes a table of tables, or of files of its own, runs no more when an estimator changes.
@pytest.mark.parametrize("station", ["tables.loss_spikes", "truncation.tables", "tables.shapes", "claims"])
def test_tables_that_estimate_nothing_do_not_depend_on_estimators(tmp_path: Path, station: str) -> None:
    package = copied(tmp_path)
    before = fingerprint_in(package, (f"lmshape.{station}",))
    for module in (
        "geometry.device_neighbors",
        "geometry.neighbors",
        "tables.gather",
        "metrics",
        "figures.style",
    ):
        append(package, f"lmshape.{module}")
    assert fingerprint_in(package, (f"lmshape.{station}",)) == before
    append(package, "lmshape.tables.columns")
    assert fingerprint_in(package, (f"lmshape.{station}",)) != before


def test_lmshape_itself() -> None:
    assert code_fingerprint("lmshape.errors") == fingerprint_in(PACKAGE, ("lmshape.errors",))
    assert code_fingerprint("lmshape.study.registry") != code_fingerprint("lmshape.checkpoints")
