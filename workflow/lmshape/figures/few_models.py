"""Figures with room for a few models: which of a study's they show, and a note that names the others."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from lmshape.figures.selection import in_order

LEFT_OUT = "left_out"  # the column that names the models that are not shown


def shown(frame: pd.DataFrame, *, most: int) -> pd.DataFrame:
    """Rows of the first `most` models, the first of every kind among them; the column `left_out` names the others."""
    kinds = frame.drop_duplicates("model").set_index("model")["kind"]
    first = [str(name) for name in kinds[~kinds.duplicated()].index][:most]
    others = [name for name in in_order(frame["model"]) if name not in first]
    chosen = {*first, *others[: max(most - len(first), 0)]}
    absent = [name for name in in_order(frame["model"]) if name not in chosen]
    return frame[frame["model"].isin(chosen)].assign(**{LEFT_OUT: ", ".join(absent)})


def left_out_note(frame: pd.DataFrame, table: str, *, most: int = 6) -> str:
    """Name the models that are not shown, and the table that has them; nothing where all are."""
    names = str(frame[LEFT_OUT].iloc[0]) if len(frame) else ""
    if not names:
        return ""
    return (
        f"Not shown, for want of room: {shortened(names.split(', '), most)}; they are in the table `{table}`."
    )


def shortened(names: Sequence[str], most: int) -> str:
    """Name the first few, and count the others."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
