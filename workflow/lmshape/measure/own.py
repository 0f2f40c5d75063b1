"""Own family: the values of a user's functions on all rows and without each draw, or on each draw."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lmshape.errors import InputError
from lmshape.own_metrics import OwnMetric, failure, load_own
from lmshape.statistics.layer import Layer

FAMILY = "own"


def of_file(path: Path | None) -> OwnMetrics:
    """Return the family of the functions in a file, which is run."""
    if path is None:
        raise InputError(
            f"the family `{FAMILY}` is that of a file of functions; name the file in `own_metrics`."
        )
    return OwnMetrics(path)


class OwnMetrics:
    """The family of one file of functions; `lmshape.own_metrics` says what may stand in it.

    Parameters
    ----------
    path : the file, which is run here
    """

    FAMILY = FAMILY

    def __init__(self, path: Path) -> None:
        self._path = path
        self._metrics = load_own(path)

    def statistics(self, layer: Layer) -> dict[str, tuple[dict[str, np.ndarray], dict[str, str]]]:
        """Return for each choice of rows one array a function, by its name.

        (K + 1,) values for the interval "jackknife": of all rows, then without each draw; (K,) for "draws".
        NaN with the reason in the attribute `flag_` + name where the function raised a ValueError, or returned
        no finite number or one outside the bounds that it declares. Whole layers in float64 are in memory, twice.

        Raises
        ------
        InputError
            For any other error of a function; it names function, file and line.
        """
        return {name: self._statistics(layer, mask) for name, mask in layer.kept.items()}

    def missing(
        self, *, rows: int, width: int, draws: int, rows_per_draw: int | None = None
    ) -> dict[str, np.ndarray]:
        """Return the arrays of `statistics`, NaN, for rows that have none."""
        return {
            metric.name: np.full(draws + (metric.declaration.interval == "jackknife"), np.nan)
            for metric in self._metrics
        }

    def _statistics(self, layer: Layer, mask: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        index = np.flatnonzero(mask)
        x, draw = layer.rows.take(index).astype(np.float64), layer.draw[index]
        arrays, flags = {}, {"flag": ""}
        for metric in self._metrics:
            results = [self._value(metric, x[part], where) for part, where in _parts(metric, draw)]
            arrays[metric.name] = np.array([value for value, _ in results])
            reasons = [reason for _, reason in results if reason]
            if reasons:
                flags[f"flag_{metric.name}"] = reasons[0]  # `gather` shows it beside this metric alone
        return arrays, flags

    def _value(self, metric: OwnMetric, x: np.ndarray, where: str) -> tuple[float, str]:
        """Return the function's number of rows that it may change, and why it is NaN if it is."""
        try:
            value = float(metric.function(x))
        except ValueError as error:
            return np.nan, f"{' '.join(str(error).split()) or type(error).__name__}{where}"
        except (Exception, SystemExit) as error:
            raise InputError(
                f"`{metric.name}` of `{self._path}` failed{where}: {failure(self._path, error)}. Correct it, or raise "
                "a ValueError where the metric does not exist."
            ) from error
        if not np.isfinite(value):
            return np.nan, f"not finite: {value}{where}"
        declared = metric.declaration
        if not declared.low <= value <= declared.high:
            return (
                np.nan,
                f"{value} is outside {declared.bounds()}, the `low` and `high` that it declares{where}",
            )
        return value, ""


def _parts(metric: OwnMetric, draw: np.ndarray) -> Iterator[tuple[np.ndarray, str]]:
    """Yield the rows to take, and their name for a reason: nothing for all of them."""
    draws = np.unique(draw)
    if metric.declaration.interval == "draws":
        yield from ((draw == j, f" (draw {j})") for j in draws)
        return
    yield np.ones(len(draw), dtype=bool), ""
    yield from ((draw != j, f" (without draw {j})") for j in draws)
