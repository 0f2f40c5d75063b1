"""The plan of a study: downloads, disk, floating-point operations, jobs, and verdicts on its checkpoints."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from pathlib import Path

from lmshape.checkpoints import Checkpoint
from lmshape.errors import InputError
from lmshape.hub.integrity import AUDIT_VERDICTS, corrections
from lmshape.hub.lock import Lock
from lmshape.progress import gigabytes_above, size_text
from lmshape.site import stored_bytes
from lmshape.store.tokens import LEAST_UNSPELLED
from lmshape.study.models import Model
from lmshape.study.registry import REPOSITORY, find_file
from lmshape.study.study import Study
from lmshape.texts.corpus import read_text
from lmshape.texts.tokenizer import TextTokenizer, load_tokenizer, tokenizer_files

BYTES_PER_PARAMETER = 2  # of most published checkpoints, where neither lock nor registry knows the size
MOST_LISTED = 8  # of a list of checkpoints
# For a rough idea of the time; the docs say what was measured.
RATES = {"a GPU that reaches 100 TFLOP/s": 1e14}

_JOB_STATISTICS = re.compile(r"^(\w+)\s+(\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPlan:
    """The cost of one model.

    Attributes
    ----------
    model : name
    checkpoints, cells : how many
    download_bytes : of all its checkpoints, 0 for a local run; NaN where it is unknown
    checkpoint_bytes : of the largest of them
    tokens : read in all its cells together
    forward_flops : floating-point operations of the forward passes
    activation_bytes : of the activations of all its cells
    """

    model: str
    checkpoints: int
    cells: int
    download_bytes: float
    checkpoint_bytes: float
    tokens: int
    forward_flops: float
    activation_bytes: int


def plan_of(study: Study) -> list[ModelPlan]:
    """Plan every model of a study, from its lock, if there is one, else from the registry."""
    return [_plan_model(model, study) for model in study.models.values()]


def activation_bytes(model: Model, tokens: int) -> int:
    """Size of the activation file of `tokens` tokens, at most: embedding, blocks and final norm in float32."""
    types = min(tokens, model.vocabulary)
    return stored_bytes(tokens, model.width, sites=model.blocks + 2, types=types)


def forward_flops(model: Model, *, tokens: int, window: int) -> float:
    """Floating-point operations of one pass over `tokens` tokens in sequences of `window`.

    Two for each weight that multiplies an activation: 12 L d² of the blocks and V d of the head; and 4 L d for each
    pair of tokens that attends, of which a causal decoder has half (Kaplan et al. 2020, section 2.1).
    """
    blocks = 12 * model.blocks * model.width**2
    head = model.vocabulary * model.width
    seen = window / 2 if model.kind == "decoder" else window
    return tokens * (2 * (blocks + head) + 4 * model.blocks * model.width * seen)


def disk_peak(plans: Iterable[ModelPlan], study: Study) -> tuple[float, str]:
    """Most bytes of downloaded weights at any moment, and what it rests on."""
    plans = list(plans)
    largest = _largest(one.checkpoint_bytes for one in plans)
    if study.disk_budget_bytes is not None and not study.keep_weights:
        return study.disk_budget_bytes, f"`disk_budget_gb`; it must be at least {_bound(largest)}"
    whole = sum(one.download_bytes for one in plans)
    if study.keep_weights:
        return whole, "all weights, which are kept"
    return whole, f"at most, without `disk_budget_gb`; with it, {_bound(largest)} would do"


def describe_activations(plans: Iterable[ModelPlan], study: Study) -> str:
    """Tell what activations take: they stay in results/, or pass through the scratch of the job of their cell."""
    if study.keep_activations:
        return f"{size_text(sum(one.activation_bytes for one in plans))} that stay in results/"
    of_cells = [activation_bytes(study.models[one.model], study.sampling.most_tokens) for one in plans]
    return f"none stay; a job takes up to {size_text(max(of_cells, default=0))} of scratch while it measures"


def describe_spelling(study: Study, root: Path) -> str:
    """Tell which texts of this machine do not suit the tokenizer of a model of this machine."""
    lines = []
    for name, model in study.models.items():
        texts = filter(None, map(study.text_of, study.datasets_of[name]))
        plain = {text.name: text.plain_path for text in texts if text.plain_path}
        if plain and tokenizer_files(root / model.tokenizer):
            reader = TextTokenizer.of(load_tokenizer(root / model.tokenizer, remote_code=model.remote_code))
            shares = {one: reader.unspelled(read_text(root / path)) for one, path in plain.items()}
            lines += [
                f"text       `{one}` does not suit the tokenizer of `{name}`: {share:.1%} of its bytes have no token"
                for one, share in shares.items()
                if share > LEAST_UNSPELLED
            ]
    return "\n".join(lines)


def planned_jobs(configfile: Path, root: Path) -> dict[str, int]:
    """Count the jobs that are still to run, by rule, as Snakemake itself plans them.

    Raises
    ------
    InputError
        When Snakemake cannot plan the study; its words follow.
    """
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile"), "--dry-run"]
    config = find_file(
        configfile, root=Path.cwd()
    )  # relative to here, as Snakemake has it, and not to the study
    command += ["--quiet", "rules", "--configfile", str(config), "--directory", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"Snakemake cannot plan `{configfile}`:\n{done.stdout}{done.stderr}")
    table = (done.stdout + done.stderr).partition("Job stats:")[2].partition("total")[0]
    return {rule: int(count) for rule, count in _JOB_STATISTICS.findall(table)}


def describe_plan(plans: Sequence[ModelPlan], study: Study, jobs: Mapping[str, int]) -> str:
    """Tell the plan as a table and a few lines."""
    lines = [_line("model", "checkpoints", "cells", "download", "activations", "tokens", "forward FLOPs")]
    lines += [
        _line(
            one.model,
            f"{one.checkpoints}",
            f"{one.cells}",
            _size(one.download_bytes),
            size_text(one.activation_bytes),
            f"{one.tokens:,}",
            f"{one.forward_flops:.2g}",
        )
        for one in plans
    ]
    peak, why = disk_peak(plans, study)
    flops = sum(one.forward_flops for one in plans)
    times = ", ".join(f"{duration_text(flops / rate)} on {name}" for name, rate in RATES.items())
    lines += [
        "",
        f"download   {_download(plans)}",
        f"disk peak  {_size(peak)} of weights ({why})",
        f"activations {describe_activations(plans, study)}",
        f"forward    {flops:.2g} FLOPs: {times}",
        f"jobs       {sum(jobs.values())} still to run: "
        + (", ".join(f"{count} {rule}" for rule, count in jobs.items()) or "none"),
    ]
    return "\n".join(lines)


def _plan_model(model: Model, study: Study) -> ModelPlan:
    datasets = study.datasets_of[model.name]
    tokens = study.sampling.most_tokens
    cells = len(model.measured) * len(datasets)
    sizes = _checkpoint_sizes(model)
    flops = forward_flops(model, tokens=tokens, window=study.sampling.window)
    return ModelPlan(
        model=model.name,
        checkpoints=len(model.checkpoints),
        cells=cells,
        download_bytes=sum(sizes),
        checkpoint_bytes=_largest(sizes),
        tokens=cells * tokens,
        forward_flops=cells * model.passes * flops,
        activation_bytes=cells * activation_bytes(model, tokens),
    )


def _checkpoint_sizes(model: Model) -> list[float]:
    if not model.on_hub:
        return [0.0 for _ in model.measured]
    if model.lock is not None:
        return [_locked_bytes(model.lock, name) for name in model.measured]
    size = model.entry["gigabytes"] * 1e9 if "gigabytes" in model.entry else nan
    if isnan(size) and model.parameters:
        size = float(BYTES_PER_PARAMETER * model.parameters)
    return [size for _ in model.measured]


def _locked_bytes(lock: Lock, checkpoint: str) -> float:
    found = lock.named(checkpoint)
    return nan if found is None else float(found.weights_bytes)


def checkpoint_megabytes(model: Model, checkpoint: str) -> int:
    """Say how large the weights of a published checkpoint are, in megabytes; 0 where it is unknown."""
    size = dict(zip(model.measured, _checkpoint_sizes(model), strict=True))[checkpoint]
    return 0 if isnan(size) else int(size / 10**6)


def _largest(sizes: Iterable[float]) -> float:
    """Take the largest, NaN if any is unknown: `max` would forget it or not, as it comes."""
    sizes = list(sizes)
    return nan if any(map(isnan, sizes)) else max(sizes, default=0)


def _size(size: float) -> str:
    return "unknown" if isnan(size) else size_text(size)


def _bound(size: float) -> str:
    return "unknown" if isnan(size) else f"{gigabytes_above(size)} GB"


def _download(plans: Iterable[ModelPlan]) -> str:
    known = [one.download_bytes for one in plans if not isnan(one.download_bytes)]
    unknown = [one.model for one in plans if isnan(one.download_bytes)]
    rest = f" and that of {', '.join(unknown)}, whose size is unknown" if unknown else ""
    return size_text(sum(known)) + rest


def duration_text(seconds: float) -> str:
    """Write a duration in the largest unit of which there are two."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 1):.0f} s"


def _line(*cells: str) -> str:
    first, *others = cells
    widths = (11, 6, 10, 12, 14, 14)
    return f"{first:<24}" + "".join(f" {cell:>{width}}" for cell, width in zip(others, widths, strict=True))


def describe_verdicts(study: Study, *options: str) -> str:
    """List the verdicts on the checkpoints of each published run, the skipped ones, and unverified facts.

    Parameters
    ----------
    study : the study
    options : of the command line, which the command that verifies repeats
    """
    models = [model for model in study.models.values() if model.on_hub]
    lines = [line for model in models for line in _verdicts_on(model)]
    return "\n".join([*lines, *_not_verified(models, " ".join(options))])


def _verdicts_on(model: Model) -> Iterator[str]:
    from lmshape.hub.client import gate  # imports the hub's client

    if told := gate(model.entry):
        yield f"gate       {model.name}: {told}"
    everyone = [*model.checkpoints.values(), *model.passed_over]
    if any(one.verdict for one in everyone):
        yield f"verdicts   {model.name}: of the {len(model.checkpoints)} chosen {_sums(model.checkpoints.values())}"
    if model.passed_over:
        yield (
            f"           {len(model.passed_over)} were skipped, {_sums(model.passed_over)}: "
            f"{_listed(model.passed_over)}"
        )
    if model.same:
        equal = [f"{', '.join(one.name for one in others)} as {name}" for name, others in model.same.items()]
        yield f"equal      {model.name}: downloaded and measured once, {'; '.join(equal)}"
    for correction in corrections(model.lock) if model.lock else ():
        yield f"registry   {model.name}: {correction}"


def _sums(checkpoints: Iterable[Checkpoint]) -> str:
    counts = Counter(one.verdict or "not verified" for one in checkpoints)
    return ", ".join(f"{counts[name]} {name}" for name in (*AUDIT_VERDICTS, "not verified") if counts[name])


def _listed(checkpoints: Sequence[Checkpoint]) -> str:
    names = ", ".join(one.name for one in checkpoints[:MOST_LISTED])
    rest = len(checkpoints) - MOST_LISTED
    return f"{names} and {rest} more" if rest > 0 else names


def _not_verified(models: Sequence[Model], options: str) -> Iterator[str]:
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
