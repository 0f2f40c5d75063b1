"""Own family: the values of a user's functions on all rows and without each draw, or on each draw.

The functions stand in a Python file. Planning reads their names without running it; measuring runs it.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args

import numpy as np

from lmshape.errors import InputError
from lmshape.fingerprint import source_fingerprint
from lmshape.metrics.layer import Arrays, Found, Layer, Measured
from lmshape.metrics.metric import Family, Metric, named_array
from lmshape.store.statistics import DRAW, LEFT_OUT

Function = Callable[[np.ndarray], float]
Interval = Literal["jackknife", "draws"]
MODULE = "lmshape_own_metrics"  # name under which the file runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """The declarations of a function beside its definition.

    Parameters
    ----------
    interval : "jackknife", the value of all rows, and its interval from the values without each draw; "draws",
        the mean of the values of each draw, for what depends on the number of rows
    low, high : bounds of the value; its interval is clipped to them
    range : the same in words, for the table of metrics
    null : the value that means "nothing there"
    source : where the metric is from

    Raises
    ------
    ValueError
        For another interval, and when `low` is not below `high`.
    """

    interval: Interval = "jackknife"
    low: float = -inf
    high: float = inf
    range: str = ""
    null: str = "not stated"
    source: str = "own"

    def __post_init__(self) -> None:
        """Check what a user has written."""
        if self.interval not in get_args(Interval):
            raise ValueError(f'`interval` is {self.interval!r}; it must be "jackknife" or "draws".')
        if not self.low < self.high:
            raise ValueError(f"`low` is {self.low} and `high` {self.high}; `low` must be below `high`.")

    def __call__(self, function: Any) -> Function:
        """Declare it of a function, which is returned; any function takes an attribute, and no type says so."""
        function.declaration = self
        return function

    def bounds(self) -> str:
        """Return `low` and `high` as an interval in words."""
        first = "(-∞" if self.low == -inf else f"[{self.low:g}"
        return f"{first}, ∞)" if self.high == inf else f"{first}, {self.high:g}]"


@dataclass(frozen=True, slots=True)
class OwnMetric:
    """A function of a file: its name, the first line of its docstring, and what it declares."""

    path: Path
    name: str
    definition: str
    function: Function
    declaration: Declaration


@dataclass(frozen=True, slots=True)
class OwnFile:
    """Facts of the file for planning: its path as given, its functions, its fingerprint."""

    path: str
    names: tuple[str, ...]
    fingerprint: str


def metric(function: Function | None = None, /, **settings: Any) -> Function | Callable[[Function], Function]:
    """Declare what a metric's number is, by the settings of `Declaration`.

    A function without this decorator, or under a bare one, has the defaults. `ValueError` for a setting without its
    name, and for those that `Declaration` refuses.
    """
    if function is not None and not callable(function):
        raise ValueError(f"`metric` got {function!r} without a name; write `interval={function!r}`, say.")
    declared = Declaration(**settings)
    return declared if function is None else declared(function)


def read_own(path: Path, *, named: str | None = None, taken: Collection[str] = ()) -> OwnFile:
    """Read which metrics a file defines, without running it.

    Parameters
    ----------
    path : the file
    named : what the configuration calls it; the path itself unless given
    taken : names that no function may have: those of lmshape's metrics and families

    Raises
    ------
    InputError
        When there is no such file, it is not Python, no public function stands in it, or one has a name that
        is taken or cannot be called with the rows alone.
    """
    named = named or str(path)
    functions = _public_functions(_parsed(path, named))
    problems = list(_problems(functions, taken))
    if not functions:
        problems = ["no public function stands in it. Write one that takes the rows x and returns a number."]
    if problems:
        raise InputError(f"`own_metrics` = '{named}': {' '.join(problems)}")
    names = tuple(dict.fromkeys(function.name for function in functions))
    return OwnFile(named, names, source_fingerprint(path))


def load_own(path: Path) -> list[OwnMetric]:
    """Run a file and return its metrics, in the order in which they stand in it.

    Raises
    ------
    InputError
        For what `read_own` refuses, when running the file fails (the message names the line), and when a
        function's name stands for something else at the end.
    """
    names = read_own(path).names
    module = _run(path)
    return [_own(path, name, getattr(module, name, None)) for name in names]


def failure(path: Path, error: BaseException) -> str:
    """Say what an error of the file's code was, and on which line of the file it came up."""
    line = None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    place = f" on line {line}" if line else ""
    text = " ".join(str(error).split()).rstrip(".")  # the caller ends the sentence
    return f"{type(error).__name__}{place}" + (f": {text}" if text else "")


def _own(path: Path, name: str, function: object) -> OwnMetric:
    if not callable(function):
        raise InputError(
            f"`{path}`: `{name}` is a `{type(function).__name__}` and not a function after the file has run. Give "
            "its replacement another name."
        )
    lines = (function.__doc__ or "").strip().splitlines()
    definition = lines[0] if lines else f"not said: `{name}` has no docstring"
    return OwnMetric(path, name, definition, function, getattr(function, "declaration", Declaration()))


def _parsed(path: Path, named: str) -> ast.Module:
    try:
        return ast.parse(path.read_bytes(), str(path))
    except IsADirectoryError:
        raise InputError(f"`own_metrics` = '{named}': a folder. Name the Python file in it.") from None
    except OSError:
        where = path.parent.absolute()
        raise InputError(f"`own_metrics` = '{named}': no such file in {where}. Correct the path.") from None
    except SyntaxError as error:
        raise InputError(
            f"`own_metrics` = '{named}': not Python on line {error.lineno} ({error.msg}). Correct it."
        ) from None
    except ValueError as error:  # null bytes, or no UTF-8
        raise InputError(f"`own_metrics` = '{named}': not Python ({error}). Correct it.") from None


def _public_functions(tree: ast.Module) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_")
    ]


def _problems(
    functions: list[ast.FunctionDef | ast.AsyncFunctionDef], taken: Collection[str]
) -> Iterator[str]:
    for function in functions:
        if function.name in (*taken, "own", DRAW, LEFT_OUT):
            yield (
                f"`{function.name}` is a metric or family of lmshape's, or an axis of its archives. Give the function "
                "another name."
            )
        if isinstance(function, ast.AsyncFunctionDef) or not _takes_rows(function.args):
            yield (
                f"`{function.name}` on line {function.lineno} cannot be called with the rows x alone. Write "
                f"`def {function.name}(x)`, or begin its name with an underscore if it is not a metric."
            )


def _takes_rows(arguments: ast.arguments) -> bool:
    """Tell whether a call with one positional argument fits."""
    positional = len(arguments.posonlyargs) + len(arguments.args)
    required = positional - len(arguments.defaults)
    keywords = [default for default in arguments.kw_defaults if default is None]
    return required <= 1 and not keywords and (positional >= 1 or arguments.vararg is not None)


def _run(path: Path) -> ModuleType:
    """Run the file as a module; no bytecode is left beside it."""
    module = ModuleType(MODULE)
    module.__file__ = str(path)
    sys.modules[MODULE] = module  # dataclasses and pickle look a class's module up
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        raise InputError(f"`{path}` cannot be run: {failure(path, error)}. Correct it.") from error
    return module


def statistics(layer: Layer, *, functions: Sequence[OwnMetric]) -> dict[str, Found]:
    """Return for each choice of rows one array a function, by its name.

    (K + 1,) values for the interval "jackknife": of all rows, then without each draw; (K,) for "draws".
    NaN with the reason in the attribute `flag_` + name where the function raised a ValueError, or returned
    no finite number or one outside the bounds that it declares. Whole layers in float64 are in memory, twice.

    Raises
    ------
    InputError
        For any other error of a function; it names function, file and line.
    """
    return {name: _of_choice(layer, mask, functions) for name, mask in layer.kept.items()}


def missing(
    *,
    rows: int,
    width: int,
    draws: int,
    rows_per_draw: int | None = None,
    functions: Sequence[OwnMetric],
) -> Arrays:
    """Return the arrays of `statistics`, NaN, for rows that have none."""
    return {one.name: np.full(draws + (one.declaration.interval == "jackknife"), np.nan) for one in functions}


def _of_choice(layer: Layer, mask: np.ndarray, functions: Sequence[OwnMetric]) -> Found:
    index = np.flatnonzero(mask)
    x, draw = layer.rows.take(index).astype(np.float64), layer.draw[index]
    arrays, flags = {}, {"flag": ""}
    for own in functions:
        results = [_value(own, x[part], where) for part, where in _parts(own, draw)]
        arrays[own.name] = np.array([value for value, _ in results])
        reasons = [reason for _, reason in results if reason]
        if reasons:
            flags[f"flag_{own.name}"] = reasons[0]  # `gather` shows it beside this metric alone
    return arrays, flags


def _value(own: OwnMetric, x: np.ndarray, where: str) -> tuple[float, str]:
    """Return the function's number of rows that it may change, and why it is NaN if it is."""
    try:
        value = float(own.function(x))
    except ValueError as error:
        return np.nan, f"{' '.join(str(error).split()) or type(error).__name__}{where}"
    except (Exception, SystemExit) as error:
        raise InputError(
            f"`{own.name}` of `{own.path}` failed{where}: {failure(own.path, error)}. Correct it, or raise "
            "a ValueError where the metric does not exist."
        ) from error
    if not np.isfinite(value):
        return np.nan, f"not finite: {value}{where}"
    declared = own.declaration
    if not declared.low <= value <= declared.high:
        bounds = f"{declared.bounds()}, the `low` and `high` that it declares"
        return np.nan, f"{value} is outside {bounds}{where}"
    return value, ""


def _parts(own: OwnMetric, draw: np.ndarray) -> Iterator[tuple[np.ndarray, str]]:
    """Yield the rows to take, and their name for a reason: nothing for all of them."""
    draws = np.unique(draw)
    if own.declaration.interval == "draws":
        yield from ((draw == j, f" (draw {j})") for j in draws)
        return
    yield np.ones(len(draw), dtype=bool), ""
    yield from ((draw != j, f" (without draw {j})") for j in draws)


def metric_of(own: OwnMetric) -> Metric:
    """Return the metric of the table."""
    declared = own.declaration
    return Metric(
        name=own.name,
        family=OWN.name,
        definition=own.definition,
        low=declared.low,
        high=declared.high,
        range=declared.range or declared.bounds(),
        null=declared.null,
        source=declared.source,
        undefined="not finite",
        interval=declared.interval,
        values=partial(named_array, family=OWN.name, name=own.name),
    )


MEASURED = Measured(name="own", statistics=statistics, missing=missing)
OWN = Family("own", measured=MEASURED)


def measured_own(path: Path | None) -> Measured:
    """Return how the functions in a file are measured; the file is run."""
    if path is None:
        raise InputError("the family `own` is that of a file of functions; name the file in `own_metrics`.")
    return MEASURED.given(source_fingerprint(path), functions=load_own(path))
