"""States and loss are transformers' own in the families that matter; benchmarks.architectures compares all."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2]))

from benchmarks.architectures import compared  # noqa: E402

DECODERS = (
    "cohere gemma2 gemma3_text gemma4_text gpt_bigcode gptj granite mpt olmoe phi phi3 qwen3 stablelm starcoder2"
).split()
ENCODERS = "camembert deberta-v2 distilbert electra ernie mpnet roberta-prelayernorm xlm-roberta".split()
FAMILIES = [*((name, "decoder") for name in DECODERS), *((name, "encoder") for name in ENCODERS)]


@pytest.mark.parametrize(("name", "kind"), FAMILIES)
def test_states_and_loss_are_transformers_own(name: str, kind: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert compared(name, kind) == "agrees"
