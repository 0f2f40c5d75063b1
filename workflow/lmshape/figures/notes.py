"""Sentences under a figure: what its bands, dashes and gaps are, and how to read its numbers."""

from __future__ import annotations

import pandas as pd

from lmshape.figures.selection import shortened
from lmshape.tables.rows import has_flag, in_order, reason

ISOTROPIC = "isotropic rows at this n and d"
JACKKNIFE = "delete-one-draw jackknife"
STUDENT = "mean and Student's t"
BOTH = f"anisotropy: {JACKKNIFE}; dimension: {STUDENT}"
OWN_SCALES = "Each model has its own scale, which does not begin at 0."
SINKS = "Sinks: position 0 of each sequence, and rows with a norm over 10\u00a0×\u00a0the layer's median."
EMBEDDING = (
    "The embedding's dimension is left out: its rows are a finite set, one for each token (and position) there"
    " is, and no cloud like the blocks'; its number is in the table `metrics`."
)
UNDER_ONE = (
    "Under 1: near-copies of one token, whose two nearest distances differ by orders of magnitude; not a dimension of"
    " anything."
)
MOST_NAMED = 4  # checkpoints of a model


def dimensions(frame: pd.DataFrame) -> str:
    """Say what limits a dimension, what one row of each token id is for, and what is none, as far as they are drawn."""
    said = ["A dimension is that at this number of rows, biased low in high dimension."]
    if (frame["rows"] == "one_per_type").any():
        said.append("With all rows, a token's nearest neighbor is mostly the same token elsewhere.")
    if (frame.loc[frame["metric"].str.startswith("id_"), "value"] < 1).any():
        said.append(UNDER_ONE)
    return " ".join(said)


def sinks(frame: pd.DataFrame) -> str:
    """Say what sinks are, if rows without them are drawn."""
    return SINKS if (frame["rows"] == "no_sink").any() else ""


def intervals(frame: pd.DataFrame, how: str) -> str:
    """Say what the bands are, and over how many draws; `how` names the way to the interval."""
    draws = sorted({int(count) for count in frame.loc[frame["value"].notna(), "draws"]})
    if not draws or draws[-1] < 2:
        return "One draw of sequences: no interval." if draws else ""
    count = f"{draws[-1]}" if len(draws) == 1 else f"{draws[0]} to {draws[-1]}"
    return f"Bands: 95 % interval over {count} draws of sequences ({how})."


def intervals_in_csv(frame: pd.DataFrame) -> str:
    """Say where the intervals are that are not drawn."""
    return "Intervals are in the figure's CSV file." if frame["ci_low"].notna().any() else ""


def isotropic(null: pd.Series, mark: str = f"Dashed: {ISOTROPIC},") -> str:
    """Say what the dashed line at the bottom is; `mark` opens the sentence."""
    values = sorted({f"{value:.2g}" for value in null.dropna()}, key=float)
    if not values:
        return ""
    span = values[0] if len(values) == 1 else f"{values[0]} to {values[-1]}"
    return f"{mark} (1\u00a0+\u00a0√(d/n))²/d\u00a0=\u00a0{span}."


def surrogate(null: pd.Series, mark: str = "Dashed:") -> str:
    """Say what the dashed lines beside a dimension are; `mark` opens the sentence."""
    if null.isna().all():
        return ""
    return (
        f"{mark} Gaussian rows with the same covariance and n; a dimension equal to theirs says nothing beyond the"
        " spectrum."
    )


def flags(frame: pd.DataFrame) -> str:
    """Count the flagged values: those that are not numbers, and those that are numbers to read with care."""
    flagged = has_flag(frame)
    gaps, numbers = frame[flagged & frame["value"].isna()], frame[flagged & frame["value"].notna()]
    parts = []
    if len(gaps):
        parts.append(f"Gaps: {len(gaps)} of {len(frame)} values are not numbers ({reasons(gaps)}).")
    if len(numbers):
        parts.append(f"Open markers: {len(numbers)} of {len(frame)} values are flagged ({reasons(numbers)}).")
    return " ".join(parts)


def reasons(frame: pd.DataFrame) -> str:
    """Name at most three kinds of flags."""
    return "; ".join(in_order(frame["flag"].map(reason))[:3])


def distrusted(frame: pd.DataFrame) -> str:
    """Name the checkpoints that are left out since their weights are another step's; "" without a trajectory."""
    if "distrusted" not in frame:
        return ""
    by_model = frame.dropna(subset="distrusted").drop_duplicates("model").set_index("model")["distrusted"]
    named = [
        f"{model}: {shortened(names.split(', '), MOST_NAMED)}" for model, names in by_model.items() if names
    ]
    return f"Not drawn, since their weights are another step's: {'; '.join(named)}." if named else ""


def common(frame: pd.DataFrame) -> list[str]:
    """Say what sinks are, count the flagged values, and name the checkpoints that are left out."""
    return [sinks(frame), flags(frame), distrusted(frame)]


def absent_kinds(frame: pd.DataFrame) -> list[str]:
    """Name each kind of model that the study lacks."""
    return [f"No {kind} in this study." for kind in ("decoder", "encoder") if kind not in set(frame["kind"])]
