"""Entries of the table of metrics: which rows the leading principal axis is made of, and what is left without them."""

from __future__ import annotations

from functools import partial
from math import inf, nan

import numpy as np

from lmshape.geometry.leading import shares_of
from lmshape.metric import Arrays, Metric
from lmshape.metric_families.carriers import GROUPS


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
    null="is one itself: the value where these rows are as all others",
    source="counting",
    undefined="no rows",
)

LEADING = (
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
        null="0: rows without far ones; their share of the rows where only their norms are large",
        values=partial(_share, group="other_sink"),
    ),
    _part_of_rows(
        name="leading_share_other_sinks_null",
        definition="share of the rows that are sinks and not at position 0",
        values=partial(_share_of_rows, group="other_sink"),
    ),
    _part(
        name="leading_share_first_newline",
        definition="share of λ1 that the first newline of each sequence carries, a sink or not",
        range="[0, 1]; part of one of the other shares",
        null="at most 1/window, its share of the rows",
        undefined="zero variance, or no texts of tokens",
        values=_share_of_first_newlines,
    ),
    _part(
        name="leading_share_rest",
        definition="share of λ1 that all rows but position 0 and other sinks carry",
        null="1: no rows of either kind, or rows like all others",
        values=partial(_share, group="rest"),
    ),
    _leading(
        name="leading_kurtosis",
        definition="n Σp⁴/(Σp²)², p the coordinates on the leading axis: how few rows make it",
        low=1.0,
        high=inf,
        range="[1, n - 2 + 1/(n - 1)], the upper end where one row is off all others",
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
)
