"""What a truncation takes: operations against counts of torch, and what jobs ask for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_costs import EXTRACTION, SAMPLING, pythia
from test_plan import model_of
from tiny_models import make_tokens
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from lmshape.jobs.plan import describe_truncations
from lmshape.models.network import Network
from lmshape.models.residual import residual_stream
from lmshape.study.costs import (
    measured_tokens,
    passes_of,
    truncation_flops,
    truncation_megabytes,
    truncation_seconds,
    wants_gpu,
)
from lmshape.study.registry import REPOSITORY
from lmshape.study.study import study_of
from lmshape.texts.tokens import Sampling
from lmshape.truncation.ranks import (
    Truncating,
    kept_ranks,
    layer_bytes,
    layers_at_once,
    next_rank,
    removed_ranks,
)
from lmshape.truncation.truncate import LayerReader, Trial, truncations

TRUNCATING = Truncating(checkpoints="last", datasets="first", sequences=2, ranks=None, removed=None)
ROWS = ["all", "no_sink"]


def test_operations_are_those_that_torch_counts() -> None:
    shape = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 256}
    torch.manual_seed(0)
    model = GPTNeoXForCausalLM(GPTNeoXConfig(**shape, vocab_size=61, attn_implementation="eager")).eval()
    tokens = make_tokens([32] * 16, draws=4)
    stream = residual_stream(model, torch.arange(3, 9)[None])
    network = Network(model, torch.device("cpu"))
    trial = Trial(rows=["all"], sequences=2)
    with FlopCounterMode(display=False) as counter:
        found = truncations(LayerReader(network, stream, tokens, 1000), trial)
    sampling = Sampling(protocol="windows", window=32, draws=4, rows_per_draw=102, seed=0)
    assert sampling.most_tokens == len(tokens.ids)
    shape = replace(model_of(blocks=4, width=64), vocabulary=61)
    estimated = truncation_flops(shape, sampling, TRUNCATING, rows=["all"])
    tried = len(found.measured) / 5  # what a random network needs is not what a trained one does
    assert estimated * tried / passes_of(64) == pytest.approx(counter.get_total_flops(), rel=0.35)


def test_tokens_that_are_measured() -> None:
    assert measured_tokens(SAMPLING, TRUNCATING) == 5 * 2 * 512
    assert measured_tokens(SAMPLING, replace(TRUNCATING, sequences=1000)) == SAMPLING.most_tokens
    paper = replace(SAMPLING, protocol="paper")
    assert measured_tokens(paper, TRUNCATING) == 5 * 2 * 512
    assert measured_tokens(paper, replace(TRUNCATING, sequences=1000)) == paper.most_tokens


def test_more_work_takes_longer_and_large_models_want_a_gpu() -> None:
    options = {"rows": ROWS, "threads": 8, "on_gpu": False}
    sizes = ["14m", "160m", "410m", "1b", "2.8b", "12b"]
    seconds = [truncation_seconds(pythia(size), SAMPLING, TRUNCATING, **options) for size in sizes]
    assert seconds == sorted(seconds)
    few = replace(TRUNCATING, ranks=(8, 64), removed=(1,))
    assert truncation_seconds(pythia("1b"), SAMPLING, few, **options) < seconds[3]
    one = truncation_seconds(pythia("1b"), SAMPLING, TRUNCATING, **{**options, "rows": ["all"]})
    assert one == pytest.approx(seconds[3] / 2, rel=0.05)
    work = [truncation_flops(pythia(size), SAMPLING, TRUNCATING, rows=ROWS) for size in sizes]
    assert all(map(wants_gpu, work))  # 25 times the passes of an extraction
    small = Sampling(protocol="windows", window=128, draws=5, rows_per_draw=1024, seed=0)
    embedded = replace(model_of(blocks=6, width=128), vocabulary=2048)
    assert not wants_gpu(truncation_flops(embedded, small, TRUNCATING, rows=ROWS))


def test_moments_are_bounded() -> None:
    assert layers_at_once(128, 5) > 500
    assert (layers_at_once(2048, 5), layers_at_once(8192, 5)) == (3, 1)
    megabytes = [
        truncation_megabytes(pythia(size), SAMPLING, TRUNCATING, EXTRACTION, on_gpu=True)
        for size in ("1b", "12b")
    ]
    weights = [2 * 1.01e3, 2 * 11.8e3]
    assert all(most > weight + 1000 for most, weight in zip(megabytes, weights, strict=True))
    assert megabytes[1] > layer_bytes(5120, 5) / 1e6 + weights[1]


def test_the_line_of_the_plan(tmp_path: Path) -> None:
    study = study_of(REPOSITORY / "config/config.yaml", tmp_path)
    assert [cell.model for model in study.models for cell in study.truncated(model)] == ["wiki-decoder"]
    assert describe_truncations(study).startswith("truncation 1 cell, 1.3e+12 FLOPs beside: ")
    assert describe_truncations(replace(study, truncating=None)) == ""


def test_the_estimate_of_the_work_is_not_far_off() -> None:
    generator = np.random.default_rng(3)
    for width in (128, 768, 2048):
        curve = np.append(np.sort(generator.exponential(1, width) ** 4)[::-1], 0.0)
        measured = {rank: curve[rank] for rank in kept_ranks(width)}
        while (rank := next_rank(measured)) is not None:
            measured[rank] = curve[rank]
        tried = len(measured) + len(removed_ranks(width))
        assert 0.6 * tried <= passes_of(width) <= 1.6 * tried, (width, tried)
