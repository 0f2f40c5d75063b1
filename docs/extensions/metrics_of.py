"""`metric-definitions`: all metrics by family, as `lmshape.metrics.registry` declares them."""

from __future__ import annotations

from generated import Generated, table

from lmshape.metrics import skdim
from lmshape.metrics.registry import METRIC_FAMILIES, METRICS, describe

INTERVALS = {
    "jackknife": "delete-one-draw jackknife",
    "draws": "Student's t over the draws, of which the value is the mean",
    "none": "none",
}
ABOUT = {
    "spectral": "What the spectrum of a layer's covariance says.",
    "angular": "Directions and lengths of single rows.",
    "neighbor": "Intrinsic dimension from the distances to nearest neighbors. Rows that repeat another of their draw "
    "are dropped first: a copy at distance 0 is not a neighbor. A dimension is that of this n and this scale; compare "
    "like with like.",
    "linearity": "How well a matrix maps the input of a block to its output.",
    "comparison": "How alike the clouds before and after a block are; measured where a study names it.",
    "comparison_final": "How alike a layer is to itself at the final checkpoint, the last of the model in the study; "
    "measured where a study names it, and keeps the activations.",
    "released": "What LLM-Microscope 0.0.6 computes, faults included, to stand beside the corrected numbers: "
    "[](../corrections.md).",
    "loss": "Of the model's output, on the same tokens.",
    "skdim": "A study names the estimators of scikit-dimension, with options: `skdim.lPCA(ver=participation_ratio)`. "
    "The value is the mean over the draws, of the same rows as in the neighbor family.",
}


class MetricDefinitions(Generated):
    """Definition, range, null, interval and source of every metric; the estimators of scikit-dimension."""

    required_arguments = 0

    def markdown(self, name: str) -> str:
        """Write a section for each family, and in it one for each metric."""
        return "\n".join([*map(_family, METRIC_FAMILIES), _estimators()])


def _family(family: str) -> str:
    own = [entry for entry in describe() if entry["family"] == family]
    head = f"(family-{family})=\n## {family.replace('_', ' ').capitalize()}\n\n{ABOUT.get(family, '')}\n"
    return "\n".join([head, *map(_section, own)])


def _section(entry: dict[str, str]) -> str:
    metric = METRICS[entry["name"]]
    interval = INTERVALS[metric.interval] + (f": {metric.no_interval}" if metric.no_interval else "")
    facts = {
        "Range": entry["range"],
        "Null": entry["null"],
        "Interval": interval,
        "NaN where": metric.undefined,
        "Source": entry["source"],
    }
    listed = "\n".join(f"- **{label}**: {text}" for label, text in facts.items())
    return f"(metric-{entry['name']})=\n### `{entry['name']}`\n\n{entry['definition']}\n\n{listed}\n"


def _estimators() -> str:
    rows = [
        (f"`{skdim.PREFIX}{name}`", about.definition, about.range, about.source)
        for name, about in skdim.ABOUT.items()
    ]
    listed = table(["metric", "definition", "range", "source"], rows)
    return f"(family-skdim)=\n## skdim\n\n{ABOUT['skdim']}\n\n{listed}"
