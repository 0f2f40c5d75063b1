"""Costs of a job: seconds, memory and GPUs, from the shape of the model and the sampling.

The rates were measured, those of measuring as docs/cluster.md has them, and are rounded towards slow: a job that is
given too little is killed, one that is given too much waits a little longer. A second attempt asks for twice as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import ceil, isnan, log2, nan

from lmshape.metrics import skdim
from lmshape.metrics.registry import FINAL_FAMILY, OWN_FAMILY
from lmshape.models import Extraction
from lmshape.site import stored_bytes
from lmshape.study.models import Model
from lmshape.texts.tokens import PAPER_CHARACTERS, Sampling
from lmshape.training.recipe import Recipe
from lmshape.truncation.ranks import (
    MOMENT_BYTES,
    TOLERANCES,
    Truncating,
    kept_ranks,
    layer_bytes,
    layers_at_once,
    removed_ranks,
)

CORE_FLOPS = 1.5e10  # float32 matrix products a second and core, in a forward pass
GPU_FLOPS = 2e13  # bfloat16, a small share of what a data centre's GPU can do
DISK_BYTES = 2e8  # read or written a second, on a busy network file system
START_SECONDS = 20.0  # Python, PyTorch, transformers, from a network file system
MEASURING_START_SECONDS = 5.0  # without PyTorch
GPU_SECONDS = 300.0  # a forward pass that takes longer on `GPU_THREADS` cores is worth a GPU
GPU_THREADS = 8
SHARE_OF_ESTIMATE = 3  # time limit over estimate: shared nodes are slow, and a killed job is lost
LEAST_MINUTES = 10
BYTES_PER_PARAMETER = 2  # of most published checkpoints, where neither lock nor registry knows the size

# Core-seconds of a site in float64, 2 choices of rows (3 of neighbors, each with its Gaussian surrogate).
COVARIANCE = 1.3e-10  # n d²
EIGENVALUES = 1.3e-10  # d³, for all rows and without each draw
LEAST_SQUARES = 6.5e-10  # n d²
LENGTHS = 3e-8  # n d
PAIR = 2.4e-8  # of rows of a draw
PAIR_OF_WIDTH = 1.2e-11  # times d
PRINCIPAL_AXES = 1.2e-10  # d³, of each draw
COMPARED = 4e-10  # d, of each pair of rows of a draw
ON_GPU = frozenset({"spectral", "leading", "neighbor", "linearity"})  # the others are measured on CPUs
GPU_CORES = 32  # that a GPU stands for in float64: a guess, rounded towards slow; none was there to measure
OWN_VALUES = 1e-7  # n d: a guess: a user's own metric may do anything


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


def extraction_flops(model: Model, sampling: Sampling) -> float:
    """Floating-point operations of the forward passes of a cell."""
    # an encoder reads the text, then the masked text for its loss
    passes = 1 if model.kind == "decoder" else 2
    return passes * forward_flops(model, tokens=sampling.most_tokens, window=sampling.window)


def pass_seconds(flops: float, *, threads: int, on_gpu: bool) -> float:
    """Seconds of forward passes."""
    return flops / (GPU_FLOPS if on_gpu else threads * CORE_FLOPS)


def threads_of(model: Model) -> int:
    """Threads of its jobs: small matrices gain nothing from a second core, more cells at once do."""
    return 1 if model.width <= 512 else 8


def wants_gpu(flops: float) -> bool:
    """Whether forward passes are worth a GPU: over 5 minutes on 8 cores.

    An extraction of 25 600 tokens is from about a billion parameters on.
    """
    return pass_seconds(flops, threads=GPU_THREADS, on_gpu=False) > GPU_SECONDS


def gpus_that_hold(model: Model, extraction: Extraction, gigabytes: float) -> int:
    """GPUs of so much memory each that hold the weights, with a quarter for all else."""
    weights = weight_bytes(extraction, on_gpu=True) * parameters(model)
    return max(1, ceil(1.25 * weights / (gigabytes * 1e9)))


def weight_bytes(extraction: Extraction, *, on_gpu: bool) -> int:
    """Bytes of a weight: `auto` is bfloat16 on a GPU and float32 on the CPU."""
    wide = extraction.dtype == "float32" or (extraction.dtype == "auto" and not on_gpu)
    return 4 if wide else 2


def extraction_seconds(model: Model, sampling: Sampling, *, threads: int, on_gpu: bool) -> float:
    """Seconds of an extraction: start, weights read, forward passes, activations written."""
    moved = 4 * parameters(model) + activation_bytes(model, sampling.most_tokens)
    forward = pass_seconds(extraction_flops(model, sampling), threads=threads, on_gpu=on_gpu)
    return START_SECONDS + moved / DISK_BYTES + forward


def extraction_megabytes(model: Model, extraction: Extraction, *, on_gpu: bool) -> int:
    """Memory of an extraction.

    The weights, the logits of a batch with their log-softmax, two batches on their way to the disk, and 1.5 GB for
    Python and PyTorch. On a GPU the logits are there, and CUDA takes 3 GB here.
    """
    tokens = extraction.starting_tokens(vocabulary=model.vocabulary, on_gpu=on_gpu)
    written = 2 * 4 * tokens * model.width * (model.blocks + 2)
    weights = weight_bytes(extraction, on_gpu=on_gpu) * parameters(model)
    logits = 0 if on_gpu else 3 * 4 * tokens * model.vocabulary
    return (4500 if on_gpu else 1500) + (weights + logits + written) // 10**6


def held_bytes(model: Model, sampling: Sampling, extraction: Extraction, *, on_gpu: bool) -> int:
    """Bytes of activations that the one job of a cell holds in memory, in the model's number type; 0: it writes a file.

    Held are those that take no more than the forward passes, so that no job asks for more than twice as much.
    """
    number = weight_bytes(extraction, on_gpu=on_gpu)
    size = number * sampling.most_tokens * model.width * (model.blocks + 2)
    return size if size <= 10**6 * extraction_megabytes(model, extraction, on_gpu=on_gpu) else 0


@cache  # a large plan asks for the same blocks over and over
def measuring_seconds(
    width: int,
    sampling: Sampling,
    *,
    families: tuple[str, ...],
    rows: tuple[str, ...],
    sites: int,
    threads: int,
    metrics: tuple[str, ...] = (),
    on_gpu: bool = False,
) -> float:
    """Seconds of the measuring of a block of `sites` sites, of which each takes an equal time.

    `metrics` are those of the study: estimators of scikit-dimension take one core, each its own time. `on_gpu`: in the
    process of the forward passes, on their GPU.
    """
    n, d = sampling.most_tokens, width
    choices = len([name for name in rows if name != "one_per_type"]) / 2
    drawn = sampling.rows_per_draw if sampling.protocol == "windows" else n // sampling.draws
    searches = 2 * len(rows) * sampling.draws
    search = drawn**2 * (PAIR + PAIR_OF_WIDTH * d) + PRINCIPAL_AXES * d**3
    neighbors = searches * search
    compared = 2 * search + 2 * COMPARED * drawn**2 * d + LEAST_SQUARES * drawn * d**2
    estimators = len(rows) * sampling.draws * skdim.core_seconds(metrics, rows=drawn, width=d)
    core_seconds = {
        "spectral": choices * (COVARIANCE * n * d**2 + EIGENVALUES * (sampling.draws + 1) * d**3),
        "angular": choices * LENGTHS * n * d,
        "leading": choices * (COVARIANCE * n * d**2 + LENGTHS * n * d),
        "neighbor": neighbors,
        "linearity": choices * LEAST_SQUARES * n * d**2,
        **dict.fromkeys(("comparison", FINAL_FAMILY), 2 * choices * sampling.draws * compared),
        "released": neighbors / 4,
        "released_linearity": LEAST_SQUARES * n * d**2,
        "skdim": threads * estimators,
        OWN_FAMILY: choices * OWN_VALUES * n * d,
    }
    on_device = max(GPU_CORES, threads) if on_gpu else threads
    of_site = [core_seconds[name] / (on_device if name in ON_GPU else threads) for name in families]
    return MEASURING_START_SECONDS + sites * sum(of_site)


def measuring_megabytes(width: int, sampling: Sampling) -> int:
    """Memory of a measuring job: rows of a layer in float64 and their copies, covariances and deviates of each draw."""
    pieces = 2 * 2**26 // (4 * width)  # rows of the two pieces of 64 MiB that are read at a time, at most
    drawn = sampling.most_tokens // sampling.draws
    rows = 3 * min(sampling.most_tokens, pieces) + 4 * drawn + sampling.draws * sampling.rows_per_draw
    held = rows * width + 2 * (sampling.draws + 2) * width**2
    return 800 + 8 * held // 10**6


def weights_of(shape: Recipe | Model, vocabulary: int) -> int:
    """Parameters as the shape gives them: 12 L d² of the blocks, 2 V d outside."""
    return 12 * shape.blocks * shape.width**2 + 2 * vocabulary * shape.width


def parameters(model: Model) -> int:
    """Parameters as the registry has them, else as the shape gives them."""
    return model.parameters or weights_of(model, model.vocabulary)


def pretraining_seconds(recipe: Recipe, vocabulary: int) -> float:
    """Seconds of a pretraining run on one core: 6 operations a weight and token, small matrices being slow."""
    tokens = recipe.steps * recipe.sequences * recipe.window
    return START_SECONDS + 6 * tokens * weights_of(recipe, vocabulary) / (CORE_FLOPS / 2)


def pretraining_megabytes(recipe: Recipe, vocabulary: int) -> int:
    """Memory of a pretraining run: weights, gradients and AdamW's moments, the logits of a step, and PyTorch."""
    logits = 4 * recipe.sequences * recipe.window * vocabulary
    inside = 40 * recipe.sequences * recipe.window * recipe.width * recipe.blocks
    return 1500 + 4 * (4 * weights_of(recipe, vocabulary) + logits + inside) // 10**6


def checkpoint_bytes(model: Model, checkpoint: str) -> float:
    """Return the bytes of the weights that are downloaded for a checkpoint; NaN where they are unknown."""
    if not model.on_hub:
        return 0.0
    if model.lock is not None:
        found = model.lock.named(checkpoint)
        return nan if found is None else float(found.weights_bytes)
    guess = BYTES_PER_PARAMETER * model.parameters if model.parameters else nan
    return float(model.entry["gigabytes"] * 1e9 if "gigabytes" in model.entry else guess)


def checkpoint_megabytes(model: Model, checkpoint: str) -> int:
    """Say how large the weights of a published checkpoint are, in megabytes; 0 where it is unknown."""
    size = checkpoint_bytes(model, checkpoint)
    return 0 if isnan(size) else int(size / 10**6)


def minutes_for(seconds: float) -> int:
    """Time limit of a job that should take so long, in whole minutes: three times that, and at least ten."""
    return max(LEAST_MINUTES, ceil(SHARE_OF_ESTIMATE * seconds / 60))


HALVINGS = 5  # ranks that a tolerance adds to the grid, on average
EIGENVECTORS = 4e-10  # core-seconds over d³: eigenvectors in float64


def sequence_tokens(sampling: Sampling) -> int:
    """Tokens of a sequence, at most: the article's chunks have one a character at the very most."""
    return sampling.window if sampling.protocol == "windows" else PAPER_CHARACTERS


def measured_tokens(sampling: Sampling, truncating: Truncating) -> int:
    """Tokens that the loss is measured on, at most."""
    return min(sampling.draws * truncating.sequences * sequence_tokens(sampling), sampling.most_tokens)


def passes_of(width: int, *, kept: Sequence[int] | None = None, removed: Sequence[int] | None = None) -> int:
    """Estimate the ranks measured at a layer for a choice of rows: the two grids, and what makes least ranks exact."""
    grid = kept_ranks(width, kept)
    widest = max((after - before for before, after in zip(grid, grid[1:], strict=False)), default=1)
    halvings = ceil(log2(widest)) if widest > 1 else 0
    return len(grid) + len(removed_ranks(width, removed)) + min(HALVINGS, halvings) * len(TOLERANCES)


def truncation_flops(
    model: Model, sampling: Sampling, truncating: Truncating, *, rows: Sequence[str]
) -> float:
    """Floating-point operations of the truncation of a cell.

    At each layer, embedding included, as many passes as ranks for each of the choices `rows`: the head, the projection
    of 4 d² a token, and the blocks behind the layer, half of all on average. Beside that what axes are fitted on.
    """
    head = 2 * model.vocabulary * model.width
    blocks = forward_flops(model, tokens=1, window=sequence_tokens(sampling)) - head
    layers = model.blocks + 1
    tried = len(rows) * passes_of(model.width, kept=truncating.ranks, removed=truncating.removed)
    at_every_layer = layers * (blocks / 2 + head + 4 * model.width**2)
    fitting = 1 + ceil(layers / layers_at_once(model.width, sampling.draws))
    fitted = fitting * sampling.most_tokens * blocks
    return tried * measured_tokens(sampling, truncating) * at_every_layer + fitted


def truncation_seconds(
    model: Model,
    sampling: Sampling,
    truncating: Truncating,
    *,
    rows: Sequence[str],
    threads: int,
    on_gpu: bool,
) -> float:
    """Seconds of the truncation of a cell: start, weights read, axes, passes."""
    flops = truncation_flops(model, sampling, truncating, rows=rows)
    passes = pass_seconds(flops, threads=threads, on_gpu=on_gpu)
    axes = len(rows) * sampling.draws * EIGENVECTORS * model.width**3
    moments = COVARIANCE * sampling.most_tokens * model.width**2
    fitting = (model.blocks + 1) * (axes + moments) / threads
    return START_SECONDS + 4 * parameters(model) / DISK_BYTES + fitting + passes


def truncation_megabytes(
    model: Model, sampling: Sampling, truncating: Truncating, extraction: Extraction, *, on_gpu: bool
) -> int:
    """Memory of a truncation: what an extraction takes, moments, axes of each draw, states behind one layer."""
    moments = max(MOMENT_BYTES, layer_bytes(model.width, sampling.draws))
    moments = min(moments, (model.blocks + 1) * layer_bytes(model.width, sampling.draws))
    axes = 16 * sampling.draws * model.width**2
    states = 12 * measured_tokens(sampling, truncating) * model.width
    return extraction_megabytes(model, extraction, on_gpu=on_gpu) + (moments + axes + states) // 10**6
