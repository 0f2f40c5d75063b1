"""Rows of a table without verdicts, less those of checkpoints whose weights are not those of their step."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lmshape.hub.integrity import DISTRUSTED


def trusted(frame: pd.DataFrame, checkpoints: pd.DataFrame | None) -> pd.DataFrame:
    """Leave out checkpoints that the table `checkpoints` distrusts; the column `distrusted` names those of the model.

    Without that table, all rows.
    """
    bad: dict[str, list[str]] = {}
    if checkpoints is not None and "verdict" in checkpoints:
        doubtful = checkpoints[checkpoints["verdict"].isin(DISTRUSTED)].sort_values("step", kind="stable")
        bad = {str(model): list(names.unique()) for model, names in doubtful.groupby("model")["checkpoint"]}
    pairs = zip(frame["model"], frame["checkpoint"], strict=True)
    kept = frame[np.array([checkpoint not in bad.get(model, ()) for model, checkpoint in pairs], dtype=bool)]
    return kept.assign(distrusted=[", ".join(bad.get(model, ())) for model in kept["model"]])
