"""Profiles: each curve of anisotropy over the blocks as a dome, and how far it is from the last checkpoint's."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

import numpy as np
import pandas as pd

from lmshape.dynamics.noise import Noise, largest, may_be_largest, noise_of, replicated, size
from lmshape.geometry.resample import Estimate
from lmshape.hub.integrity import DISTRUSTED
from lmshape.metrics.registry import METRICS
from lmshape.tables.columns import Row, declare, integer, interval, interval_of, joined, real, shared, text


def distance(difference: np.ndarray, noise: Noise | None) -> Estimate:
    """Return the root mean square of a difference of profiles, without what the noise adds to it.

    The mean square of the differences exceeds the true one by the mean variance of their errors, which is subtracted:
    equal profiles read about 0. Where the difference exceeds what the noise makes of equal profiles, the interval is
    Student's t for the error along the difference; otherwise it begins at 0 and ends where the plain value and the
    noise together do.

    Parameters
    ----------
    difference : (L,) one profile less the other
    noise : its error, paired by draws; None where draws cannot tell, and there is no interval
    """
    plain = float(size(difference))
    if noise is None:
        return Estimate(plain, nan, nan, 1)
    draws = 1 + len(noise.rows())
    variance = float((noise.samples() ** 2).mean())
    value = float(np.sqrt(max(plain**2 - variance, 0.0)))
    bound = noise.bound(size)
    if plain <= bound:
        return Estimate(value, 0.0, plain + bound, draws)
    along = difference / (plain * len(difference))
    half = noise.times(along[:, None]).bound(largest)
    return Estimate(value, max(value - half, 0.0), value + half, draws)


LEVEL_TOP = 0.9  # share of the way from edge to peak that the top of a dome begins at
PLATEAU = 0.7  # `top_share` of a plateau: a parabola has 0.45, a bell 0.39, a tent 0.2, two cliffs 1
SEEN = 0.05  # of a dome that deserves the name
FEWEST_BLOCKS = 3  # of a profile with an inside


@dataclass(frozen=True, slots=True, kw_only=True)
class Dome:
    """What the numbers of a profile, one for each block, look like from the side.

    Attributes
    ----------
    peak, edge : places of the largest number and of the larger of the first and the last one
    index : the one less the other; 0 for a profile that is flat or monotone
    index_low, index_high : 95 % interval; NaN where draws cannot tell
    peak_low, peak_high : first and last place that cannot be told from the peak; `peak` where draws cannot tell
    null : index that a flat profile with this noise stays under in 95 of 100 samples; NaN where draws cannot tell
    width : relative depth over which the profile is over half the way from its higher edge to its peak; NaN without
        a peak inside
    top_share : relative depth over nine tenths of the way, over `width`
    """

    peak: int
    edge: int
    index: float
    index_low: float
    index_high: float
    peak_low: int
    peak_high: int
    null: float
    width: float
    top_share: float

    @property
    def kind(self) -> str:
        """Name it: dome, plateau, slight (under 0.05), none (a flat profile may read as much); empty without a null."""
        if np.isnan(self.null):
            return ""
        if self.index <= self.null:
            return "none"
        if self.index < SEEN:
            return "slight"
        return "plateau" if self.top_share >= PLATEAU else "dome"


def dome(values: np.ndarray, depth: np.ndarray, noise: Noise | None) -> Dome:
    """Describe a profile.

    Parameters
    ----------
    values, depth : (L,) numbers at the blocks and their relative depths, L ≥ 3
    noise : error of the values; None where draws cannot tell
    """
    ends = np.array([0, len(values) - 1])
    peak, edge = int(values.argmax()), int(ends[values[ends].argmax()])
    index = float(values[peak] - values[edge])
    tops, half, null = np.array([peak]), nan, nan
    if noise is not None:
        tops = may_be_largest(values, noise)
        edges = ends[may_be_largest(values[ends], noise.at(ends))]
        half = noise.times(_pairs(tops, edges, len(values))).bound(largest)
        null = noise.bound(excess)
    width, top = (
        _depth_over(values, depth, values[edge] + share * index) if index > 0 else nan
        for share in (0.5, LEVEL_TOP)
    )
    return Dome(
        peak=peak,
        edge=edge,
        index=index,
        index_low=max(index - half, 0.0),
        index_high=index + half,
        peak_low=int(tops[0]),
        peak_high=int(tops[-1]),
        null=null,
        width=width,
        top_share=top / width,
    )


def excess(profiles: np.ndarray) -> np.ndarray:
    """Largest number over the larger of the first and the last, (…, L) → (…)."""
    return profiles.max(axis=-1) - np.maximum(profiles[..., 0], profiles[..., -1])


def _pairs(tops: np.ndarray, edges: np.ndarray, count: int) -> np.ndarray:
    """Weights (count, pairs) of the differences of each top to each edge."""
    unit = np.eye(count)
    return (unit[:, tops][:, :, None] - unit[:, edges][:, None, :]).reshape(count, -1)


def _depth_over(values: np.ndarray, depth: np.ndarray, level: float) -> float:
    """Return the length of the axis over which the line through the values lies over a level."""
    low, high = np.minimum(values[1:], values[:-1]), np.maximum(values[1:], values[:-1])
    rise = np.where(high > low, high - low, 1.0)
    share = np.where(high > low, np.clip((high - level) / rise, 0.0, 1.0), high >= level)
    return float((share * np.diff(depth)).sum())


CELL = "study model family kind checkpoint step tokens_seen dataset"  # what a profile belongs to
PROFILE_COLUMNS = declare(
    *shared(f"{CELL} rows"),
    text("metric", "the metric that is followed over the layers"),
    integer("peak_layer", "block after which the value is largest"),
    integer("peak_layer_low", "first block that does not differ significantly from the peak"),
    integer("peak_layer_high", "last block that does not differ significantly from the peak"),
    real("peak_depth", "peak_layer / number of blocks"),
    *interval(real, "height", "value at the peak"),
    real("edges", "the larger of the values after the first and after the last block"),
    *interval(
        real,
        "dome_index",
        "height - edges, in [0, 1]; 0 for a profile that is flat or monotone",
        ", paired by draws, over all blocks that may be the peak",
    ),
    real(
        "dome_index_null", "dome_index that a flat profile with this noise stays under in 95 of 100 samples"
    ),
    text(
        "dome",
        "none: dome_index is not over its null; slight: over it, but under 0.05; plateau: with a top_share of 0.7 or "
        "more; dome; empty without a null",
    ),
    real(
        "width",
        "relative depth over which the value is over half the way from edges to height; NaN if monotone",
    ),
    real(
        "top_share",
        "relative depth over nine tenths of that way, over width: 0.2 a tent, 0.45 a parabola, 1 two cliffs",
    ),
    real(
        "distance_to_final",
        "root mean square difference over the blocks to the last trusted checkpoint, without the noise's part",
    ),
    real("distance_low", "lower end of its 95 % interval, paired by draws"),
    real("distance_high", "upper end of its 95 % interval"),
    text(
        "flag",
        "monotone: the peak is at the first or last block; and the reason of an empty value; empty when fine",
    ),
)

PROFILED = "anisotropy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A metric over the blocks of one checkpoint.

    Attributes
    ----------
    rows : of the metrics table, by layer
    numbers : (K + 1, L) one for each block, with all draws, then without each
    last : whether it is that of the last trusted checkpoint
    """

    rows: pd.DataFrame
    numbers: np.ndarray
    last: bool

    @property
    def noise(self) -> Noise | None:
        """Error of the numbers; None where draws cannot tell."""
        return noise_of(self.numbers)

    @property
    def why_not(self) -> str:
        """Say why the curve has no shape; empty where it has one."""
        missing = np.flatnonzero(np.isnan(self.numbers[0]))
        if len(missing):
            reason = self.rows.iloc[missing[0]]
            return f"layer {reason['layer']}: {reason['flag']}"
        few = len(self.rows) < FEWEST_BLOCKS
        return f"too few blocks: {len(self.rows)}; a dome needs {FEWEST_BLOCKS}" if few else ""


def profiles(metrics: pd.DataFrame, metric: str = PROFILED) -> pd.DataFrame:
    """Describe the curve of a metric over the blocks of each cell, for each choice of rows.

    Embedding and final norm are not part of the curve: they are other spaces than the residual stream between.

    Parameters
    ----------
    metrics : rows of the models' own tables (`lmshape.tables.columns.MODEL_COLUMNS`); without the columns interval and
        replicates, as in the study's table, there are no intervals of what is made of several layers

    Returns
    -------
    The columns of PROFILE_COLUMNS; NaN with a flag where a layer has no value or there are under 3 blocks.
    """
    curves = metrics[(metrics["metric"] == metric) & (metrics["site"] == "block")]
    rows = []
    for _, lines in curves.groupby(["model", "dataset", "rows"], sort=False):
        cells = _cells(lines)
        final = next((cell for cell in cells if cell.last), None)
        rows += [_row(cell, final) for cell in cells]
    frame = pd.DataFrame(rows, columns=PROFILE_COLUMNS.names)
    order = curves.drop_duplicates(["model", "checkpoint", "dataset", "rows"])
    return order[["model", "checkpoint", "dataset", "rows"]].merge(frame, how="left")[PROFILE_COLUMNS.names]


def _cells(lines: pd.DataFrame) -> list[Profile]:
    numbers = replicated(lines)
    last = last_checkpoint(lines)
    lines = lines.drop(columns=["interval", "replicates"], errors="ignore")  # lists are slow to select from
    cells = []
    for checkpoint, places in lines.groupby("checkpoint", sort=False).indices.items():
        places = places[np.argsort(lines["layer"].to_numpy()[places], kind="stable")]
        cells.append(Profile(rows=lines.iloc[places], numbers=numbers[:, places], last=checkpoint == last))
    return cells


def last_checkpoint(lines: pd.DataFrame) -> str | None:
    """Return the trusted checkpoint of the greatest step in rows of one model; None where no step tells."""
    trusted = lines[~lines["verdict"].isin(DISTRUSTED)] if "verdict" in lines else lines
    if trusted.empty or (trusted["step"].max() < 0 and trusted["checkpoint"].nunique() > 1):
        return None
    return str(trusted.sort_values("step", kind="stable")["checkpoint"].iloc[-1])


def _row(cell: Profile, final: Profile | None) -> Row:
    first = cell.rows.iloc[0]
    row = {name: first[name] for name in (*CELL.split(), "rows", "metric")}
    if why := cell.why_not:
        return row | {"flag": why}
    noise = cell.noise
    shape = dome(cell.numbers[0], cell.rows["depth"].to_numpy(), noise)
    to_final, doubt = _to_final(cell, final)
    monotone = "monotone" if shape.peak == shape.edge else ""
    flag = joined(monotone, "" if noise else _without_noise(cell), doubt)
    return row | _dome(cell, shape) | to_final | {"flag": flag}


def _without_noise(cell: Profile) -> str:
    """Say of the first layer without an interval why it has none, or what else is missing."""
    unsure = cell.rows[cell.rows["ci_low"].isna()]
    if len(unsure):
        return f"layer {unsure.iloc[0]['layer']}: {unsure.iloc[0]['flag']}"
    return "no interval: the table has no replicates"


def _dome(cell: Profile, shape: Dome) -> Row:
    peak, layers = cell.rows.iloc[shape.peak], cell.rows["layer"].to_numpy()
    known = METRICS.get(str(peak["metric"]))
    widest = known.high - known.low if known else np.inf
    return {
        **interval_of(
            "peak_layer", *(int(layers[at]) for at in (shape.peak, shape.peak_low, shape.peak_high))
        ),
        "peak_depth": peak["depth"],
        **interval_of("height", peak["value"], peak["ci_low"], peak["ci_high"]),
        "edges": cell.numbers[0, shape.edge],
        **interval_of("dome_index", shape.index, shape.index_low, min(shape.index_high, widest)),
        "dome_index_null": shape.null,
        "dome": shape.kind,
        "width": shape.width,
        "top_share": shape.top_share,
    }


def _to_final(cell: Profile, final: Profile | None) -> tuple[Row, str]:
    """Return the columns of the distance to the last checkpoint's profile, and why there is none."""
    names = ("distance_to_final", "distance_low", "distance_high")
    if cell.last:
        return dict.fromkeys(names, 0.0), ""
    if final is None:
        return {}, "no last checkpoint: its step is unknown, or its weights are distrusted"
    if final.why_not or len(final.rows) != len(cell.rows):
        return {}, f"no distance: the last checkpoint's {final.why_not or 'layers differ'}"
    own, last = cell.numbers, final.numbers
    difference = own - last if len(own) == len(last) else own[:1] - last[:1]
    found = distance(difference[0], noise_of(difference))
    return dict(zip(names, (found.value, found.low, found.high), strict=True)), ""
