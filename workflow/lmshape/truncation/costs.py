"""What a truncation takes: operations, seconds, memory, and whether it is worth a GPU. Rates are those of `costs`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil, log2

from lmshape.planning.costs import (
    CORE_FLOPS,
    DISK_BYTES,
    GPU_FLOPS,
    GPU_SECONDS,
    GPU_THREADS,
    START_SECONDS,
    extraction_megabytes,
    parameters,
)
from lmshape.planning.models import Model
from lmshape.planning.plan import RATES, duration_text, forward_flops
from lmshape.planning.settings import PAPER_CHARACTERS, Extraction, Sampling, Truncating
from lmshape.planning.study import Study
from lmshape.truncation.moment_memory import MOMENT_BYTES, layer_bytes, layers_at_once
from lmshape.truncation.ranks import TOLERANCES, kept_ranks, removed_ranks

PAPER_WINDOW = PAPER_CHARACTERS // 128  # characters of a chunk, each a token at the very most
HALVINGS = 5  # ranks that a tolerance adds to the grid, on average
AXES = 4e-10  # core-seconds over d³: eigenvectors in float64
MOMENTS = 1.3e-10  # core-seconds over n d²


def measured_tokens(sampling: Sampling, truncating: Truncating) -> int:
    """Tokens that the loss is measured on."""
    if sampling.protocol == "paper":
        return min(sampling.draws * truncating.sequences * PAPER_WINDOW, sampling.most_tokens)
    sequences = min(truncating.sequences, sampling.sequences_per_draw)
    return sampling.draws * sequences * sampling.window


def choices_of(rows: Iterable[str]) -> int:
    """Choices of rows that are truncated."""
    return len({"all", "no_sink"} & set(rows)) or 1


def passes_of(width: int, *, kept: Sequence[int] | None = None, removed: Sequence[int] | None = None) -> int:
    """Estimate the ranks measured at a layer for a choice of rows: the two grids, and what makes least ranks exact."""
    grid = kept_ranks(width, kept)
    widest = max((after - before for before, after in zip(grid, grid[1:], strict=False)), default=1)
    halvings = ceil(log2(widest)) if widest > 1 else 0
    return len(grid) + len(removed_ranks(width, removed)) + min(HALVINGS, halvings) * len(TOLERANCES)


def truncation_flops(
    model: Model, sampling: Sampling, truncating: Truncating, *, rows: Iterable[str]
) -> float:
    """Floating-point operations of the truncation of a cell.

    At each layer, embedding included, as many passes as ranks for each choice of rows: the head, the projection of
    4 d² a token, and the blocks behind the layer, half of all on average. Beside that what axes are fitted on.
    """
    window = sampling.window if sampling.protocol == "windows" else PAPER_WINDOW
    head = 2 * model.vocabulary * model.width
    blocks = forward_flops(model, tokens=1, window=window) - head
    layers = model.blocks + 1
    tried = choices_of(rows) * passes_of(model.width, kept=truncating.ranks, removed=truncating.removed)
    at_every_layer = layers * (blocks / 2 + head + 4 * model.width**2)
    fitting = 1 + ceil(layers / layers_at_once(model.width, sampling.draws))
    fitted = fitting * sampling.most_tokens * blocks
    return tried * measured_tokens(sampling, truncating) * at_every_layer + fitted


def truncation_seconds(
    model: Model,
    sampling: Sampling,
    truncating: Truncating,
    *,
    rows: Iterable[str],
    threads: int,
    on_gpu: bool,
) -> float:
    """Seconds of the truncation of a cell: start, weights read, axes, passes."""
    rows = list(rows)
    flops = truncation_flops(model, sampling, truncating, rows=rows)
    passes = flops / (GPU_FLOPS if on_gpu else threads * CORE_FLOPS)
    axes = choices_of(rows) * sampling.draws * AXES * model.width**3
    moments = MOMENTS * sampling.most_tokens * model.width**2
    fitting = (model.blocks + 1) * (axes + moments) / threads
    return START_SECONDS + 4 * parameters(model) / DISK_BYTES + fitting + passes


def truncation_wants_gpu(
    model: Model, sampling: Sampling, truncating: Truncating, *, rows: Iterable[str]
) -> bool:
    """Whether a truncation is worth a GPU: over 5 minutes of passes on 8 cores."""
    flops = truncation_flops(model, sampling, truncating, rows=rows)
    return flops / (GPU_THREADS * CORE_FLOPS) > GPU_SECONDS


def truncation_megabytes(
    model: Model, sampling: Sampling, truncating: Truncating, extraction: Extraction, *, on_gpu: bool
) -> int:
    """Memory of a truncation: what an extraction takes, moments, axes of each draw, states behind one layer."""
    moments = max(MOMENT_BYTES, layer_bytes(model.width, sampling.draws))
    moments = min(moments, (model.blocks + 1) * layer_bytes(model.width, sampling.draws))
    axes = 16 * sampling.draws * model.width**2
    states = 12 * measured_tokens(sampling, truncating) * model.width
    return extraction_megabytes(model, extraction, on_gpu=on_gpu) + (moments + axes + states) // 10**6


def describe_truncations(study: Study) -> str:
    """Tell in one line what the truncations of a study take, beside its extractions; empty where there are none."""
    cells = [cell for model in study.models for cell in study.truncated(model)]
    if not cells:
        return ""
    flops = sum(
        truncation_flops(study.models[cell.model], study.sampling, study.truncating, rows=study.rows)
        for cell in cells
    )
    times = ", ".join(f"{duration_text(flops / rate)} on {name}" for name, rate in RATES.items())
    return f"truncation {len(cells)} cells, {flops:.2g} FLOPs beside: {times}"
