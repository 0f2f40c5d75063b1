"""Verdicts on the checkpoints of published runs, for `lmshape plan`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from lmshape.checkpoints import Checkpoint
from lmshape.hub.integrity import VERDICTS, corrections
from lmshape.study.models import Model
from lmshape.study.study import Study

MOST_NAMES = 8  # of a list of checkpoints


def describe_verdicts(study: Study, *options: str) -> str:
    """List the verdicts on the checkpoints of each published run, the skipped ones, and unverified facts.

    Parameters
    ----------
    study : the study
    options : of the command line, which the command that verifies repeats
    """
    models = [model for model in study.models.values() if model.on_hub]
    lines = [line for model in models for line in _of_model(model)]
    return "\n".join([*lines, *_unverified(models, " ".join(options))])


def _of_model(model: Model) -> Iterator[str]:
    from lmshape.hub.client import gate  # imports the hub's client

    if told := gate(model.entry):
        yield f"gate       {model.name}: {told}"
    everyone = [*model.checkpoints.values(), *model.passed_over]
    if any(one.verdict for one in everyone):
        yield f"verdicts   {model.name}: of the {len(model.checkpoints)} chosen {_sums(model.checkpoints.values())}"
    if model.passed_over:
        yield (
            f"           {len(model.passed_over)} were skipped, {_sums(model.passed_over)}: "
            f"{_names(model.passed_over)}"
        )
    if model.same:
        equal = [f"{', '.join(one.name for one in others)} as {name}" for name, others in model.same.items()]
        yield f"equal      {model.name}: downloaded and measured once, {'; '.join(equal)}"
    for correction in corrections(model.lock) if model.lock else ():
        yield f"registry   {model.name}: {correction}"


def _sums(checkpoints: Iterable[Checkpoint]) -> str:
    counts = Counter(one.verdict or "not verified" for one in checkpoints)
    return ", ".join(f"{counts[name]} {name}" for name in (*VERDICTS, "not verified") if counts[name])


def _names(checkpoints: Sequence[Checkpoint]) -> str:
    names = ", ".join(one.name for one in checkpoints[:MOST_NAMES])
    rest = len(checkpoints) - MOST_NAMES
    return f"{names} and {rest} more" if rest > 0 else names


def _unverified(models: Sequence[Model], options: str) -> Iterator[str]:
    """Name the runs of which the hub was not asked, and the one command that asks."""
    names = [model.name for model in models if model.unverified]
    if names:
        keys = sorted(
            {key for model in models if model.unverified for key in model.entry.get("unverified", ())}
        )
        listed = ", ".join(f"`{key}`" for key in keys)
        of_registry = f", and {listed} of their entries in the registry" if keys else ""
        command = " ".join(filter(None, ["lmshape lock", options]))
        yield (
            f"unverified  the checkpoints of {', '.join(names)}{of_registry}. `{command}` asks the hub, downloads no "
            "weights, and may change what `every` and `log` choose; run it before the study."
        )
