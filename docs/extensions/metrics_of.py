"""`metric-definitions`: all metrics by family, as `lmshape.metrics.registry` declares them."""

from __future__ import annotations

from collections.abc import Sequence

from generated import Generated

from lmshape.metrics.metric import Metric
from lmshape.metrics.registry import FAMILIES
from lmshape.metrics.skdim import DESCRIBED

INTERVALS = {
    "jackknife": "delete-one-draw jackknife",
    "draws": "Student's t over the draws, of which the value is the mean",
    "none": "none",
}
ABOUT = {
    "spectral": "What the spectrum of a layer's covariance says.",
    "angular": "Directions and lengths of single rows.",
    "neighbor": "Intrinsic dimension from the distances to nearest neighbors. Rows that repeat another of their draw "
    "are dropped first: a copy at distance 0 is no neighbor. A dimension is that of this n and this scale; compare "
    "like with like.",
    "linearity": "How well a matrix maps the input of a block to its output.",
    "released": "What LLM-Microscope 0.0.6 computes, faults included, to stand beside the corrected numbers: "
    "[](../corrections.md).",
    "skdim": "Estimators of scikit-dimension, measured where a study names them, as in `skdim.CorrInt`. Each is the "
    "mean over draws of what it makes of the rows of the neighbor family; options stand behind its name, as in "
    "`skdim.lPCA(ver=participation_ratio)`. `DANCo`, `ESS` and `PH` take half a minute to two for 1024 rows.",
    "loss": "Of the model's output, on the same tokens.",
}


class MetricDefinitions(Generated):
    """Definition, range, null, interval and source of every metric."""

    required_arguments = 0

    def markdown(self, name: str) -> str:
        """Write a section for each family, and in it one for each metric."""
        metrics = {name: family.metrics for name, family in FAMILIES.items()} | {"skdim": DESCRIBED}
        return "\n".join(_family(name, own) for name, own in metrics.items() if own)


def _family(family: str, own: Sequence[Metric]) -> str:
    head = f"(family-{family})=\n## {family.replace('_', ' ').capitalize()}\n\n{ABOUT.get(family, '')}\n"
    return "\n".join([head, *map(_section, own)])


def _section(metric: Metric) -> str:
    interval = INTERVALS[metric.interval] + (f": {metric.no_interval}" if metric.no_interval else "")
    facts = {
        "Range": metric.range,
        "Null": metric.null,
        "Interval": interval,
        "NaN where": metric.undefined,
        "Source": metric.source,
    }
    listed = "\n".join(f"- **{label}**: {text}" for label, text in facts.items())
    return f"(metric-{metric.name})=\n### `{metric.name}`\n\n{metric.definition}\n\n{listed}\n"
