"""The first screen of the page: at most four findings with numbers and a small curve each."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from urllib.parse import urlencode

import numpy as np
import pandas as pd

from lmshape.pages.numbers import interval
from lmshape.site import middle_layer
from lmshape.tables.rows import final_checkpoints, first_dataset, in_order, trajectories

MOST = 4  # sentences
EXPLORER = "explore.html"  # the page with every number, in the same folder
WIDTH, HEIGHT = 240.0, 96.0  # of a curve's field, in units of the picture
ZERO_TO_ONE = 0.5  # decades between step 0 and step 1, as in the explorer


@dataclass(frozen=True, slots=True)
class Curve:
    """A line of a small picture: its name, and its points and the outline of its band in SVG."""

    name: str
    line: str
    band: str


@dataclass(frozen=True, slots=True)
class Glance:
    """A sentence of the first screen.

    Attributes
    ----------
    title : its subject
    sentences : findings, with numbers and intervals
    curves : of the small picture
    x, y : the first and the last label of each axis
    address : of the explorer's view that shows the same, or of a figure of the page
    """

    title: str
    sentences: list[str]
    curves: list[Curve]
    x: tuple[str, str]
    y: tuple[str, str]
    address: str


@dataclass(frozen=True, slots=True)
class Shown:
    """The tables behind the sentences about models: their first datasets, without models that were trained to fail."""

    metrics: pd.DataFrame
    profiles: pd.DataFrame

    def models(self, kind: str) -> list[str]:
        """Models of a kind in the study's order."""
        return in_order(self.metrics.loc[self.metrics["kind"] == kind, "model"])

    def blocks(self, model: str, metric: str, rows: str = "all") -> pd.DataFrame:
        """Rows of a metric over the blocks of a model's last checkpoint, in their order, where there is a number."""
        last = final_checkpoints(self._of(model, metric, rows))
        return last[last["value"].notna()].sort_values("layer", kind="stable")

    def course(self, model: str, metric: str, layer: int) -> pd.DataFrame:
        """Rows of a metric at a block over the trusted steps."""
        of_model = self._of(model, metric, "all")
        course = trajectories(of_model[of_model["layer"] == layer])
        return course[course["value"].notna()]

    def heights(self, model: str) -> pd.DataFrame:
        """The largest anisotropy over the blocks at each trusted step of a model, all rows."""
        names = {"height": "value", "height_low": "ci_low", "height_high": "ci_high"}
        steps = self._profiles(model).drop(columns=["value"], errors="ignore").rename(columns=names)
        steps = steps[(steps["step"] >= 0) & steps["value"].notna()]
        return steps.sort_values("step", kind="stable").drop_duplicates("step", keep="last")

    def dome(self, model: str) -> pd.DataFrame:
        """Rows of the profile of anisotropy of a model's last checkpoint, all rows: one or none."""
        return final_checkpoints(self._profiles(model))

    def _profiles(self, model: str) -> pd.DataFrame:
        return self.profiles.query("model == @model and rows == 'all' and metric == 'anisotropy'")

    def _of(self, model: str, metric: str, rows: str) -> pd.DataFrame:
        chosen = "model == @model and metric == @metric and rows == @rows and site == 'block'"
        return self.metrics.query(chosen)


def glances(
    metrics: pd.DataFrame,
    profiles: pd.DataFrame,
    before_spikes: pd.DataFrame | None = None,
    *,
    unstable: Collection[str] = (),
) -> list[Glance]:
    """Say what a study shows.

    Parameters
    ----------
    metrics, profiles : tables of the study
    before_spikes : data of the figure `warnings`; None where the page has no such figure
    unstable : models that were trained to fail; only the sentence about loss spikes is about them

    Returns
    -------
    At most `MOST` sentences; none about what the study did not measure.
    """
    shown = Shown(
        first_dataset(metrics[~metrics["model"].isin(unstable)]),
        first_dataset(profiles[~profiles["model"].isin(unstable)]),
    )
    spikes = [] if before_spikes is None else _spikes(before_spikes)
    return list(islice(chain(spikes, _sentences(shown)), MOST))


def _spikes(before: pd.DataFrame) -> Iterator[Glance]:
    until = before["step"] <= 0
    moves = before[until & (before["role"] == "dimension") & before["value"].notna()]
    if moves.empty:
        return
    row = moves.iloc[0]
    move, area = (interval(row, name).text for name in ("move_before", "auc"))
    said = [
        f"Before {row['spikes']:.0f} loss spikes in {row['runs']:.0f} runs, the dimension (TwoNN) of block "
        f"{row['layer']:.0f} moves by {move} standard deviations of quiet moves.",
        f"As an alarm it has an area under the ROC curve of {area}; chance has 0.5.",
        "Both intervals are over runs.",
    ]
    moves = moves.rename(columns={"step": "steps"})
    names = {"quiet": "value", "quiet_low": "ci_low", "quiet_high": "ci_high"}
    quiet = moves[["steps", *names]].rename(columns=names).dropna(subset="value")
    yield _glance(
        "Before loss spikes", said, {"before spikes": moves, "quiet windows": quiet}, "steps", "#warnings"
    )


def _sentences(shown: Shown) -> Iterator[Glance]:
    decoders, encoders = shown.models("decoder"), shown.models("encoder")
    for model in [*decoders, *encoders][:1]:
        for about in (_layers, _sinks, _training, _dimension):
            yield from about(shown, model)
    if decoders and encoders:
        yield from _encoder(shown, encoders[0])


def _layers(shown: Shown, model: str) -> Iterator[Glance]:
    blocks = shown.blocks(model, "anisotropy")
    if blocks.empty:
        return
    peak = _greatest(blocks)
    at = f"after block {peak['layer']} of {blocks['layer'].max()}"
    said = [f"In {model}, anisotropy is highest {at}: {interval(peak).text}."]
    dome = shown.dome(model)
    if len(dome) and dome["dome_index"].notna().all():
        index = interval(dome.iloc[0], "dome_index").text
        said.append(f"That peak is {index} above the higher of the two ends (dome index).")
    encoder = next(iter(shown.models("encoder")), model)
    series = {model: blocks, encoder: shown.blocks(encoder, "anisotropy")}
    beside = {"compare": "model", "beside": encoder} if encoder != model else {}
    yield _glance("Anisotropy by layer", said, series, "depth", _view(peak, **beside))


def _sinks(shown: Shown, model: str) -> Iterator[Glance]:
    every, without = shown.blocks(model, "anisotropy"), shown.blocks(model, "anisotropy", "no_sink")
    if every.empty:
        return
    peak = _greatest(every)
    same = without[without["layer"] == peak["layer"]]
    if same.empty:
        return
    said = [
        f"Without position 0 and other attention sinks, block {peak['layer']} of {model} has an anisotropy of "
        f"{interval(same.iloc[0]).text}; with all rows {interval(peak).text}."
    ]
    view = _view(peak, compare="rows", beside="no_sink")
    series = {"all rows": every, "without sinks": without}
    yield _glance("Without attention sinks", said, series, "depth", view)


def _training(shown: Shown, model: str) -> Iterator[Glance]:
    heights, blocks = shown.heights(model), shown.blocks(model, "anisotropy")
    if len(heights) < 2 or blocks.empty:
        return
    last = heights.iloc[-1]
    said = [
        f"The largest anisotropy over the blocks of {model} is {interval(last).text} "
        f"at {_step(last['step'])}, the last.",
        _before(heights),
    ]
    view = _view(_greatest(blocks))
    yield _glance("Anisotropy over training", said, {model: heights}, "step", view)


def _dimension(shown: Shown, model: str) -> Iterator[Glance]:
    blocks = shown.blocks(model, "id_twonn")
    if blocks.empty:
        return
    middle = middle_layer(int(blocks["layer"].max()))
    here = blocks.iloc[(blocks["layer"] - middle).abs().argmin()]
    said = [f"In block {here['layer']} of {model} the intrinsic dimension (TwoNN) is {interval(here).text}."]
    surrogate, course = (
        shown.blocks(model, "id_twonn_surrogate"),
        shown.course(model, "id_twonn", here["layer"]),
    )
    null = surrogate[surrogate["layer"] == here["layer"]]
    if len(null):
        said.append(f"Gaussian rows of the same covariance have {interval(null.iloc[0]).text}.")
    series, x = {model: blocks, "Gaussian rows": surrogate}, "depth"
    if len(course) > 1:
        said.append(_before(course))
        series, x = {model: course}, "step"
    yield _glance("Intrinsic dimension", said, series, x, _view(here), log=True)


def _greatest(frame: pd.DataFrame) -> pd.Series:
    return frame.loc[frame["value"].idxmax()]


def _before(course: pd.DataFrame) -> str:
    """Say what a number was at the first step, and where it was greatest."""
    first, greatest, last = course.iloc[0], _greatest(course), course.iloc[-1]
    said = f"At {_step(first['step'])} it was {interval(first).text}"
    if greatest["step"] in (first["step"], last["step"]):
        return f"{said}."
    return f"{said}; it was greatest at {_step(greatest['step'])}: {interval(greatest).text}."


def _encoder(shown: Shown, model: str) -> Iterator[Glance]:
    blocks = shown.blocks(model, "anisotropy")
    if blocks.empty:
        return
    least, most = blocks.loc[blocks["value"].idxmin()], _greatest(blocks)
    said = [
        f"In {model}, anisotropy goes from {interval(least).text} after block {least['layer']} to "
        f"{interval(most).text} after block {most['layer']} of {blocks['layer'].max()}."
    ]
    yield _glance("An encoder", said, {model: blocks}, "depth", _view(most))


# The small pictures


def _step(step: float) -> str:
    return f"step {step:,.0f}"


def _view(row: pd.Series, **more: str) -> str:
    """Spell the address of the explorer's view of a row of the table of metrics."""
    names = ("model", "dataset", "metric", "rows", "checkpoint")
    words = {name: str(row[name]) for name in names} | {"place": f"block-{row['layer']}"}
    return f"{EXPLORER}#{urlencode(words | more)}"


def _glance(
    title: str,
    said: Sequence[str],
    series: Mapping[str, pd.DataFrame],
    x: str,
    address: str,
    *,
    log: bool = False,
) -> Glance:
    """Draw the series of a sentence over `depth`, `step`, or `steps` to a spike; y is logarithmic or contains 0."""
    drawn = {name: frame for name, frame in series.items() if len(frame)}
    whole = pd.concat(drawn.values(), ignore_index=True)
    least = float(whole[["value", "ci_low"]].min().min())
    low = least if log else min(least, 0.0)
    high = float(whole[["value", "ci_high"]].max().max())
    curves = [Curve(name, *_outline(frame, whole, x, (low, high), log)) for name, frame in drawn.items()]
    return Glance(title, list(said), curves, _x_ends(whole, x), (f"{low:.2g}", f"{high:.2g}"), address)


def _x_ends(whole: pd.DataFrame, x: str) -> tuple[str, str]:
    """Name the first and the last place of an axis."""
    if x == "depth":
        return "first block", "last block"
    if x == "steps":
        return f"{-whole['steps'].min():.0f} steps before", "onset"
    return _step(whole["step"].min()), _step(whole["step"].max())


def _outline(
    frame: pd.DataFrame, whole: pd.DataFrame, x: str, ends: tuple[float, float], log: bool
) -> tuple[str, str]:
    """Spell the line of a curve and the outline of its band."""
    along = _places(frame, x)
    across = np.interp(along, _ends(_places(whole, x)), (0, WIDTH))

    def points(column: str) -> list[str]:
        numbers = frame[column].fillna(frame["value"]).to_numpy(dtype=float)
        scale = np.log if log else np.asarray
        down = np.interp(scale(np.maximum(numbers, ends[0])), _ends(scale(ends)), (HEIGHT, 0))
        return [f"{right:.1f},{below:.1f}" for right, below in zip(across, down, strict=True)]

    return " ".join(points("value")), " ".join([*points("ci_low"), *reversed(points("ci_high"))])


def _places(frame: pd.DataFrame, x: str) -> np.ndarray:
    """Return where the rows stand: the logarithm of their step, with a place for step 0; else the number itself."""
    numbers = frame[x].to_numpy(dtype=float)
    return (
        np.where(numbers > 0, ZERO_TO_ONE + np.log10(np.maximum(numbers, 1)), 0) if x == "step" else numbers
    )


def _ends(numbers: Sequence[float] | np.ndarray) -> tuple[float, float]:
    low, high = float(np.min(numbers)), float(np.max(numbers))
    return low, high if high > low else low + 1
