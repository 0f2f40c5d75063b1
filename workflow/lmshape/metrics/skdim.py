"""Estimators of scikit-dimension, by name: `skdim.CorrInt`, `skdim.lPCA(ver=participation_ratio)`.

A name is a call in Python's spelling, with options by name: text without quotes, numbers, True, None, lists. It is the
metric's name, in one spelling for one set of options. scikit-dimension is imported where a name is checked and where it
is measured.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from keyword import iskeyword
from math import inf, isfinite, nan
from typing import Any

import numpy as np

from lmshape.errors import InputError, unknown
from lmshape.metrics.layer import Arrays, Found, Layer, Measured
from lmshape.metrics.metric import Family, Metric, named_array
from lmshape.metrics.rows import ROWS, UniqueRows, unique_rows_by_draw

PREFIX = "skdim."
SEED = 0  # of every estimator that draws at random: no difference by chance between layers and checkpoints
NOT_OPTIONS = {"self", "X", "y", "precomputed_knn_arrays", "smooth", "n_jobs"}  # of `fit`


@dataclass(frozen=True, slots=True)
class Estimator:
    """The estimator of `skdim.id` and the options of a name."""

    estimator: str
    options: Mapping[str, object]

    @property
    def name(self) -> str:
        """Return the name in its one spelling: options by alphabet."""
        options = ", ".join(f"{key}={_spelled(value)}" for key, value in sorted(self.options.items()))
        return f"{PREFIX}{self.estimator}" + (f"({options})" if options else "")


def read_name(name: str) -> Estimator:
    """Read a name, without looking whether scikit-dimension has such an estimator.

    Raises
    ------
    InputError
        When it is not spelled as a call with options by name.
    """
    try:
        match ast.parse(name, mode="eval").body:
            case ast.Attribute(value=ast.Name(id="skdim"), attr=estimator):
                return Estimator(estimator, {})
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="skdim"), attr=estimator), args=[], keywords=given
            ) if all(one.arg for one in given):
                return Estimator(estimator, {str(one.arg): _value(one.value) for one in given})
    except (SyntaxError, ValueError):
        pass
    raise InputError(
        f"`{name}` is not an estimator with options by name. Write it as in `skdim.lPCA(ver=participation_ratio)`, in "
        "quotes where it has a comma and the list stands on one line."
    )


def _value(node: ast.expr) -> object:
    return node.id if isinstance(node, ast.Name) else ast.literal_eval(node)


def _spelled(value: object) -> str:
    bare = isinstance(value, str) and value.isidentifier() and not iskeyword(value)
    return str(value) if bare else repr(value)


def named(names: Iterable[str]) -> dict[str, Estimator]:
    """Return those of `names` that are of this family, by their one spelling, in their order."""
    found = [read_name(name) for name in names if name.startswith(PREFIX)]
    return {one.name: one for one in found}


def problems(names: Iterable[str]) -> Iterator[str]:
    """Say what is wrong with each of `names` that is of this family; imports scikit-dimension if there is any."""
    for name in names:
        if name.startswith(PREFIX):
            try:
                _check(read_name(name))
            except InputError as error:
                yield str(error)


def _check(one: Estimator) -> None:
    if one.estimator not in _classes():
        valid = [PREFIX + name for name in _classes()]
        raise unknown("estimator of scikit-dimension", PREFIX + one.estimator, valid)
    of_class, of_fit = _options(one.estimator)
    for option in one.options:
        if option not in of_class | of_fit:
            raise unknown(f"option of `{PREFIX}{one.estimator}`", option, sorted(of_class | of_fit))


@cache
def _classes() -> dict[str, Any]:
    with warnings.catch_warnings():  # the import changes the filters
        import skdim.id
    return {name: value for name, value in vars(skdim.id).items() if isinstance(value, type)}


def _options(estimator: str) -> tuple[set[str], set[str]]:
    """Return the options of an estimator's class and of its `fit`."""
    made = _classes()[estimator]
    of_class, of_fit = (set(inspect.signature(one).parameters) for one in (made, made.fit))
    return of_class, of_fit - NOT_OPTIONS


def statistics(layer: Layer, *, names: Sequence[str]) -> dict[str, Found]:
    """Return for each choice of rows one array (K,) an estimator, by its name: the estimate of each draw.

    The rows of a draw are those of the neighbor family: the first m unique ones, in float64. An estimator that draws at
    random has one seed. Where it raises an error or gives no finite number, NaN, and the attribute `flag_` + name has
    the reason, or the warning that it gave beside a number.
    """
    estimators = named(names)
    return {choice: _of_choice(rows, estimators) for choice, rows in unique_rows_by_draw(layer).items()}


def missing(
    *, rows: int, width: int, draws: int, rows_per_draw: int | None = None, names: Sequence[str]
) -> Arrays:
    """Return the arrays of `statistics`, NaN, for rows that have none."""
    return {name: np.full(draws, nan) for name in named(names)}


def _of_choice(taken: UniqueRows, estimators: Mapping[str, Estimator]) -> Found:
    arrays: dict[str, list[float]] = {name: [] for name in estimators}
    flags = {"flag": taken.flag}
    for draw, cloud in zip(taken.index, taken.clouds(), strict=True):
        for name, one in estimators.items():
            value, reason = _estimate(one, cloud.astype(np.float64))
            arrays[name].append(value)
            if reason:
                flags.setdefault(f"flag_{name}", f"{reason} (draw {draw})")
    return {name: np.array(values) for name, values in arrays.items()}, flags


def _estimate(one: Estimator, cloud: np.ndarray) -> tuple[float, str]:
    """Return the estimate of one cloud, NaN where there is none, and the doubt about it."""
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("always")
        try:
            value = float(_fitted(one, cloud).dimension_)
        except MemoryError:
            raise  # the next attempt has more
        except Exception as error:
            return (
                nan,
                f"no estimate from {len(cloud)} rows: {type(error).__name__}: {' '.join(str(error).split())}",
            )
    said = [" ".join(str(one.message).split()) for one in caught if one.category is UserWarning]
    if isfinite(value):
        return value, said[0] if said else ""
    return nan, said[0] if said else f"not finite: {value}"


def _fitted(one: Estimator, cloud: np.ndarray) -> Any:
    of_class, of_fit = _options(one.estimator)
    options = {
        key: np.array(value) if isinstance(value, list) else value for key, value in one.options.items()
    }
    if "random_state" in of_class:
        options.setdefault("random_state", SEED)
    made = _classes()[one.estimator](**{key: options[key] for key in options.keys() & of_class})
    return made.fit(cloud, **{key: options[key] for key in options.keys() & of_fit})


@dataclass(frozen=True, slots=True)
class About:
    """Facts of an estimator for the reader, and its core-seconds per row and per pair of rows.

    `per_entry` are those for each entry (n d) of the cloud. All were measured on 1024 rows, and are rounded up.
    """

    definition: str
    source: str
    range: str = "[0, ∞)"
    per_row: float = 0.0
    per_pair: float = 1e-6
    per_entry: float = 0.0


ABOUT = {
    "CorrInt": About(
        "slope of the correlation sum between the mean distances to the neighbors k1 = 10 and k2 = 20",
        "Grassberger & Procaccia 1983; Hino et al. 2017",
    ),
    "DANCo": About(
        "dimension D whose balls have the same norms of nearest neighbors and angles between them, k = 10",
        "Ceruti et al. 2014, doi:10.1016/j.patcog.2014.02.013",
        "[1, D], D = d unless given",
        per_entry=3e-4,
    ),
    "ESS": About(
        "mean over rows of the dimension whose simplices of 100 neighbors are as skewed",
        "Johnsson et al. 2015, doi:10.1109/TPAMI.2014.2343220",
        per_row=0.1,
    ),
    "FisherS": About(
        "dimension of the sphere whose points are as often separable from all others by Fisher's discriminant",
        "Albergante et al. 2019, arXiv 1901.06328",
        per_pair=1e-5,
    ),
    "GRIDE": About(
        "maximum likelihood from the distribution of r2/r1, ratios far above the median left out",
        "Denti et al. 2022, doi:10.1038/s41598-022-20991-1",
    ),
    "KNN": About(
        "whole dimension that fits best how the lengths of neighbor graphs grow with n",
        "Carter et al. 2010, doi:10.1109/TSP.2009.2031722",
        "[1, d], whole in each draw",
    ),
    "MADA": About(
        "mean over rows of ln 2 / ln(r20/r10), how fast the ball around a row fills",
        "Farahmand et al. 2007",
    ),
    "MLE": About(
        "1 / mean over rows of Σ ln(r20/rj)/19, j = 1 … 19",
        "Levina & Bickel 2004; averaged as by MacKay & Ghahramani 2005",
    ),
    "MOM": About(
        "mean over rows of m/(r100 - m), m the mean distance to 100 neighbors",
        "Amsaleg et al. 2018, doi:10.1007/s10618-018-0578-6",
    ),
    "MiND_ML": About(
        "maximum likelihood from r1/r20 among dimensions up to D",
        "Rozza et al. 2012, doi:10.1007/s10994-012-5294-7",
        "[1, D], D = 10 unless given",
    ),
    "PH": About(
        "from how the length of minimum spanning trees grows with the rows of a subsample",
        "Schweinhart 2020; arXiv 1808.01079",
        per_pair=5e-5,
    ),
    "TLE": About(
        "mean over rows of the tight local estimate from the distances among 20 neighbors",
        "Amsaleg et al. 2019, doi:10.1137/1.9781611975673.21",
    ),
    "TwoNN": About(
        "slope through 0 of -ln(1 - i/n) on the sorted ln(r2/r1), lowest 90 %",
        "Facco et al. 2017",
    ),
    "lPCA": About(
        "eigenvalues of the covariance over 0.05 × the largest; other rules by `ver`",
        "Fukunaga & Olsen 1971; scikit-dimension lists the rules",
        "[1, min(n - 1, d)], whole in each draw but for ver=participation_ratio",
    ),
}
UNKNOWN = About("not described here", "scikit-dimension's documentation")


def metrics(names: Iterable[str]) -> tuple[Metric, ...]:
    """Return the metrics of those of `names` that are of this family."""
    return tuple(_metric(name, one) for name, one in named(names).items())


def _metric(name: str, one: Estimator) -> Metric:
    about = ABOUT.get(one.estimator, UNKNOWN)
    options = name.removeprefix(PREFIX + one.estimator)
    return Metric(
        name=name,
        family=SKDIM.name,
        definition=f"{one.estimator}{options} of scikit-dimension: {about.definition}; mean over draws",
        low=0.0,
        high=inf,
        range=about.range,
        null="that of Gaussian rows with the same covariance and n; biased low in high dimension",
        source=about.source,
        undefined="the estimator gives no number",
        interval="draws",
        values=partial(named_array, family=SKDIM.name, name=name),
    )


def core_seconds(names: Iterable[str], *, rows: int, width: int) -> float:
    """Return about how long the estimators among `names` take for the rows of one draw."""
    taken = [ABOUT.get(one.estimator, UNKNOWN) for one in named(names).values()]
    return sum(rows * (one.per_row + one.per_pair * rows + one.per_entry * width) for one in taken)


MEASURED = Measured(name="skdim", statistics=statistics, missing=missing, rows=ROWS, capped=True)
SKDIM = Family("skdim", measured=MEASURED)
DESCRIBED = metrics(
    PREFIX + name for name in ABOUT
)  # every estimator with the options that it has unless told


def measured_skdim(names: Sequence[str]) -> Measured:
    """Return how the estimators with these names are measured."""
    spelled = list(named(names))
    if not spelled:
        raise InputError(NONE_NAMED)
    return MEASURED.given(" " + " ".join(spelled), names=spelled)


NONE_NAMED = (
    "`skdim` stands for the estimators of scikit-dimension that are named beside it, and none is. Name some, as in "
    "`skdim.CorrInt`."
)
