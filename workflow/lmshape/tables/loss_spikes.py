"""The tables of loss spikes: from losses and geometry of training runs to spikes and warnings."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd

from lmshape.dynamics.early_warning import BASELINES, GEOMETRIC, Watched, early_warnings
from lmshape.dynamics.loss_logs import as_curve, read_loss_log
from lmshape.dynamics.spikes import RULE, Spike, find_spikes, not_told
from lmshape.errors import InputError
from lmshape.tables.columns import (
    Row,
    declare,
    integer,
    interval,
    joined,
    read_table,
    real,
    shared,
    text,
    write_table,
)
from lmshape.tables.rows import by_dataset, first_dataset
from lmshape.training.recipe import GEOMETRY_COLUMNS

SPIKE_COLUMNS = declare(
    *shared("study"),
    text("run", "name of the training run, or of the log and its run"),
    text("source", "pretraining: a run of the study; log: of `loss_logs`"),
    integer("spike", "number of the spike in its run, from 1; 0 where the run has none"),
    integer("onset", "step at which the loss leaves its baseline"),
    integer("peak_step", "step at which it is largest"),
    real("peak_loss", "nats per token there; infinite where the loss is not finite"),
    real("baseline", "median of the calm losses before the onset, nats per token"),
    real("height", "peak_loss - baseline"),
    real("threshold", "nats over the baseline that make a spike"),
    integer("recovery_step", "first step at which the loss is back for good; empty where it is not"),
    integer("steps", "steps from the onset to the recovery, or to the last high one"),
    integer("logged", "losses in the run's log"),
    text("rule", "numbers of the rule: `lmshape.dynamics.spikes`"),
    text(
        "flag",
        "no spike; did not come back; not finite, and how often; in a run's last row: that it ends so or far above its "
        "lowest loss, and which spikes its logging interval cannot show; empty when fine",
    ),
)

_SERIES = (
    *shared("study"),
    text("source", "probe: measured while the runs trained; checkpoints: at those of the models"),
    integer("blocks", "blocks of the runs' models: layers of others are not theirs"),
    text("kind", "geometric, or baseline: needs no geometry"),
    text("metric", "name of the series: `lmshape.dynamics.early_warning`"),
    integer("layer", "l after block l; empty for what is of the whole run"),
)
_RUNS = ", over runs"
WARNING_COLUMNS = declare(
    *_SERIES,
    integer("spikes", "spikes with values enough before them"),
    integer("unscored", "spikes without"),
    integer("runs", "runs with such a spike"),
    integer("quiet_windows", "windows without a spike, as long as those before a spike"),
    real("every", "steps from one value to the next, median"),
    *interval(real, "auc", "area under the ROC curve of an alarm on it: 0.5 by chance", _RUNS),
    *interval(
        real,
        "average_precision",
        "area under precision over recall: spikes / (spikes + quiet_windows) by chance",
        _RUNS,
    ),
    *interval(
        real,
        "hit_rate",
        "share of the spikes with an alarm, at 10 false ones in 10 000 quiet steps of other runs",
        _RUNS,
    ),
    *interval(
        real, "lead_steps", "steps from the first alarm to the onset at that rate, median of the hits", _RUNS
    ),
    real("false_alarms_per_10k", "false alarms that this came to, in 10 000 quiet steps"),
    *interval(
        real,
        "move_before",
        "move just before the onset in standard deviations of quiet moves, signed, median",
        _RUNS,
    ),
    text("best_baseline", "baseline of the largest auc, with its layer; empty for baselines"),
    *interval(real, "auc_gain", "auc less that of the best baseline", ", over the same runs"),
    real("p", "two-sided, of auc_gain being 0"),
    real("p_adjusted", "p after Holm's correction for all geometric series of the same source and blocks"),
    text("rule", "numbers of the rule: `lmshape.dynamics.alarms`"),
    text("flag", "not measurable, and why; too few runs or spikes for an interval; empty when fine"),
)
ALARM_COLUMNS = declare(
    *_SERIES,
    real("threshold", "score over which it alarms, in robust standard deviations of the values before"),
    real("hit_rate", "share of the spikes with an alarm"),
    real("false_alarm_rate", "share of the quiet windows with one"),
    real("false_alarms_per_10k", "false alarms in 10 000 quiet steps"),
    real("precision", "share of the windows with an alarm that are before a spike"),
)
BEFORE_COLUMNS = declare(
    *_SERIES,
    integer(
        "offset",
        "values before the onset, or before the end of a quiet window, from -1 back; 0 is at the onset",
    ),
    real("steps", "offset in steps"),
    integer("spikes", "spikes behind the mean"),
    *interval(real, "change", "value less the median of those before the horizon, mean over spikes", _RUNS),
    real("quiet", "the same in quiet windows, mean"),
    real("quiet_low", "2.5 % quantile over quiet windows"),
    real("quiet_high", "97.5 % quantile over quiet windows"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A training run: where its losses come from, the losses, and its geometry, empty if none was measured."""

    name: str
    source: str
    losses: pd.DataFrame
    spikes: Sequence[Spike]
    geometry: pd.DataFrame


def write_spikes(
    output_dir: Path,
    *,
    study: str,
    losses: Mapping[str, Path],
    logs: Mapping[str, Path],
    geometry: Mapping[str, Path],
    metrics: Path | None = None,
    datasets: Sequence[str] = (),
) -> None:
    """Write the tables `spikes`, `warnings`, `alarms` and `before_spikes`, each as .parquet and .csv.

    Parameters
    ----------
    output_dir : folder of the tables
    study : name of the study
    losses : run → loss.csv of the study's pretraining
    logs : name → CSV of another run's losses, or of several runs with a column `run`
    geometry : run or name → geometry.csv, of those that have one
    metrics : the study's table of metrics, for what is known at checkpoints of the runs in `losses`
    datasets : the study's datasets in its order; the first of each model counts

    Raises
    ------
    InputError
        For a file of the study that cannot be read as what it should be. A log that cannot has a row that says so.
    """
    own = [_run(name, "pretraining", pd.read_csv(path), geometry) for name, path in losses.items()]
    others, unread = _of_logs(logs, geometry)
    runs = own + others
    at_checkpoints = _at_checkpoints(metrics, own, datasets) if metrics else []
    found = [*_warnings(runs, "probe"), *_warnings(at_checkpoints, "checkpoints")]
    rows = [*(row for run in runs for row in _rows(run)), *unread]
    write_table(pd.DataFrame(rows).assign(study=study), SPIKE_COLUMNS, Path(output_dir) / "spikes")
    schemas = {"warnings": WARNING_COLUMNS, "alarms": ALARM_COLUMNS, "before_spikes": BEFORE_COLUMNS}
    for name, columns in schemas.items():
        parts = [one[name] for one in found if len(one[name])] or [pd.DataFrame()]
        table = pd.concat(parts, ignore_index=True).assign(study=study)
        write_table(table, columns, Path(output_dir) / name)


def _of_logs(logs: Mapping[str, Path], geometry: Mapping[str, Path]) -> tuple[list[Run], list[Row]]:
    """Read the runs of logs, and a row of `spikes` for each log that has become unreadable since the plan."""
    runs: list[Run] = []
    unread: list[Row] = []
    for name, path in logs.items():
        try:
            runs += [_run(run, "log", curve, geometry) for run, curve in read_loss_log(path, name=name)]
        except InputError as error:
            print(f"`loss_logs.{name}`: {error}", file=sys.stderr)
            row: Row = {"run": name, "source": "log", "logged": 0, "rule": str(RULE), "spike": 0}
            unread.append(row | {"flag": f"not read: {error}"})
    return runs, unread


def _run(name: str, source: str, table: pd.DataFrame, geometry: Mapping[str, Path]) -> Run:
    curve = as_curve(table)
    measured = read_geometry(geometry[name]) if name in geometry else pd.DataFrame()
    return Run(name=name, source=source, losses=curve, spikes=find_spikes(curve), geometry=measured)


def spikes_of(name: str, path: Path) -> pd.DataFrame:
    """Find the spikes of a log alone: rows of the table `spikes`, as `read_loss_log` names the runs."""
    runs = (_run(run, "log", curve, {}) for run, curve in read_loss_log(path, name=name))
    rows = pd.DataFrame([row for run in runs for row in _rows(run)])
    return rows.reindex(columns=SPIKE_COLUMNS.names).drop(columns=["study", "source", "rule"])


def read_geometry(path: Path) -> pd.DataFrame:
    """Read step, layer, metric and value as `lmshape.monitor` writes them.

    Raises
    ------
    InputError
        When the file does not exist or has other columns.
    """
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise InputError(
            f"`{path}` cannot be read as CSV: {error}. Write it with `GeometryMonitor.write`."
        ) from None
    if list(table.columns) != list(GEOMETRY_COLUMNS):
        raise InputError(
            f"`{path}` has the columns {', '.join(map(str, table.columns))}, not {', '.join(GEOMETRY_COLUMNS)}. "
            "Write it with `GeometryMonitor.write`."
        )
    return table


def _rows(run: Run) -> Iterator[Row]:
    """Yield a row of `spikes` per spike, or one row for a run without any; the last describes the whole run."""
    common = {"run": run.name, "source": run.source, "logged": len(run.losses), "rule": str(RULE)}
    back = not run.spikes or run.spikes[-1].recovery_step is not None
    of_run = joined(_lost_end(run.losses) or (_high_end(run.losses) if back else ""), not_told(run.losses))
    if not run.spikes:
        yield common | {"spike": 0, "flag": joined("no spike", of_run)}
    for number, spike in enumerate(run.spikes, start=1):
        end = spike.last if spike.recovery_step is None else spike.recovery_step
        yield common | {
            **asdict(spike),
            "spike": number,
            "height": spike.height,
            "steps": end - spike.onset,
            "flag": joined(spike.flag, of_run if number == len(run.spikes) else ""),
        }


def _lost_end(losses: pd.DataFrame) -> str:
    """Say from which step on no loss is finite; empty where the last one is."""
    finite = np.flatnonzero(np.isfinite(losses["loss"]))
    lost = losses["step"].iloc[finite[-1] + 1 if len(finite) else 0 :]
    return f"the run ends without a finite loss: from step {lost.iloc[0]:g} on" if len(lost) else ""


HIGH_END = 0.5  # nats over the lowest level: a run that ends higher gets a flag


def _high_end(losses: pd.DataFrame) -> str:
    """Say how far a run ends over its lowest level where it rose too slowly for a spike; empty where it does not."""
    levels = losses["loss"].rolling(RULE.window).median()
    rise = levels.iloc[-1] - levels.min() if len(levels) else 0.0
    return f"the run ends {rise:.2g} nats over its lowest level" if rise > HIGH_END else ""


def _at_checkpoints(metrics: Path, runs: Sequence[Run], datasets: Sequence[str]) -> list[Run]:
    """Return the runs with what the table of metrics knows of them, at their checkpoints."""
    columns = ["model", "dataset", "site", "step", "layer", "rows", "metric", "value"]
    table = read_table(metrics, sorted({*GEOMETRIC, *BASELINES}), columns)
    table = first_dataset(by_dataset(table[table["site"] == "block"], datasets))
    types = (table["rows"] == "one_per_type") & (table["metric"] == "id_twonn")
    table = table.assign(metric=table["metric"].where(~types, "id_twonn_types"))
    of_models = dict(list(table[types | (table["rows"] == "all")].groupby("model")[list(GEOMETRY_COLUMNS)]))
    return [replace(run, geometry=of_models[run.name]) for run in runs if run.name in of_models]


def _warnings(runs: Iterable[Run], source: str) -> Iterator[dict[str, pd.DataFrame]]:
    """Test the series of all runs with a geometry, those of equal blocks together."""
    measured = sorted((run for run in runs if len(run.geometry)), key=_blocks)
    for blocks, group in groupby(measured, key=_blocks):
        watched = [Watched.of(run.geometry, run.losses, run.spikes) for run in group]
        found = early_warnings(watched)
        yield {name: table.assign(source=source, blocks=blocks) for name, table in found.items()}


def _blocks(run: Run) -> int:
    return int(run.geometry["layer"].max())
