"""The fingerprint changes with the definitions behind a result, and with nothing else."""

from __future__ import annotations

from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest

from lmshape.errors import InputError
from lmshape.figures import FIGURES
from lmshape.fingerprint import (
    PACKAGE,
    WITHOUT_RESULTS,
    Definitions,
    code_fingerprint,
    source_fingerprint,
)
from lmshape.jobs import RULES

pytestmark = pytest.mark.slow

SOURCES = {
    "__init__.py": '"""A package."""\n\n__version__ = "0.1"\n',
    "base.py": (
        '"""Base."""\n\nimport numpy as np\n\nSCALE = 2\nLOW, HIGH = 0, 1\n\n\n'
        'def base(x):\n    """Return x."""\n    return np.abs(x)\n\n\n'
        "def scaled(x):\n    return SCALE * x\n\n\ndef lonely():\n    return LOW\n"
    ),
    "late.py": "def late():\n    return 1\n\n\ndef later():\n    return 2\n",
    "hints.py": "Hint = int\n",
    "shapes/__init__.py": (
        '"""Shapes."""\n\nfrom pkg.shapes.flat import square\nfrom pkg.shapes.round import circle as round_one\n\n'
        '__all__ = ["square", "round_one"]\n'
    ),
    "shapes/flat.py": "def square():\n    return 4\n",
    "shapes/round.py": "from pkg.base import base\n\n\ndef circle(x):\n    return base(x)\n",
    "station.py": (
        "from __future__ import annotations\n\nfrom typing import TYPE_CHECKING\n\n"
        "from pkg.base import SCALE as FACTOR\n"
        "from pkg.shapes import round_one\n\nif TYPE_CHECKING:\n    from pkg.hints import Hint\n\n\n"
        "def station(x: Hint) -> None:\n    from .late import late\n\n    return FACTOR * round_one(late())\n"
    ),
    "classes.py": (
        "from pkg.base import scaled\n\n\ndef helper():\n    return 3\n\n\n"
        "class Shape:\n    size: int = 1\n\n    def area(self):\n        return scaled(self.size)\n\n"
        "    @property\n    def corners(self):\n        return helper()\n\n\ndef build():\n    return Shape()\n"
    ),
    "registry.py": "from pkg.base import base, scaled\n\nKNOWN = {'base': base}\nKNOWN_LATER = {'scaled': scaled}\n",
    "registering.py": "from pkg.registry import KNOWN\n\n\ndef find(name):\n    return KNOWN[name]\n",
    "attributes.py": (
        "import pkg.late\nfrom pkg import base, shapes\nimport pkg.base as alias\n\n\n"
        "def by_module(x):\n    return base.scaled(x)\n\n\ndef by_alias(x):\n    return alias.scaled(x)\n\n\n"
        "def by_path():\n    return pkg.late.late()\n\n\ndef by_package():\n    return shapes.square()\n\n\n"
        "def by_name():\n    return getattr(shapes, 'square')()\n"
    ),
    "setup.py": "from pkg.late import late\n\n\ndef one():\n    return 1\n\n\nlate()\n",
    "acting/__init__.py": "from pkg.late import late\n\nlate()\n",
    "acting/quiet.py": "def quiet():\n    return 1\n",
    "imports.py": "from pkg import base, shapes\nfrom pkg import __version__\n",
    "star.py": "from pkg.shapes import *\n\n\ndef star():\n    return square()\n",
}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "pkg"
    for name, source in SOURCES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return folder


def fingerprint(package: Path, *names: str) -> str:
    return Definitions(package).fingerprint(names)


def edit(package: Path, file: str, old: str, new: str) -> None:
    path = package / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def changes(package: Path, file: str, old: str, new: str, *, of: str) -> bool:
    """Whether an edit of a file changes the fingerprint of a module or definition."""
    before = fingerprint(package, of)
    edit(package, file, old, new)
    return fingerprint(package, of) != before


def test_twelve_hexadecimal_digits_whatever_the_order(package: Path) -> None:
    one = fingerprint(package, "pkg.base", "pkg.late.late")
    assert len(one) == 12 and int(one, 16) >= 0
    assert one == fingerprint(package, "pkg.late.late", "pkg.base")
    assert one != fingerprint(package, "pkg.base")


# What changes nothing


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return np", "return  np"),
        ("np.abs(x)", "np.abs(\n        x,  # the same\n    )"),
        ("def base", "# why\n\n\n\ndef base"),
        ('"""Return x."""', '"""Return the absolute value\n    of x."""'),
        ('    """Return x."""\n', ""),
        ('"""Base."""\n', ""),
        ("return np", '"""An idle text."""\n    return np'),
        ("SCALE = 2\n", 'SCALE = 2\n"""What scales."""\n'),
        ("import numpy as np\n", "from __future__ import annotations\n\nimport numpy as np\n"),
    ],
)
def test_comments_docstrings_and_formatting_do_not_count(package: Path, old: str, new: str) -> None:
    assert not changes(package, "base.py", old, new, of="pkg.base")


def test_the_order_of_definitions_does_not_count(package: Path) -> None:
    before = fingerprint(package, "pkg.late")
    (package / "late.py").write_text("def later():\n    return 2\n\n\ndef late():\n    return 1\n")
    assert fingerprint(package, "pkg.late") == before


def test_a_function_that_moves_to_another_module_changes_nothing(package: Path) -> None:
    before = fingerprint(package, "pkg.station"), fingerprint(package, "pkg.shapes")
    edit(package, "shapes/round.py", "\n\ndef circle(x):\n    return base(x)\n", "")
    (package / "far").mkdir()
    (package / "far" / "away.py").write_text(
        "def circle(x):\n    from ..base import base\n\n    return base(x)\n"
    )
    edit(package, "shapes/__init__.py", "pkg.shapes.round", "pkg.far.away")
    assert (fingerprint(package, "pkg.station"), fingerprint(package, "pkg.shapes")) == before


def test_a_module_that_is_renamed_changes_nothing(package: Path) -> None:
    before = fingerprint(package, "pkg.late"), fingerprint(package, "pkg.station")
    (package / "late.py").rename(package / "slow.py")
    edit(package, "station.py", ".late import", ".slow import")
    assert (fingerprint(package, "pkg.slow"), fingerprint(package, "pkg.station")) == before


def test_modules_that_are_merged_change_nothing(package: Path) -> None:
    before = fingerprint(package, "pkg.shapes.round", "pkg.base"), fingerprint(package, "pkg.station")
    edit(package, "base.py", "\n\ndef lonely", "\n\ndef circle(x):\n    return base(x)\n\n\ndef lonely")
    (package / "shapes" / "round.py").unlink()
    edit(package, "shapes/__init__.py", "pkg.shapes.round", "pkg.base")
    assert (fingerprint(package, "pkg.base"), fingerprint(package, "pkg.station")) == before


@pytest.mark.parametrize(
    "new",
    [
        "from .base import SCALE as FACTOR\n",
        "from pkg.base import HIGH, SCALE as FACTOR\n",
        "from pkg import base\nfrom pkg.base import (\n    SCALE as FACTOR,\n)\n",
    ],
)
def test_the_spelling_of_an_import_does_not_count(package: Path, new: str) -> None:
    old = "from pkg.base import SCALE as FACTOR\n"
    assert not changes(package, "station.py", old, new, of="pkg.station.station")
    assert changes(package, "base.py", "SCALE = 2", "SCALE = 3", of="pkg.station.station")


def test_a_definition_that_is_not_reached_does_not_count(package: Path) -> None:
    assert not changes(package, "base.py", "return LOW", "return HIGH", of="pkg.station")
    assert not changes(package, "late.py", "return 2", "return 3", of="pkg.station")
    assert not changes(
        package, "late.py", "def later", "def more():\n    return 1\n\n\ndef later", of="pkg.station"
    )
    assert changes(package, "base.py", "return HIGH", "return 5", of="pkg.base")


def test_imports_for_type_checkers_do_not_count(package: Path) -> None:
    assert not changes(package, "hints.py", "int", "float", of="pkg.station")


def test_the_version_does_not_count(package: Path) -> None:
    assert not changes(package, "__init__.py", "0.1", "0.2", of="pkg.station")
    assert not changes(package, "__init__.py", "0.2", "0.3", of="pkg.imports")


def test_what_a_package_imports_when_asked_does_not_count_with_its_version(package: Path) -> None:
    (package / "__init__.py").write_text(
        '__version__ = "0.1"\n\n\ndef __getattr__(name):\n    from pkg.late import later\n\n    return later\n'
    )
    (package / "versioned.py").write_text("import pkg\n\n\ndef told():\n    return pkg.__version__\n")
    assert not changes(package, "late.py", "return 2", "return 3", of="pkg.versioned")


def test_extraction_does_not_depend_on_what_is_computed_of_it(library: Path) -> None:
    before = fingerprint(library, "lmshape.models.extract.extract")
    for module in ("tables.gather", "metrics.neighbor", "geometry.neighbors", "profiling"):
        touch(library, f"lmshape.{module}")
    assert fingerprint(library, "lmshape.models.extract.extract") == before


# What changes the fingerprint


@pytest.mark.parametrize("new", ["return np.abs(x) + 1", "return 'x'", "x = x\n    return np.abs(x)"])
def test_a_change_in_a_body_counts(package: Path, new: str) -> None:
    assert changes(package, "base.py", "return np.abs(x)", new, of="pkg.base.base")


def test_constants_of_another_type_count(package: Path) -> None:
    assert changes(package, "late.py", "return 1", "return 1.0", of="pkg.late")
    assert changes(package, "late.py", "return 1.0", "return True", of="pkg.late")


def test_a_formula_reaches_exactly_what_depends_on_it(package: Path) -> None:
    dependents = {
        "pkg.base.scaled",
        "pkg.classes.Shape",
        "pkg.classes.build",
        "pkg.registry.KNOWN_LATER",
        "pkg.attributes.by_module",
        "pkg.attributes.by_alias",
        "pkg.imports",
    }
    others = {
        "pkg.base.base",
        "pkg.base.SCALE",
        "pkg.classes.helper",
        "pkg.registry.KNOWN",
        "pkg.registering",
        "pkg.attributes.by_path",
        "pkg.station",
        "pkg.shapes",
    }
    before = {name: fingerprint(package, name) for name in dependents | others}
    edit(package, "base.py", "SCALE * x", "SCALE * x + 1")
    assert {name for name in before if fingerprint(package, name) != before[name]} == dependents


@pytest.mark.parametrize(
    ("file", "old", "new", "of"),
    [
        ("base.py", "np.abs(x)", "-x", "pkg.station"),  # through a package and another name
        ("late.py", "return 1", "return 2", "pkg.station"),  # imported inside the function
        ("base.py", "SCALE = 2", "SCALE = 3", "pkg.station"),  # a constant under another name
        ("base.py", "SCALE = 2", "SCALE = 2\nSCALE += 1", "pkg.base.scaled"),
        ("base.py", "LOW, HIGH = 0, 1", "LOW, HIGH = 1, 2", "pkg.base.lonely"),
        ("base.py", "np.abs(x)", "-x", "pkg.registering.find"),  # through the value of a constant
        ("classes.py", "return 3", "return 4", "pkg.classes.build"),  # through a method
        ("classes.py", "size: int = 1", "size: int = 2", "pkg.classes.build"),
    ],
)
def test_names_are_followed(package: Path, file: str, old: str, new: str, of: str) -> None:
    assert changes(package, file, old, new, of=of)


def test_attributes_of_modules_are_followed_one_by_one(package: Path) -> None:
    for name in ("by_module", "by_alias"):
        assert changes(package, "base.py", "SCALE * x", "2 * SCALE * x", of=f"pkg.attributes.{name}")
        assert not changes(package, "base.py", "np.abs(x)", "1 * np.abs(x)", of=f"pkg.attributes.{name}")
    assert changes(package, "late.py", "return 1", "return 3", of="pkg.attributes.by_path")
    assert not changes(package, "late.py", "return 2", "return 4", of="pkg.attributes.by_path")
    assert changes(package, "shapes/flat.py", "return 4", "return 5", of="pkg.attributes.by_package")
    assert not changes(package, "shapes/round.py", "base(x)", "base(-x)", of="pkg.attributes.by_package")


def test_a_package_of_exports_leads_only_to_what_is_taken_from_it(package: Path) -> None:
    assert not changes(package, "shapes/flat.py", "return 4", "return 5", of="pkg.station")
    assert changes(package, "shapes/round.py", "base(x)", "base(2 * x)", of="pkg.station")


def test_an_export_more_changes_nothing(package: Path) -> None:
    new = '__all__ = ["square", "round_one", "late"]\nfrom pkg.late import late'
    old = '__all__ = ["square", "round_one"]'
    assert not changes(package, "shapes/__init__.py", old, new, of="pkg.station")


@pytest.mark.parametrize("name", ["pkg.attributes.by_name", "pkg.imports", "pkg.star.star", "pkg.shapes"])
def test_a_module_without_an_attribute_counts_as_a_whole(package: Path, name: str) -> None:
    assert changes(package, "shapes/flat.py", "return 4", "return 5", of=name)
    assert changes(package, "base.py", "np.abs(x)", "-x", of=name)


def test_a_name_that_comes_to_mean_a_namesake_is_a_change(package: Path) -> None:
    (package / "namesakes.py").write_text("def scaled(x):\n    return 3 * x\n")
    (package / "both.py").write_text(
        "from pkg import base, namesakes\nfrom pkg.base import scaled\n\n\ndef both(x):\n"
        "    return scaled(x) + base.scaled(x) + namesakes.scaled(x)\n"
    )
    assert changes(package, "namesakes.py", "3 * x", "4 * x", of="pkg.both")
    (package / "user.py").write_text("from pkg.base import scaled\n\n\ndef user(x):\n    return scaled(x)\n")
    before = fingerprint(package, "pkg.both", "pkg.user")
    edit(package, "user.py", "pkg.base", "pkg.namesakes")
    assert fingerprint(package, "pkg.both", "pkg.user") != before


def test_what_another_package_provides_counts(package: Path) -> None:
    assert changes(package, "base.py", "import numpy as np", "import torch as np", of="pkg.station")
    assert not changes(package, "base.py", "import torch as np", "import torch as np, os", of="pkg.station")


def test_statements_that_define_nothing_count_with_any_definition_of_the_module(package: Path) -> None:
    assert changes(package, "late.py", "return 1", "return 5", of="pkg.setup.one")
    assert changes(package, "setup.py", "\nlate()\n", "\nlate()\nlate()\n", of="pkg.setup.one")
    assert changes(package, "setup.py", "late()\n", "KNOWN['a'] = late\n", of="pkg.setup.one")
    assert changes(package, "late.py", "return 5", "return 6", of="pkg.setup.one")


def test_statements_of_the_packages_around_a_module_count(package: Path) -> None:
    assert changes(package, "late.py", "return 1", "return 5", of="pkg.acting.quiet.quiet")


# Ends and refusals


def test_circular_imports_end(package: Path) -> None:
    (package / "a.py").write_text("from pkg.b import b\na = 1\ndef of_b():\n    return b\n")
    (package / "b.py").write_text("def b():\n    from pkg.a import of_b\n    return of_b(1)\n")
    (package / "loop").mkdir()
    (package / "loop" / "__init__.py").write_text("from pkg.loop import x\n")
    (package / "c.py").write_text("from pkg.loop import x\n\n\nc = x\n")
    assert changes(package, "b.py", "of_b(1)", "of_b(2)", of="pkg.a.of_b")
    assert fingerprint(package, "pkg.c")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("pkg.bse", r"pkg\.base"),
        ("pkg.base.scald", r"pkg\.base\.scaled"),
        ("pkg.classes.Shape.area", r"pkg\.classes"),
        ("numpy", ""),
    ],
)
def test_an_unknown_name_is_refused(package: Path, name: str, nearest: str) -> None:
    with pytest.raises(InputError, match=rf"unknown module or definition `{name}`\..*{nearest}"):
        fingerprint(package, name)


def test_one_file_is_read_with_its_imports(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    seen = set()
    for source in (
        "from numpy import mean\n\n\ndef own(x):\n    return mean(x)\n",
        "from scipy import mean\n\n\ndef own(x):\n    return mean(x)\n",
        "from numpy import mean\n\n\ndef own(x):\n    return -mean(x)\n",
    ):
        path.write_text(source)
        seen.add(source_fingerprint(path))
        path.write_text(f'"""Own."""\n# why\n{source}')
        seen.add(source_fingerprint(path))
    assert len(seen) == 3


# lmshape itself


@pytest.fixture
def library(tmp_path: Path) -> Path:
    return Path(copytree(PACKAGE, tmp_path / "lmshape", ignore=ignore_patterns("*.nb?", "__pycache__")))


def path_of(package: Path, module: str) -> Path:
    return package.parent.joinpath(*module.split(".")).with_suffix(".py")


def touch(package: Path, module: str) -> None:
    """Add a statement that counts with any definition of a module, and a definition that nothing refers to."""
    path = path_of(package, module)
    path.write_text(path.read_text(encoding="utf-8") + "\n_MORE = 1\nprint()\n", encoding="utf-8")


def test_modules_without_results_do_not_count(library: Path) -> None:
    stages = (
        "lmshape.models.extract",
        "lmshape.tables.study_tables",
        "lmshape.metrics.spectral",
        "lmshape.texts.tokenizer",
    )
    before = fingerprint(library, *stages)
    for module in WITHOUT_RESULTS:
        touch(library, module)
    assert fingerprint(library, *stages) == before


def test_a_module_without_results_that_moved_is_missed(library: Path) -> None:
    path_of(library, "lmshape.writing").unlink()
    with pytest.raises(InputError, match=r"unknown module `lmshape\.writing`"):
        Definitions(library)


def test_only_the_module_that_is_meant_is_without_results(package: Path) -> None:
    (package / "errors.py").write_text("def refuse():\n    return 1\n")
    (package / "refusing.py").write_text("from pkg.errors import refuse\n")
    assert changes(package, "errors.py", "return 1", "return 2", of="pkg.refusing")


# What makes a table of tables, or of files of its own, runs no more when an estimator changes.
@pytest.mark.parametrize("stage", ["tables.loss_spikes", "truncation.tables", "tables.shapes", "claims"])
def test_tables_that_estimate_nothing_do_not_depend_on_estimators(library: Path, stage: str) -> None:
    before = fingerprint(library, f"lmshape.{stage}")
    for module in (
        "geometry.neighbors",
        "tables.gather",
        "metrics.registry",
        "figures.style",
    ):
        touch(library, f"lmshape.{module}")
    assert fingerprint(library, f"lmshape.{stage}") == before
    touch(library, "lmshape.tables.columns")
    assert fingerprint(library, f"lmshape.{stage}") != before


def test_lmshape_itself() -> None:
    assert code_fingerprint("lmshape.paths") == fingerprint(PACKAGE, "lmshape.paths")
    assert code_fingerprint("lmshape.study.registry") != code_fingerprint("lmshape.checkpoints")
    assert code_fingerprint("lmshape.metrics.block") != code_fingerprint(
        "lmshape.metrics.block.sites_between"
    )


def test_every_name_that_a_rule_depends_on_exists() -> None:
    for rule in RULES.values():
        assert not rule.code or code_fingerprint(*rule.code)
    for figure in FIGURES.values():
        assert code_fingerprint(figure.code)
