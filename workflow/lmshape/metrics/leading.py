"""Leading family: the rows that carry the variance along the leading principal axis, and a few rows to draw."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, repeat
from math import inf, nan

import numpy as np

from lmshape.geometry.arrays import in_memory, on
from lmshape.geometry.leading import LeadingAxes, leading_axes_of_sums
from lmshape.geometry.rows import leave_one_out_masks
from lmshape.geometry.scalars import shares_of
from lmshape.metrics.layer import Arrays, Found, Layer, Measured, blas_threads
from lmshape.metrics.metric import Family, Metric
from lmshape.metrics.rows import BLOCK_ENTRIES, NOT_POSITION_0, RowSums, parts_of, pooled_sums, robust_center
from lmshape.store.statistics import LEFT_OUT
from lmshape.store.tokens import Tokens

GROUPS = ("position_0", "other_sink", "rest")  # a row's group is the place of its name
MOST_ROWS = {"position_0": 50, "other_sink": 50, "rest": 300}
SEED = 0  # one order of the rows for every layer and checkpoint: the same tokens are seen everywhere
AXES = 3  # that are kept of all rows: as many as can be looked at
MOST_CHARACTERS = 40  # of a token's text: HDF5 holds 64 KiB in an attribute
NO_TEXTS = "not known which tokens are newlines: no texts of tokens"
SAMPLED = {"group": np.int8, "position": np.int32, "token": np.int32, "draw": np.int32, "weight": np.float32}


@dataclass(frozen=True, slots=True)
class _Axes:
    """Of one choice: axes of all rows, then without each draw; the same (one axis) without position 0."""

    found: list[LeadingAxes]
    without: list[LeadingAxes | None]


def statistics(layer: Layer) -> dict[str, Found]:
    """Return of each choice of rows what its leading axis is made of, rows in K draws: O(n d² + K d³) time.

    With p the coordinate of a row on the leading axis of the entry, each of K + 1: all rows, then without each draw,

    - `rows`, `second`, `fourth` (K + 1, 3), the number of rows, Σp² and Σp⁴ of each of `GROUPS`
    - `first_newline` (K + 1, 2), rows and Σp² of the first newline of each sequence; NaN where texts are not known
    - `eigenvalues` (K + 1, 3), the largest of the covariance, of all rows; but the first 0 without a draw
    - `total` (K + 1,), Σλ
    - `without_position_0` (K + 1, 2), λ1 and Σλ of the rows that are not at position 0; NaN under 2 rows
    - `sample_coordinates` (m, 3) float32 of m ≤ 400 rows on the three axes, from the mean; the sign of an axis is
      that which makes its largest coordinate positive. `sample_group`, `_position`, `_token`, `_draw` of them, and
      `sample_weight`, the rows of its group that one stands for

    The attribute `texts` has the text of each sampled token, JSON, cut to 40 characters. Under 30 KB. Two passes over
    the rows, O(K d²) memory.
    """
    if layer.tokens is None or layer.sinks is None:
        raise ValueError("`layer` has no tokens and sinks; this family distinguishes rows by them.")
    group, newlines = groups_of(layer.sinks, layer.tokens), first_newlines(layer.tokens)
    with blas_threads(layer.rows.shape[1]):
        sums = pooled_sums(layer)
        axes = {name: _axes(sums, name) for name in layer.kept}
        coordinates = _coordinates(layer, axes)
    found: dict[str, Found] = {}
    for name, kept in layer.kept.items():
        arrays = _sums(coordinates[name], leave_one_out_masks_of(layer.draw, kept), group, newlines)
        sampled, texts = _sample(coordinates[name][0], kept, group, layer.tokens)
        unknown = {"flag_leading_share_first_newline": NO_TEXTS} if newlines is None else {}
        found[name] = arrays | _sizes(axes[name]) | sampled, {"flag": "", "texts": texts, **unknown}
    return found


def missing(*, rows: int, width: int, draws: int, rows_per_draw: int | None = None) -> dict[str, np.ndarray]:
    """Return the arrays of `statistics`, NaN, for rows that have no leading axis; none of them is sampled."""
    shapes = {
        "rows": (len(GROUPS),),
        "second": (len(GROUPS),),
        "fourth": (len(GROUPS),),
        "first_newline": (2,),
        "eigenvalues": (AXES,),
        "total": (),
        "without_position_0": (2,),
    }
    empty = {f"sample_{name}": np.zeros(0, dtype) for name, dtype in SAMPLED.items()}
    numbers = {name: np.full((draws + 1, *shape), np.nan) for name, shape in shapes.items()}
    return numbers | {"sample_coordinates": np.zeros((0, AXES), np.float32)} | empty


def leave_one_out_masks_of(draw: np.ndarray, kept: np.ndarray) -> list[np.ndarray]:
    """Return which of all rows (n,) take part: the kept ones, then those without each of their draws."""
    masks = []
    for inside in leave_one_out_masks(draw[kept], int(np.count_nonzero(kept))):
        mask = kept.copy()
        mask[kept] = inside
        masks.append(mask)
    return masks


def _axes(sums: RowSums, choice: str) -> _Axes:
    counts = chain([AXES], repeat(1))  # to look at of all rows, the leading one without a draw
    subsets = sums.leave_one_out(choice, within=choice)
    found = [leading_axes_of_sums(own, count=count) for own, count in zip(subsets, counts, strict=False)]
    others = NOT_POSITION_0.format(choice)
    if sums.same(choice, others):
        return _Axes(found, list(found))
    without = sums.leave_one_out(others, within=choice)
    return _Axes(found, [leading_axes_of_sums(own, count=1) if own.count > 1 else None for own in without])


def _coordinates(layer: Layer, axes: Mapping[str, _Axes]) -> dict[str, list[np.ndarray]]:
    """Return for each choice and entry the coordinates (n, axes) of all rows, NaN where no choice keeps a row."""
    center = robust_center(layer.rows, layer.kept)
    entries = [entry for name in layer.kept for entry in axes[name].found]
    directions = on(np.concatenate([entry.axes for entry in entries]), layer.device)
    offsets = np.concatenate([entry.axes @ (entry.mean - center) for entry in entries])
    coordinates = np.full((len(layer.draw), len(directions)), np.nan)
    for _, where, rows in parts_of(layer.draw, layer.kept).blocks(layer.rows.on(layer.device), BLOCK_ENTRIES):
        differences = on(rows, layer.device) - on(center, layer.device)
        coordinates[where] = in_memory(differences @ directions.T) - offsets
    ends = np.cumsum([len(entry.axes) for entry in entries])
    split = iter(np.split(coordinates, ends[:-1], axis=1))
    return {name: [next(split) for _ in axes[name].found] for name in layer.kept}


def _sums(
    coordinates: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    group: np.ndarray,
    newlines: np.ndarray | None,
) -> dict[str, np.ndarray]:
    """Return, for each entry, the number of rows and the sums over them."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in ("rows", "second", "fourth", "first_newline")}
    for own, mask in zip(coordinates, masks, strict=True):
        squares, groups = np.square(own[mask, 0]), group[mask]
        for name, weights in (("rows", None), ("second", squares), ("fourth", np.square(squares))):
            found[name].append(np.bincount(groups, weights, minlength=len(GROUPS)).astype(np.float64))
        if newlines is None:
            found["first_newline"].append(np.full(2, np.nan))
        else:
            of_newlines = squares[newlines[mask]]
            found["first_newline"].append(np.array([len(of_newlines), of_newlines.sum()]))
    return {name: np.stack(values) for name, values in found.items()}


def _sizes(axes: _Axes) -> dict[str, np.ndarray]:
    """Return the eigenvalues, and the sum of all."""
    eigenvalues = np.zeros((len(axes.found), AXES))
    for entry, own in enumerate(axes.found):
        eigenvalues[entry, : len(own.eigenvalues)] = own.eigenvalues
    without = [(np.nan, np.nan) if own is None else (own.eigenvalues[0], own.total) for own in axes.without]
    total = np.array([own.total for own in axes.found])
    return {"eigenvalues": eigenvalues, "total": total, "without_position_0": np.array(without)}


def _sample(
    coordinates: np.ndarray, kept: np.ndarray, group: np.ndarray, tokens: Tokens
) -> tuple[dict[str, np.ndarray], str]:
    """Return what is kept of single rows, and the texts of their tokens."""
    index, weight = sampled_rows(group, kept)
    inside = coordinates[kept]
    farthest = inside[np.abs(inside).argmax(axis=0), np.arange(AXES)]
    columns = {
        "group": group[index],
        "position": tokens.position[index],
        "token": tokens.ids[index],
        "draw": tokens.draw[index],
        "weight": weight,
    }
    ids = np.unique(columns["token"]).tolist()
    texts = {str(token): tokens.texts[token][:MOST_CHARACTERS] for token in ids if token in tokens.texts}
    oriented = (coordinates[index] * np.where(farthest < 0, -1, 1)).astype(np.float32)
    sampled = {f"sample_{name}": columns[name].astype(dtype) for name, dtype in SAMPLED.items()}
    return {"sample_coordinates": oriented, **sampled}, json.dumps(texts, ensure_ascii=False)


def groups_of(sinks: np.ndarray, tokens: Tokens) -> np.ndarray:
    """Return the group of each row (n,), a place in `GROUPS`.

    Parameters
    ----------
    sinks : (n,) bool, position 0 and the rows whose norm is over 10 × the median of the site
    tokens : the n tokens
    """
    return np.where(tokens.position == 0, 0, np.where(sinks, 1, 2)).astype(np.int8)


def first_newlines(tokens: Tokens) -> np.ndarray | None:
    """Find the first newline of each sequence past its position 0; None where the texts of tokens are not known.

    A newline is a token of white space alone with a line feed in it, one or more. In Pythia it is a sink, as position
    0 is.

    Returns
    -------
    (n,) bool, at most one True a sequence.
    """
    if not tokens.texts:
        return None
    newlines = [token for token, text in tokens.texts.items() if "\n" in text and not text.strip()]
    index = np.flatnonzero(np.isin(tokens.ids, newlines) & (tokens.position > 0))
    _, first = np.unique(tokens.sequence[index], return_index=True)
    found = np.zeros(len(tokens.ids), dtype=bool)
    found[index[first]] = True
    return found


def sampled_rows(group: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Choose rows at random within each group, at most `MOST_ROWS` of it.

    Parameters
    ----------
    group : (n,) places in `GROUPS`
    kept : (n,) bool, the rows to choose from

    Returns
    -------
    Ascending index (m,) of the rows, m ≤ 400; and how many rows of its group each stands for, 1 where all are there.
    """
    order = np.random.default_rng(SEED).permutation(len(group))
    weights = np.zeros(len(group))
    for place, name in enumerate(GROUPS):
        own = order[(kept & (group == place))[order]]
        chosen = own[: MOST_ROWS[name]]
        weights[chosen] = len(own) / max(len(chosen), 1)
    index = np.flatnonzero(weights)
    return index, weights[index]


def _share(arrays: Arrays, *, group: str) -> np.ndarray:
    """Return the share of Σp² that the rows of a group carry."""
    return shares_of(arrays["second"])[:, GROUPS.index(group)]


def _share_of_rows(arrays: Arrays, *, group: str) -> np.ndarray:
    """Return the share of all rows at every entry: it is known without error."""
    shares = shares_of(arrays["rows"])[:, GROUPS.index(group)]
    return np.full(len(shares), shares[0])


def _share_of_first_newlines(arrays: Arrays) -> np.ndarray:
    return _ratio(arrays["first_newline"][:, 1], arrays["second"].sum(axis=1))


def _kurtosis(arrays: Arrays) -> np.ndarray:
    rows, second, fourth = (arrays[name].sum(axis=1) for name in ("rows", "second", "fourth"))
    return _ratio(rows * fourth, np.square(second))


def _anisotropy_without_position_0(arrays: Arrays) -> np.ndarray:
    return _ratio(*arrays["without_position_0"].T)


def _ratio(part: np.ndarray, total: np.ndarray) -> np.ndarray:
    return np.divide(part, total, out=np.full(len(total), nan), where=total > 0)


_leading = partial(Metric, family="leading", interval="jackknife", undefined="zero variance")
_part = partial(
    _leading,
    low=0.0,
    high=1.0,
    range="[0, 1]; the three parts add up to 1",
    source="arXiv 2402.17762; fragmential/training-time-entropy-circuits",
)
_part_of_rows = partial(
    _leading,
    low=0.0,
    high=1.0,
    range="[0, 1]",
    null="itself a null: the value if these rows are like all others",
    source="counting",
    undefined="no rows",
)

LEADING = Family(
    "leading",
    measured=Measured(
        name="leading",
        statistics=statistics,
        missing=missing,
        axes={
            **dict.fromkeys(("rows", "second", "fourth"), (LEFT_OUT, "group")),
            "first_newline": (LEFT_OUT, "rows_and_squares"),
            "eigenvalues": (LEFT_OUT, "component"),
            "without_position_0": (LEFT_OUT, "largest_and_sum"),
            "sample_coordinates": ("sample", "component"),
            **{f"sample_{name}": ("sample",) for name in SAMPLED},
        },
    ),
    metrics=(
        _part(
            name="leading_share_position_0",
            definition="share of λ1 = Σp²/(n - 1) that rows at position 0 carry, p = v1·(x - mean)",
            null="their share of the rows: leading_share_position_0_null",
            values=partial(_share, group="position_0"),
        ),
        _part_of_rows(
            name="leading_share_position_0_null",
            definition="share of the rows that are at position 0",
            values=partial(_share_of_rows, group="position_0"),
        ),
        _part(
            name="leading_share_other_sinks",
            definition="share of λ1 that other sink rows carry, with norms over 10 × the site's median",
            null="0 without far rows; their share of the rows if only their norms are large",
            values=partial(_share, group="other_sink"),
        ),
        _part_of_rows(
            name="leading_share_other_sinks_null",
            definition="share of the rows that are sinks and not at position 0",
            values=partial(_share_of_rows, group="other_sink"),
        ),
        _part(
            name="leading_share_first_newline",
            definition="share of λ1 that the first newline of each sequence carries, whether or not it is a sink",
            range="[0, 1]; part of one of the other shares",
            null="at most 1/window, its share of the rows",
            undefined="zero variance, or no texts of tokens",
            values=_share_of_first_newlines,
        ),
        _part(
            name="leading_share_rest",
            definition="share of λ1 that all rows except position 0 and other sinks carry",
            null="1: no rows of either kind, or rows like all others",
            values=partial(_share, group="rest"),
        ),
        _leading(
            name="leading_kurtosis",
            definition="n Σp⁴/(Σp²)², p the coordinates on the leading axis: how few rows carry it",
            low=1.0,
            high=inf,
            range="[1, n - 2 + 1/(n - 1)], the upper end if a single row carries it",
            null="3 for Gaussian rows",
            source="Pearson 1905; fourth standardized moment",
            values=_kurtosis,
        ),
        _leading(
            name="anisotropy_without_position_0",
            definition="anisotropy of the rows that are not at position 0, other sinks among them",
            low=0.0,
            high=1.0,
            range="[1/min(n - 1, d), 1]",
            null="that of anisotropy",
            source="Razzhigaev et al. 2024, arXiv 2311.05928; without position 0",
            undefined="zero variance, or under 2 rows",
            values=_anisotropy_without_position_0,
        ),
    ),
)
