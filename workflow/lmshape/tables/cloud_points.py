"""The table `clouds`: single rows of a layer on its three leading principal axes, at a few checkpoints."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import numpy as np

from lmshape.metric_families.carriers import GROUPS
from lmshape.store import LayerStatistics
from lmshape.tables.columns import Value, declare
from lmshape.tables.shape_columns import PLACE_DESCRIPTIONS, PLACE_INTEGERS, PLACE_REALS

FAMILY = "leading"
ARRAYS = (
    "eigenvalues",
    "total",
    "sample_coordinates",
    "sample_group",
    "sample_position",
    "sample_token",
    "sample_draw",
    "sample_weight",
)  # of its archive
ROWS = ("all", "no_sink")  # the first of them that an archive has
MOST_CHECKPOINTS = 5

CLOUD_COLUMNS = declare(
    {
        **PLACE_DESCRIPTIONS,
        "draw": "draw of sequences that the token is in",
        "position": "of the token in its sequence, from 0",
        "token": "id of the token",
        "text": "the token's text, in quotes; empty where it is not known",
        "group": "position_0; other_sink: norm over 10 × the site's median; rest",
        "weight": "rows of its group that this one stands for; 1 where all of them are here",
        **{f"axis_{k}": f"coordinate on principal axis {k}, from the mean, in units of the rows" for k in (1, 2, 3)},
        **{f"share_{k}": f"λ{k} / Σλ: the share of the variance along axis {k}" for k in (1, 2, 3)},
        "n_rows": "number of token rows that the axes were taken of",
        "d": "width of a row",
        "flag": "the reason of NaN; empty when fine",
    },
    integers=[*PLACE_INTEGERS, "draw", "position", "token", "n_rows", "d"],
    reals=[*PLACE_REALS, "weight", *(f"{name}_{k}" for name in ("axis", "share") for k in (1, 2, 3))],
)  # fmt: skip


def seen_checkpoints(steps: Mapping[str, int], *, most: int = MOST_CHECKPOINTS) -> list[str]:
    """Choose checkpoints to look at: the first, the last, and those between nearest to even places of ln(1 + step).

    Parameters
    ----------
    steps : checkpoint → step, negative where it is not known
    most : number of checkpoints, 2 or more

    Returns
    -------
    Names by step; the last name alone where no step is known.
    """
    known = sorted((step, name) for name, step in steps.items() if step >= 0)
    if not known:
        return list(steps)[-1:]
    places = np.log1p([step for step, _ in known])
    wanted = np.linspace(places[0], places[-1], most)
    nearest = {int(np.abs(places - place).argmin()) for place in wanted}
    return [known[i][1] for i in sorted(nearest)]


def chosen_entry(entries: list[LayerStatistics]) -> LayerStatistics:
    """Return the entry of a site that is drawn: all rows, or without sinks where only that was measured."""
    return min(entries, key=lambda entry: ROWS.index(entry.rows))


def cloud_rows(entry: LayerStatistics) -> Iterator[dict[str, Value | None]]:
    """Yield the sampled rows of one entry of a leading archive; one with the reason where there is no axis."""
    counts = {name: entry.attributes[name] for name in ("n_rows", "d")}
    arrays, flag = entry.arrays, str(entry.attributes["flag"])
    total = arrays["total"][0]
    if not np.isfinite(total) or total <= 0:
        yield {**counts, "flag": flag or "zero variance"}
        return
    texts = json.loads(entry.attributes["texts"])
    shares = {f"share_{k}": value for k, value in enumerate((arrays["eigenvalues"][0] / total).tolist(), 1)}
    for i, coordinates in enumerate(arrays["sample_coordinates"]):
        token = int(arrays["sample_token"][i])
        yield {
            **counts,
            "draw": int(arrays["sample_draw"][i]),
            "position": int(arrays["sample_position"][i]),
            "token": token,
            "text": repr(texts[str(token)]) if str(token) in texts else "",
            "group": GROUPS[arrays["sample_group"][i]],
            "weight": _shortest(arrays["sample_weight"][i]),
            **{f"axis_{k}": _shortest(value) for k, value in enumerate(coordinates, 1)},
            **shares,
            "flag": flag,
        }


def _shortest(value: np.float32) -> float:
    """Return the shortest number that is the same in float32: CSV files are half as long."""
    return float(str(value))
