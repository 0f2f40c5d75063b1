"""Fingerprint of the code behind a result, so that a change to it, and nothing else, runs it again.

Snakemake cannot see inside an imported package. A rule passes the fingerprint of its modules as a parameter:
it changes with the syntax tree of any of them, or of any lmshape module they import, and with nothing that
leaves the tree as it is: comments, docstrings, formatting, dates of files.

What is followed: `import` and `from … import` anywhere in a module, functions included, within the package;
not what stands under `if TYPE_CHECKING`, not `WITHOUT_RESULTS`, not names given to importlib as text (pass these
modules too), not other packages. What a package re-exports is followed name by name: `from lmshape.geometry import
anisotropy` leads to the module that defines `anisotropy`, not to all that `lmshape.geometry` lists. The `__init__` of
a package on the way counts, with its imports, only if it holds code beyond imports, docstrings and names like
`__version__`.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lmshape.errors import unknown

PACKAGE = Path(__file__).parent
DIGITS = 12  # 48 bits: no two versions of a module meet by chance
# What these do is in no result: words for people, and how a file comes to its name. Named in full: another module of
# the same last name may well be behind a result.
WITHOUT_RESULTS = {
    "lmshape.errors",
    "lmshape.progress",
    "lmshape.writing",
}


@cache
def code_fingerprint(*modules: str) -> str:
    """Hash the syntax trees of modules and of all lmshape modules that they import.

    Read once a process: a change on disk shows in the next one. About 2 ms a module.

    Parameters
    ----------
    modules : dotted names, such as "lmshape.metrics.spectral"

    Returns
    -------
    12 hexadecimal digits, the same for any order of the modules.

    Raises
    ------
    InputError
        When there is no such module.
    """
    return _fingerprint(_own_sources(), modules)


def fingerprint_in(package: Path, modules: tuple[str, ...]) -> str:
    """`code_fingerprint` for a package in any folder, read anew."""
    return _fingerprint(_Sources(package), modules)


@cache
def _own_sources() -> _Sources:
    """The modules of lmshape, each read once a process, however many fingerprints it is part of."""
    return _Sources(PACKAGE)


def _fingerprint(sources: _Sources, modules: tuple[str, ...]) -> str:
    for name in modules:
        if not sources.has(name):
            raise unknown("module", name, sources.names())
    digest = hashlib.sha256()
    for name in sorted(_reachable(sources, modules)):
        digest.update(f"{name}\n{sources.canonical(name)}\n".encode())
    return digest.hexdigest()[:DIGITS]


def source_fingerprint(path: Path) -> str:
    """Hash the syntax tree of one Python file, without following its imports; 12 hexadecimal digits."""
    tree = _without_text(ast.parse(path.read_bytes()))
    return hashlib.sha256(_canonical(tree).encode()).hexdigest()[:DIGITS]


@dataclass(frozen=True, slots=True)
class _Module:
    """Syntax tree of a module without docstrings; imports: (module, name or "" for all of it, alias)."""

    tree: ast.Module
    imports: tuple[tuple[str, str, str], ...]
    only_exports: bool


class _Sources:
    """The modules of a package, each parsed once."""

    def __init__(self, package: Path) -> None:
        self.package = package
        self._read: dict[str, _Module] = {}
        self._canonical: dict[str, str] = {}

    def names(self) -> list[str]:
        """Dotted names of all modules."""
        relative = (path.relative_to(self.package.parent) for path in self.package.rglob("*.py"))
        return sorted(".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in relative)

    def has(self, name: str) -> bool:
        return self._path(name) is not None

    def is_package(self, name: str) -> bool:
        path = self._path(name)
        return path is not None and path.name == "__init__.py"

    def read(self, name: str) -> _Module:
        if name not in self._read:
            tree = _without_text(ast.parse(self._path(name).read_bytes()))
            package = name if self.is_package(name) else name.rpartition(".")[0]
            self._read[name] = _Module(tree, tuple(_imports(tree, package)), _only_exports(tree))
        return self._read[name]

    def canonical(self, name: str) -> str:
        """Spell out the syntax tree of a module."""
        if name not in self._canonical:
            self._canonical[name] = _canonical(self.read(name).tree)
        return self._canonical[name]

    def _path(self, name: str) -> Path | None:
        stem = self.package.parent.joinpath(*name.split("."))
        candidates = (stem / "__init__.py", stem.with_name(stem.name + ".py"))
        inside = name.split(".")[0] == self.package.name
        return next((path for path in candidates if inside and path.is_file()), None)


def _reachable(sources: _Sources, modules: tuple[str, ...]) -> set[str]:
    """Modules whose code runs: those given, what they import, and packages on the way that hold code."""
    found: set[str] = set()
    waiting = [module for name in modules for module in _with_parents(sources, name)]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            for target, attribute, _ in sources.read(name).imports:
                for module in _definitions(sources, target, attribute, seen=set()):
                    waiting.extend(_with_parents(sources, module))
    return found


def _with_parents(sources: _Sources, name: str) -> Iterator[str]:
    """Yield a module, and the packages it lies in that hold code of their own."""
    yield name
    while name := name.rpartition(".")[0]:
        if sources.has(name) and not sources.read(name).only_exports:
            yield name


def _definitions(sources: _Sources, target: str, attribute: str, seen: set[tuple[str, str]]) -> Iterator[str]:
    """Yield the modules behind `from target import attribute`, or `import target` without an attribute."""
    if not sources.has(target) or (target, attribute) in seen or target in WITHOUT_RESULTS:
        return
    seen.add((target, attribute))
    if attribute and sources.has(f"{target}.{attribute}"):
        yield from _definitions(sources, f"{target}.{attribute}", "", seen)
    elif not sources.is_package(target):
        yield target
    else:
        yield from _exported(sources, target, attribute, seen)


def _exported(sources: _Sources, package: str, attribute: str, seen: set[tuple[str, str]]) -> Iterator[str]:
    module = sources.read(package)
    everything = attribute in ("", "*")
    origins = [(source, name) for source, name, alias in module.imports if everything or alias == attribute]
    if not module.only_exports:
        yield package
    for source, name in origins:
        yield from _definitions(sources, source, name, seen)


def _imports(tree: ast.Module, package: str) -> Iterator[tuple[str, str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, "", alias.asname or alias.name
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*parents, *([node.module] if node.module else [])])
            for alias in node.names:
                yield source, alias.name, alias.asname or alias.name


def _without_text(tree: ast.Module) -> ast.Module:
    """Take out what never runs: docstrings and other bare texts, and imports for type checkers."""
    for node in ast.walk(tree):
        for field in ("body", "orelse", "finalbody"):
            if isinstance(statements := getattr(node, field, None), list):
                setattr(node, field, [statement for statement in statements if not _is_idle(statement)])
    return tree


def _is_idle(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant) and isinstance(statement.value.value, str)
    if isinstance(statement, ast.If):
        test = statement.test
        return (
            "TYPE_CHECKING" in (getattr(test, "id", ""), getattr(test, "attr", "")) and not statement.orelse
        )
    return False


def _only_exports(tree: ast.Module) -> bool:
    return all(isinstance(node, ast.Import | ast.ImportFrom) or _is_dunder(node) for node in tree.body)


def _is_dunder(node: ast.stmt) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return all(isinstance(target, ast.Name) and target.id.startswith("__") for target in targets)


def _canonical(node: object) -> str:
    """Spell a tree out without its empty fields: versions of Python differ in which of them exist."""
    if isinstance(node, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(node) if value is not None and value != [])
        return f"{type(node).__name__}({','.join(f'{name}={_canonical(value)}' for name, value in fields)})"
    if isinstance(node, list):
        return f"[{','.join(map(_canonical, node))}]"
    return repr(node)
