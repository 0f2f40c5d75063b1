"""The table of metrics: definition, range, source and computation of each.

Measuring keeps arrays of a layer, by family; a metric is a function of them. A new metric of arrays that are kept is
one entry in the file of its family and runs no model again. All lists of names derive from the entries. Two families
have no entries of their own: a study names the estimators of `skdim`, and the functions in a user's file are `own`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from lmshape.errors import InputError, unknown
from lmshape.metrics import skdim
from lmshape.metrics.angular import ANGULAR
from lmshape.metrics.comparison import COMPARISON, COMPARISON_FINAL
from lmshape.metrics.layer import Measured
from lmshape.metrics.leading import LEADING
from lmshape.metrics.linearity import LINEARITY
from lmshape.metrics.loss import LOSS
from lmshape.metrics.metric import Metric
from lmshape.metrics.neighbor import NEIGHBOR
from lmshape.metrics.own import OWN, load_own, metric_of, read_own
from lmshape.metrics.released import RELEASED, RELEASED_LINEARITY
from lmshape.metrics.skdim import SKDIM
from lmshape.metrics.spectral import SPECTRAL

_ORDER = (
    *(SPECTRAL, ANGULAR, LEADING, NEIGHBOR, LINEARITY, COMPARISON, COMPARISON_FINAL),
    *(RELEASED, RELEASED_LINEARITY, LOSS, SKDIM, OWN),
)
FAMILIES = {family.name: family for family in _ORDER}
ALL = tuple(metric for family in _ORDER for metric in family.metrics)
METRICS = {metric.name: metric for metric in ALL}
METRIC_FAMILIES = {
    family.name: tuple(metric.name for metric in family.metrics) for family in _ORDER if family.metrics
}
MEASURED: dict[str, Measured] = {name: own.measured for name, own in FAMILIES.items() if own.measured}

OWN_FAMILY = OWN.name
FINAL_FAMILY = COMPARISON_FINAL.name  # which needs the activations of two checkpoints
RELEASED_FAMILIES = (RELEASED.name, RELEASED_LINEARITY.name)


def _by_family(chosen: Iterable[str], own: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the families and their metrics: of `skdim` those among `chosen`, then the user's own."""
    return METRIC_FAMILIES | {SKDIM.name: tuple(skdim.named(chosen)), OWN.name: tuple(own)}


def family_and_metric_names(own: Sequence[str] = (), chosen: Iterable[str] = ()) -> tuple[str, ...]:
    """Return every name that can stand in a list of metrics.

    Parameters
    ----------
    own : names of the user's own metrics
    chosen : names that stand in it; estimators of scikit-dimension among them count as they are spelled there
    """
    estimators = [name for name in chosen if name.startswith(skdim.PREFIX)]
    table = METRIC_FAMILIES | {SKDIM.name: tuple(estimators)} | ({OWN.name: tuple(own)} if own else {})
    return tuple(dict.fromkeys(name for family, names in table.items() for name in (family, *names)))


def metric_names(chosen: Iterable[str], own: Sequence[str] = ()) -> tuple[str, ...]:
    """Put metrics for families, each once, in the order of the table.

    `loss` and `linearity` name a family and one of its metrics; they are read as the family. `released` stands
    for both families that are as released, and `skdim` for the estimators that are named beside it.

    Parameters
    ----------
    chosen : names of metrics or families
    own : names of the user's own metrics

    Raises
    ------
    InputError
        When a name is neither a family nor a metric; the message names the nearest. When `skdim` has no estimators.
    """
    chosen = list(chosen)
    valid, table = family_and_metric_names(own, chosen), _by_family(chosen, own)
    for name in sorted(set(chosen) - set(valid)):
        raise unknown("metric or metric family", name, valid)
    if SKDIM.name in chosen and not table[SKDIM.name]:
        raise InputError(skdim.NONE_NAMED)
    wanted = {*chosen, *table[SKDIM.name], *(RELEASED_FAMILIES if RELEASED.name in chosen else ())}
    return tuple(name for family, names in table.items() for name in names if wanted & {family, name})


def families_of(chosen: Iterable[str], own: Sequence[str] = ()) -> tuple[str, ...]:
    """Families that the metrics or families belong to, in the order of the table."""
    wanted = set(metric_names(chosen, own))
    return tuple(family for family, names in _by_family(wanted, own).items() if wanted & set(names))


def measured_families(metrics: Iterable[str], own: Sequence[str] = ()) -> tuple[str, ...]:
    """Families with statistics of layers that metrics or families need: all but the loss's."""
    return tuple(family for family in families_of(metrics, own) if family in MEASURED)


def own_metrics(path: Path | None) -> tuple[Metric, ...]:
    """Return the metrics of a user's file, which is run; none without a file."""
    if path is None:
        return ()
    read_own(path, taken=family_and_metric_names())
    return tuple(map(metric_of, load_own(path)))


def added_metrics(names: Iterable[str], own: Path | None) -> tuple[Metric, ...]:
    """Return the metrics that a study adds to the table: the estimators among `names`, those of the user's file."""
    return (*skdim.metrics(names), *own_metrics(own))


def select(names: Sequence[str], own: Sequence[Metric] = ()) -> list[Metric]:
    """Return the metrics that `names` mean, each once, in the order of the table.

    The name of a family means all of its metrics. `own` are the user's, which come last. An unknown name is
    refused with the nearest ones.
    """
    table = METRICS | {metric.name: metric for metric in (*skdim.metrics(names), *own)}
    return [table[name] for name in metric_names(names, [metric.name for metric in own])]


def describe(more: Sequence[Metric] = ()) -> list[dict[str, str]]:
    """Return the table for readers: the columns name, family, definition, range, null and source.

    `more` are metrics that come last: estimators of scikit-dimension, the user's own.
    """
    columns = ("name", "family", "definition", "range", "null", "source")
    return [{column: getattr(metric, column) for column in columns} for metric in (*ALL, *more)]
