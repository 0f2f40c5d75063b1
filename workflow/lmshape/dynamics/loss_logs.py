"""The losses that a training run left behind: a table of any logger, or Trainer's trainer_state.json."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from lmshape.errors import InputError

# Names that loggers give to the columns, in lower case; the first that holds a value counts.
ALIASES: Mapping[str, tuple[str, ...]] = {
    "step": ("step", "steps", "iteration", "iter", "global_step", "train/global_step", "trainer/global_step"),
    "loss": (
        *("loss", "train_loss", "train/loss", "training_loss", "lm_loss", "lm loss", "train/lm_loss"),
        *("train_loss_step", "train/loss_step", "train/crossentropyloss", "train/ce loss", "value"),
    ),
    "gradient_norm": (
        *("gradient_norm", "grad_norm", "grad norm", "train/grad_norm", "train/gradient_norm"),
        *("optim/total_grad_norm", "optim/total grad norm"),
    ),
    "learning_rate": ("learning_rate", "lr", "train/learning_rate", "train/lr", "optim/learning_rate_group0"),
}
LOG_CALLS = "_step"  # wandb's, which counts calls of its log: the step where nothing else is one
REQUIRED = ("step", "loss")
AVERAGED = "averaged"  # column of the training steps that each loss is the mean of
RUN = "run"  # column of a file that holds several runs
OF_RUN = " - "  # stands between the run and the name in what wandb's pages export
SPLITS = ("split", "phase", "stage", "mode")  # columns that tell training rows from others
# How evaluations and parts of their columns' names begin.
EVALUATIONS = ("eval", "valid", "val_", "test", "dev_")
USED = frozenset({*(alias for names in ALIASES.values() for alias in names), LOG_CALLS, RUN, *SPLITS})
EPOCH = "epoch"
LEAST_LOSS = 0.1  # nats: a loss of more does not fall to 0, which Trainer rounds to four digits, in one step of the log


def read_loss_log(path: Path, *, name: str) -> list[tuple[str, pd.DataFrame]]:
    """Read the training losses of a run, or of several.

    Parameters
    ----------
    path : Trainer's `trainer_state.json`; or CSV with a header, JSON Lines or Parquet: a column for the training step
        and one for the loss in nats, named as in `ALIASES`, and those of gradient norm and learning rate if there are
        any. A column `run` of several values, or columns named `run - loss`, tell several runs apart
    name : of the log

    Returns
    -------
    Name and `as_curve` of each run: `name`, or `name`/run. Columns step, loss, gradient_norm and learning_rate if
    the file has them, and of a `trainer_state.json` `averaged`, over how many steps Trainer took the mean. An empty
    cell is a step without a loss, `nan` a loss that is not finite, as is the 0 that Trainer writes where the gradient
    norm is none or, without gradient norms, at once behind a loss of 0.1 or more. Rows of evaluations are left out, and
    after a rollback those that later rows took the place of.

    Raises
    ------
    InputError
        When the file does not exist or is not such a log, a column is missing, or there twice, two columns of steps
        disagree, a step is no whole number, no row is one of training, or a row is of one of several quantities.
    """
    try:
        table = _read_table(path)
        runs = list(_runs(table))
        several = len(runs) > 1
        return [(f"{name}/{run}" if several else name, _training_curve(rows)) for run, rows in runs]
    except InputError as error:
        raise InputError(f"`{path}`: {error}") from None


def as_curve(run: pd.DataFrame) -> pd.DataFrame:
    """Sort a loss curve by step; where a step was logged again, as after a restart, the later row counts.

    Parameters
    ----------
    run : columns `step` and `loss`, nats; others are kept. The loss may be NaN or infinite

    Raises
    ------
    InputError
        When a column is missing, or a step is not a whole number.
    """
    for column in REQUIRED:
        if column not in run:
            raise InputError(
                f"the loss curve has no column `{column}`, only {', '.join(map(str, run))}. Add it."
            )
    columns = [name for name in ALIASES if name in run]
    curve = run.assign(**{name: _numbers(run[name]) for name in columns})
    odd = curve["step"] % 1 != 0  # of NaN and infinity, too
    if odd.any():
        raise InputError(
            f"`step` = {run.loc[odd, 'step'].iloc[0]}: must be a whole number in every row. Correct the row."
        )
    return curve.drop_duplicates("step", keep="last").sort_values("step").reset_index(drop=True)


def _read_table(path: Path) -> pd.DataFrame:
    """Read all cells as text: an empty one is not a value, `nan` a value that is none."""
    try:
        text = _parquet(path) if path.suffix == ".parquet" else path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError("no such file. Correct the path.") from None
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise InputError(
            f"cannot be read ({error}). Name a CSV file in UTF-8, JSON Lines, Parquet, or trainer_state.json."
        ) from None
    return _json(text) if re.match(r"\s*(\[\s*)?\{", text) else _csv(text)


def _parquet(path: Path) -> str:
    """Return a Parquet file as CSV; columns of lists, as of histograms, have no cells there."""
    table = pq.read_table(path)
    plain = [field.name for field in table.schema if not pa.types.is_nested(field.type)]
    written = pa.BufferOutputStream()
    pyarrow.csv.write_csv(table.select(plain), written)
    return written.getvalue().to_pybytes().decode()


def _json(text: str) -> pd.DataFrame:
    """Read a trainer_state.json, a list of rows, or a row in each line."""
    try:
        if '"log_history"' in text:
            return _of_rows(json.loads(text)["log_history"]).assign(**{AVERAGED: ""})
        if text.lstrip().startswith("["):
            return _of_rows(json.loads(text))
        *whole, last = text.rstrip().split("\n")
        being_written = whole and not text.endswith("\n") and not last.endswith("}")
        lines = whole if being_written else [*whole, last]
        return _of_rows([json.loads(line) for line in lines if line.strip()])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"is JSON, but no trainer_state.json of Trainer, and not a row in each line ({error!r}). "
            "Name one of these, or CSV."
        ) from None


def _of_rows(rows: list[dict]) -> pd.DataFrame:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pd.DataFrame([[str(row.get(name, "")) for name in names] for row in rows], columns=names)


def _csv(text: str) -> pd.DataFrame:
    header = text.partition("\n")[0]
    delimiter = max(",\t;", key=header.count)
    rows = [row for row in csv.reader(text.splitlines(), delimiter=delimiter) if any(map(str.strip, row))]
    if not rows:
        raise InputError("is empty. Write a header and one row per step.")
    names = rows[0]
    if len(rows[-1]) < len(names) and not text.endswith("\n"):  # it is being written
        rows.pop()
    for number, row in enumerate(rows[1:], start=2):
        if len(row) < len(names) or any(row[len(names) :]):  # a comma too many at its end adds an empty cell
            raise InputError(
                f"row {number} has {len(row)} cells, and the header names {len(names)} columns: which belong together "
                "is unknown. Write one cell per column."
            )
    return pd.DataFrame([row[: len(names)] for row in rows[1:]], columns=names, dtype=str)


def _runs(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the rows of each run: of a column `run`, of columns `run - name`, or all rows of one."""
    prefixes = dict.fromkeys(str(column).rpartition(OF_RUN)[0] for column in table if _is_loss(column))
    if any(prefixes):
        shared = [column for column in table if OF_RUN not in str(column)]
        for prefix in filter(None, prefixes):
            own = {
                column: str(column).removeprefix(prefix + OF_RUN) for column in table if column not in shared
            }
            own = {column: short for column, short in own.items() if short != column}
            yield prefix, table[[*shared, *own]].rename(columns=own)
    elif RUN in table:
        yield from ((str(run), rows) for run, rows in table.groupby(RUN, sort=False))
    else:
        yield "", table


def _is_loss(column: object) -> bool:
    return str(column).rpartition(OF_RUN)[2].strip().lower() in ALIASES["loss"]


def _training_curve(table: pd.DataFrame) -> pd.DataFrame:
    _check_names(table)
    rows = _of_training(table)
    found = {name: _column(name, rows) for name in ALIASES if name != "step"}
    if found["loss"] is None:
        raise InputError(_no_column("loss", table))
    rows = rows[rows[found["loss"]].str.strip() != ""]
    rows = rows[~_is_evaluation(rows, str(found["loss"]))]
    if rows.empty:
        raise InputError(f"no row has a training loss in `{found['loss']}`. Log it, or name another file.")
    _check_one_quantity(rows, str(found["loss"]))
    found = {"step": _step_column(rows), **found}
    _check_one_run(rows, str(found["step"]), str(found["loss"]))
    _check_counted_through(rows, str(found["step"]))
    curve = pd.DataFrame({name: rows[column] for name, column in found.items() if column is not None})
    curve = _without_abandoned(curve)
    curve["loss"] = curve["loss"].mask(_lost(curve, of_trainer=AVERAGED in table), "nan")
    curve = as_curve(curve)
    return curve.assign(**{AVERAGED: curve["step"].diff().fillna(1)}) if AVERAGED in table else curve


def _check_names(table: pd.DataFrame) -> None:
    spelled = Counter(str(column).strip().lower() for column in table)
    twice = [name for name, count in spelled.items() if count > 1 and name in USED]
    if twice:
        raise InputError(
            f"has {spelled[twice[0]]} columns `{twice[0]}`. Which one counts? Remove the others."
        )


def _check_one_quantity(rows: pd.DataFrame, loss: str) -> None:
    """Refuse a table with a row for each quantity, whose column `value` is of all of them."""
    if loss.strip().lower() != "value":
        return
    for column, cells in rows.items():
        dates = pd.to_datetime(cells, errors="coerce", format="ISO8601", utc=True)
        words = pd.to_numeric(cells, errors="coerce").isna() & dates.isna() & (cells.str.strip() != "")
        if words.all() and cells.nunique() > 1:
            raise InputError(
                f"`{loss}` is of several quantities, which `{column}` names: {', '.join(cells.unique()[:5])}. Keep the "
                "rows of the training loss, or write a column for each (`DataFrame.pivot`)."
            )


def _lost(curve: pd.DataFrame, *, of_trainer: bool) -> pd.Series:
    """Tell the zeros that Trainer writes in the place of losses that were not finite."""
    loss = _numbers(curve["loss"])
    gradient = curve.get("gradient_norm", pd.Series("", curve.index))
    unknown = gradient.str.strip() == ""
    sudden = loss.mask(loss == 0).ffill() >= LEAST_LOSS
    return (loss == 0) & np.where(unknown, sudden & of_trainer, ~np.isfinite(_numbers(gradient)))


def _of_training(table: pd.DataFrame) -> pd.DataFrame:
    """Leave out the rows that a column, such as `split`, says to be of evaluations."""
    for column, cells in table.items():
        words, named = cells.str.strip().str.lower(), str(column).strip().lower() in SPLITS
        training = words.str.startswith("train")
        if training.any() and (named or (words + "_").str.startswith(EVALUATIONS).any()):
            return table[training]
        if named and words.any():
            raise InputError(
                f"`{column}` is {', '.join(cells.unique()[:5])} and never `train`; no row is of training. "
                "Rename the column if all of them are."
            )
    return table


def _is_evaluation(rows: pd.DataFrame, loss: str) -> pd.Series:
    """Tell rows whose loss is not a number while that of an evaluation is one."""
    parts = {column: [f"{part}_" for part in str(column).lower().split("/")] for column in rows}
    names = [column for column, own in parts.items() if any(part.startswith(EVALUATIONS) for part in own)]
    filled = rows[names].apply(pd.to_numeric, errors="coerce").notna().any(axis=1)
    return filled & pd.to_numeric(rows[loss], errors="coerce").isna()


def _step_column(rows: pd.DataFrame) -> str:
    """Return the column of training steps; wandb's count of its calls only where there is no other."""
    named = [str(column) for column in rows if str(column).strip().lower() in ALIASES["step"]]
    named = [column for column in named if rows[column].str.strip().all()] or named
    named = named or [str(column) for column in rows if str(column).strip().lower() == LOG_CALLS]
    if not named:
        raise InputError(_no_column("step", rows))
    first = _numbers(rows[named[0]])
    for other in named[1:]:
        differs = first.ne(_numbers(rows[other]))
        if differs.any():
            values = rows.loc[differs, [named[0], other]].iloc[0]
            raise InputError(
                f"`{named[0]}` and `{other}` are different steps ({values.iloc[0]} and {values.iloc[1]} of one row). "
                "Which is the training step? Remove the other column."
            )
    return named[0]


def _check_counted_through(rows: pd.DataFrame, step: str) -> None:
    """Refuse steps that are counted anew in each epoch: they would pass for rollbacks."""
    steps = _numbers(rows[step])
    falls = steps.diff() < 0
    epochs = [cells for column, cells in rows.items() if str(column).strip().lower().endswith(EPOCH)]
    later = any((falls & (pd.to_numeric(cells, errors="coerce").diff() > 0)).any() for cells in epochs)
    begins, ends = steps[falls], steps[falls.shift(-1, fill_value=False)]
    anew = set(begins) == {steps.iloc[0]} and ends.nunique() == 1  # later, a run broke off at one step again
    if later or (len(begins) > 1 and anew):
        raise InputError(
            f"`{step}` begins anew {len(begins)} times, as if counted within each epoch or run. Write the steps of the "
            "whole training, and name runs in a column `run`."
        )


def _check_one_run(rows: pd.DataFrame, step: str, loss: str) -> None:
    """Refuse rows of several runs, processes or parts of a batch, where the last would take the place of the others."""
    beside = (_numbers(rows[step]).diff() == 0) & (rows[loss] != rows[loss].shift())
    if beside.mean() > 1 / 3:
        raise InputError(
            f"most steps in `{step}` stand in several rows with other losses, as of several processes or parts of a "
            "batch. Write one row per step; name runs in a column `run`."
        )
    if rows[step].duplicated(keep=False).mean() <= 1 / 2:
        return
    for column, cells in rows.items():
        known = str(column).strip().lower() in {*USED, EPOCH}
        told = pd.DataFrame({"step": rows[step], "of": cells})
        if not known and 1 < cells.nunique() <= len(cells) / 2 and not told.duplicated().any():
            raise InputError(
                f"`{column}` is {', '.join(cells.unique()[:5])}, each with the same steps. Name it `run` if these are "
                "runs, or keep the rows of one."
            )


def _no_column(name: str, table: pd.DataFrame) -> str:
    there = [str(column) for column in table if column != AVERAGED]
    return f"has no column for the {name}, only {', '.join(there[:20])}. Name it one of {', '.join(ALIASES[name])}."


def _column(name: str, table: pd.DataFrame) -> str | None:
    """Return the first known column that holds a value; the first at all where none does."""
    spelled = {str(column).strip().lower(): column for column in table.columns}
    known = [spelled[alias] for alias in ALIASES[name] if alias in spelled]
    return next((column for column in known if table[column].str.strip().any()), known[0] if known else None)


MOST_ROLLBACKS = 0.1  # of the rows: more steps back than this are not rollbacks, but rows in no order


def _without_abandoned(curve: pd.DataFrame) -> pd.DataFrame:
    """Keep the rows that all later rows continue: a rollback takes back the rows from its step on."""
    steps = _numbers(curve["step"]).to_numpy()
    if len(steps) < 2 or np.mean(np.diff(steps) < 0) > MOST_ROLLBACKS:
        return curve
    least_later = np.minimum.accumulate(np.append(steps[1:], np.inf)[::-1])[::-1]
    return curve[~(steps > least_later)]


def _numbers(column: pd.Series) -> pd.Series:
    numbers = pd.to_numeric(column, errors="coerce").astype(float)
    words = column[numbers.isna() & column.notna()].astype(str).str.strip().str.lower()
    odd = words[~words.isin(("", "nan", "none", "null"))]
    if len(odd):
        raise InputError(f"`{column.name}` = '{odd.iloc[0]}': must be a number, or `nan`. Correct the row.")
    return numbers
