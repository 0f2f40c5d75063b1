"""Whether the files of a model belong together: what each must say, and what they must say alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from lmshape.errors import InputError
from lmshape.metric import Metric

Value = str | int | float

# What the files of one model, checkpoint or dataset must say alike: else they come from other activations.
_AGREEMENT = {
    "model": ("model", "architecture", "kind", "parameters", "blocks", "dtype"),
    "checkpoint": ("weights_sha256", "commit", "step", "tokens_seen"),
    "dataset": ("tokenizer_sha256", "sampling", "seed"),
}


def check_complete(path: Path, attributes: Mapping[str, Value]) -> None:
    """Refuse a file whose root attributes lack what a row of the table says."""
    names = [name for group, shared in _AGREEMENT.items() for name in (group, *shared)]
    missing = [f"`{name}`" for name in names if name not in attributes]
    if missing:
        raise InputError(f"`{path}` does not say {', '.join(missing)}; delete it and run its job again.")


def check_agreement(attributes: Mapping[Path, Mapping[str, Value]]) -> None:
    """Refuse a file whose attributes differ from those of most files of its model, checkpoint or dataset."""
    for group, names in _AGREEMENT.items():
        of_group: dict[Value, list[Path]] = {}
        for path, own in attributes.items():
            of_group.setdefault("" if group == "model" else own[group], []).append(path)
        for paths in of_group.values():
            for name in names:
                _check_equal(name, {path: str(attributes[path][name]) for path in paths})


def _check_equal(name: str, values: Mapping[Path, str]) -> None:
    usual, _ = Counter(values.values()).most_common(1)[0]
    for path, value in values.items():
        if value != usual:
            other = next(path for path in values if values[path] == usual)
            raise InputError(
                f"`{path}` has `{name}` {value}, `{other}` has {usual}: they were made from different "
                "activations. Delete the stale one and run its job again."
            )


def check_families(attributes: Mapping[Path, Mapping[str, Value]], metrics: Sequence[Metric]) -> None:
    """Refuse a cell without the family of a metric that is asked for."""
    cells: dict[tuple[Value, Value], set[Value]] = {}
    for own in attributes.values():
        cells.setdefault((own["checkpoint"], own["dataset"]), set()).add(own["family"])
    for (checkpoint, dataset), families in cells.items():
        for metric in metrics:
            if metric.family not in families:
                raise InputError(
                    f"`{metric.name}` needs the family `{metric.family}`, which no file holds for checkpoint "
                    f"`{checkpoint}`, dataset `{dataset}`; measure it, or leave the metric out."
                )
