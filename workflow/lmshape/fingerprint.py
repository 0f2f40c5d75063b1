"""Fingerprint of the code behind a result, so that only a change of that code runs it again.

Snakemake cannot see inside an imported package, so a rule passes the fingerprint of what it runs as a parameter. The
fingerprint covers the definitions that the rule names (functions, classes, assignments at the top level of a module),
those of lmshape that they refer to by name, and so on. It changes with the syntax tree of each, and with what it takes
from other packages, but not with comments, docstrings, formatting, the order of definitions, or the module of each.

A module that is used without an attribute counts with all its definitions, and with imports that only pass names on.
Statements that define nothing, such as a call, count with any definition of their module, or of a module in their
package. A local variable counts as a mention of the definition with the same name. What is not followed: imports under
`if TYPE_CHECKING`, `WITHOUT_RESULTS`, attributes of a module such as `__version__`, and modules that importlib loads,
which the rule names itself.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from pathlib import Path

from lmshape.errors import unknown

PACKAGE = Path(__file__).parent
FINGERPRINT_DIGITS = 12  # 48 bits: two definitions do not meet by chance
WITHOUT_RESULTS = {  # no number depends on these: they word messages, and write files under the right name
    "lmshape.errors",
    "lmshape.progress",
    "lmshape.writing",
}
WHOLE = "<whole>"  # stands for all definitions of a module
BARE = "<bare>"  # stands for its statements that define nothing
Names = tuple[str, ...]
Node = tuple[str, str]  # a module, and the name of a definition in it


@cache
def code_fingerprint(*names: str) -> str:
    """Hash definitions of lmshape and all definitions that they refer to.

    Parameters
    ----------
    names : dotted names of modules, "lmshape.metrics.spectral", or of definitions, "lmshape.metrics.spectral.missing"

    Returns
    -------
    12 hexadecimal digits, the same for any order of the names.

    Raises
    ------
    InputError
        When there is no such module or definition.
    """
    return _own_definitions().fingerprint(names)


def source_fingerprint(path: Path) -> str:
    """Hash one Python file with its import statements, without following them; 12 hexadecimal digits."""
    code = _code(_statements(path), place=())
    return _digest([code.digest, *map(repr, sorted(code.imports))])


@cache
def _own_definitions() -> Definitions:
    return Definitions(PACKAGE)


@dataclass(frozen=True, slots=True)
class _Code:
    """The hash of a definition's syntax tree, and the names that lead on from it."""

    digest: str
    mentions: dict[str, set[Names]]  # `np.linalg.svd` is {"np": {("linalg", "svd")}}
    imports: frozenset[tuple[str, str, Names]]  # `from a.b import c as d` is ("d", "a.b", ("c",))


class Definitions:
    """The definitions of the package in a folder, and how they refer to each other; each file is read once."""

    def __init__(self, folder: Path) -> None:
        self._root = folder.parent
        paths = [path.relative_to(self._root) for path in folder.rglob("*.py")]
        self._paths = {".".join(path.with_suffix("").parts).removesuffix(".__init__"): path for path in paths}
        self._module = cache(self._read)
        self._links = cache(self._find_links)
        for name in WITHOUT_RESULTS:
            if name.startswith(f"{folder.name}.") and name not in self._paths:
                raise unknown("module", name, self._paths)

    def fingerprint(self, names: Iterable[str]) -> str:
        """Hash the set of all definitions reached, whatever their order and their modules."""
        reached = self._reached([self._named(name) for name in names])
        return _digest(sorted({self._line(node) for node in reached if node[1] != WHOLE}))

    def _named(self, name: str) -> Node:
        if name in self._paths:
            return name, WHOLE
        module, _, definition = name.rpartition(".")
        known = self._module(module) if module in self._paths else {}
        if definition not in known:
            raise unknown("module or definition", name, [*self._paths, *(f"{module}.{one}" for one in known)])
        return module, definition

    def _reached(self, waiting: list[Node]) -> set[Node]:
        found: set[Node] = set()
        while waiting:
            node = waiting.pop()
            if node not in found and node[0] in self._paths:
                found.add(node)
                waiting.extend(self._links(node))
                waiting.extend((module, BARE) for module in accumulate(node[0].split("."), "{}.{}".format))
        return found

    def _line(self, node: Node) -> str:
        """Spell a definition and those it refers to: a name that comes to mean a namesake is a change."""
        return " ".join([self._spelled(*node), *sorted({self._spelled(*link) for link in self._links(node)})])

    def _spelled(self, module: str, name: str) -> str:
        return self._module(module)[name].digest if module in self._paths else f"{module}.{name}"

    def _find_links(self, node: Node) -> frozenset[Node]:
        """Find what the names in a definition stand for."""
        module, definitions = node[0], self._module(node[0])
        code = definitions[node[1]]
        found = {(module, name) for name in code.mentions.keys() & definitions.keys()}
        for local, source, names in definitions[BARE].imports | code.imports:
            for attributes in code.mentions.get(local, ()):
                found.update(self._resolved(source, (*names, *attributes)))
        return frozenset(found)

    def _resolved(self, module: str, names: Names) -> Iterator[Node]:
        """Yield what `module.first.second…` stands for; nothing is looked up in other packages."""
        if not names or module not in self._paths:
            yield module, ".".join(names) or WHOLE
            return
        first, more, definitions = names[0], names[1:], self._module(module)
        if first.startswith("__"):  # `lmshape.__version__` is not what the module's `__getattr__` imports
            return
        # `from lmshape.claims import training` in lmshape.claims leads to the module, not back to this import
        itself = (module, (first,))
        sources = [one[1:] for one in definitions[BARE].imports if one[0] == first and one[1:] != itself]
        inner = f"{module}.{first}"
        if first in definitions:
            yield module, first
        elif not sources:
            yield from self._resolved(inner, more) if inner in self._paths else [(module, WHOLE)]
        for source, onward in sources:
            yield from self._resolved(source, (*onward, *more))

    def _read(self, module: str) -> dict[str, _Code]:
        path = self._paths[module]
        grouped: dict[str, list[ast.stmt]] = {BARE: []}
        for statement in _statements(self._root / path) if module not in WITHOUT_RESULTS else []:
            for name in _defined(statement):
                grouped.setdefault(name, []).append(statement)
        found = {name: _code(statements, path.parts) for name, statements in grouped.items()}
        used = {name for code in found.values() for name in code.mentions}
        unused = [local for local, _, _ in found[BARE].imports if local not in used]
        return found | {WHOLE: _Code("", dict.fromkeys([*found, *unused], {()}), frozenset())}


def _statements(path: Path) -> list[ast.stmt]:
    """Read a file without what does nothing: docstrings, other constants, and imports for type checkers."""
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        for field in ("body", "orelse", "finalbody"):
            if isinstance(statements := getattr(node, field, None), list):
                setattr(node, field, [statement for statement in statements if not _is_idle(statement)])
    return tree.body


def _is_idle(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.If):
        return getattr(statement.test, "id", "") == "TYPE_CHECKING" and not statement.orelse
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _defined(statement: ast.stmt) -> list[str]:
    """Name what a statement defines: `BARE` where it defines nothing, no name for `__all__` and the like."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    if not isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
        return [BARE]
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    names = [getattr(part, "id", BARE) for target in targets for part in getattr(target, "elts", [target])]
    return [BARE] if BARE in names else [name for name in names if not name.startswith("__")]


def _code(statements: list[ast.stmt], place: Names) -> _Code:
    """Read statements of the module at `place`, the parts of its path, where its relative imports start."""
    mentions: dict[str, set[Names]] = {"*": {()}}  # any name may come from `import *`
    imports: set[tuple[str, str, Names]] = set()
    waiting: list[ast.AST] = list(statements)
    while waiting:
        node, attributes = waiting.pop(), list[str]()
        while isinstance(node, ast.Attribute):
            attributes.insert(0, node.attr)
            node = node.value
        if isinstance(node, ast.Name):
            mentions.setdefault(node.id, set()).add(tuple(attributes))
        imports.update(_imports(node, place))
        waiting.extend(ast.iter_child_nodes(node))
    return _Code(_digest([_canonical(statements)]), mentions, frozenset(imports))


def _imports(node: ast.AST, place: Names) -> Iterator[tuple[str, str, Names]]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            first = alias.name.partition(".")[0]
            yield alias.asname or first, alias.name if alias.asname else first, ()
    elif isinstance(node, ast.ImportFrom):
        parents = place[: -node.level] if node.level else ()
        for alias in node.names:
            yield alias.asname or alias.name, ".".join(filter(None, (*parents, node.module))), (alias.name,)


def _canonical(node: object) -> str:
    """Spell a tree out without imports and empty fields: versions of Python differ in which of these exist."""
    if isinstance(node, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(node) if value is not None and value != [])
        return f"{type(node).__name__}({','.join(f'{name}={_canonical(value)}' for name, value in fields)})"
    if isinstance(node, list):
        return f"[{','.join(_canonical(one) for one in node if not isinstance(one, ast.Import | ast.ImportFrom))}]"
    return repr(node)


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:FINGERPRINT_DIGITS]
