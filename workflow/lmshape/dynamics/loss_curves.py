"""Loss curves: those of the study's own runs, and the logs of others, whatever they call step and loss."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from lmshape.errors import InputError

# Names that logs give to the columns, the first that is there counts.
ALIASES: Mapping[str, tuple[str, ...]] = {
    "step": ("step", "steps", "iteration", "iter", "global_step", "_step", "train/global_step"),
    "loss": ("loss", "train_loss", "lm_loss", "training_loss", "train/loss", "lm loss"),
    "gradient_norm": ("gradient_norm", "grad_norm", "train/grad_norm", "grad norm"),
    "learning_rate": ("learning_rate", "lr", "train/learning_rate"),
}
REQUIRED = ("step", "loss")
RUN = "run"  # column of a file that holds several runs


def read_loss_log(path: Path, *, name: str) -> list[tuple[str, pd.DataFrame]]:
    """Read a CSV file of losses.

    Parameters
    ----------
    path : CSV with a header; a column for the step and one for the loss in nats, named as in `ALIASES`, and
        those of gradient norm and learning rate if there are any. Empty cells are steps without a loss. A column
        `run` of several values tells several runs apart
    name : of the log

    Returns
    -------
    Name and `as_curve` of each run: `name`, or `name`/run. Columns step, loss, and gradient_norm and learning_rate if
    the file has them.

    Raises
    ------
    InputError
        When the file does not exist or is no CSV, a column is missing, or a step is no whole number.
    """
    try:
        # as text: an empty cell is a step without a loss, `nan` a loss that is none
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise InputError(f"`{path}`: no such file. Correct the path under `loss_logs`.") from None
    except (ValueError, UnicodeDecodeError) as error:  # pandas' parser errors among them
        raise InputError(
            f"`{path}` cannot be read as CSV: {error}. Write a header and a row a step."
        ) from None
    found = {
        name: column for name, names in ALIASES.items() if (column := _first_of(names, table)) is not None
    }
    for column in REQUIRED:
        if column not in found:
            raise InputError(
                f"`{path}` has no column for the {column}, only {', '.join(map(str, table.columns))}. "
                f"Name it one of {', '.join(ALIASES[column])}."
            )
    table = table[table[found["loss"]].str.strip() != ""]
    curves = pd.DataFrame({column: table[spelled] for column, spelled in found.items()})
    runs = table[RUN] if RUN in table else pd.Series(name, index=table.index)
    several = runs.nunique() > 1
    try:
        return [
            (f"{name}/{run}" if several else name, as_curve(curve))
            for run, curve in curves.groupby(runs, sort=False)
        ]
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
        When a column is missing, or a step is no whole number.
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


def _numbers(column: pd.Series) -> pd.Series:
    numbers = pd.to_numeric(column, errors="coerce").astype(float)
    words = column[numbers.isna() & column.notna()].astype(str).str.strip().str.lower()
    odd = words[~words.isin(("", "nan", "none", "null"))]
    if len(odd):
        raise InputError(f"`{column.name}` = '{odd.iloc[0]}': must be a number, or `nan`. Correct the row.")
    return numbers


def _first_of(names: tuple[str, ...], table: pd.DataFrame) -> str | None:
    spelled = {str(column).strip().lower(): column for column in table.columns}
    return next((spelled[name] for name in names if name in spelled), None)
