"""A decoder that sees later tokens has activations and no loss, and says why."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from extraction import extracted
from tiny_models import ARCHITECTURES, VOCABULARY, WIDTH, make_tokens
from transformers import Gemma3TextConfig, Gemma3TextModel, PreTrainedModel

from lmshape.checkpoints import Checkpoint
from lmshape.models.network import Network
from lmshape.models.opened import sees_ahead
from lmshape.models.residual import residual_stream
from lmshape.store.weights import reads_both_ways
from lmshape.study.models import read_facts

TOKENS = make_tokens([12] * 2)
IDS = torch.as_tensor(TOKENS.ids.reshape(2, 12), dtype=torch.int64)
AHEAD = "no next-token loss: rows change with later tokens, so that the network sees what it would predict"


def embedding_gemma() -> PreTrainedModel:
    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=40,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=12,
        max_position_embeddings=64,
        sliding_window=16,
        use_bidirectional_attention=True,
    )
    return Gemma3TextModel(config).eval()


def two_way_llama() -> PreTrainedModel:
    model = ARCHITECTURES["llama"].build()
    model.config.is_causal = False
    return model


@pytest.mark.parametrize("build", [embedding_gemma, two_way_llama])
@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_two_way_attention_has_activations_and_no_loss(build: object, kind: str, tmp_path: Path) -> None:
    build().save_pretrained(tmp_path / "checkpoint")
    found = extracted(tmp_path / "checkpoint", TOKENS, tmp_path, kind=kind, mask_token_id=None)
    base = type(build().base_model).from_pretrained(tmp_path / "checkpoint")
    with torch.no_grad():
        theirs = base(IDS, output_hidden_states=True).hidden_states
    for place in (0, 1, 2, -1):  # their last is behind the norm
        np.testing.assert_allclose(found.rows[place], theirs[place].flatten(0, 1), rtol=1e-5, atol=2e-6)
    assert np.isnan(found.nll).all()
    flag = (
        AHEAD
        if kind == "decoder"
        else f"no language-model head: `{found.attributes['architecture']}` has none"
    )
    assert found.card["attributes"]["flag"].startswith(flag)


def test_an_absent_head_is_told_before_anything_else(tmp_path: Path) -> None:
    two_way_llama().base_model.save_pretrained(tmp_path / "checkpoint")
    found = extracted(tmp_path / "checkpoint", TOKENS, tmp_path, kind="decoder", mask_token_id=None)
    assert found.card["attributes"]["flag"].startswith(
        "no language-model head: the checkpoint lacks 1 of its"
    )


def test_the_registry_takes_a_two_way_decoder_as_an_encoder(tmp_path: Path) -> None:
    two_way_llama().save_pretrained(tmp_path / "checkpoint")
    config = json.loads((tmp_path / "checkpoint" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"] and reads_both_ways(config)
    checkpoint = Checkpoint("final", -1, Path("checkpoint"))
    assert read_facts("m", [checkpoint], {"kind": "encoder"}, root=tmp_path)["architecture"] == "llama"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_decoders_and_encoders_are_told_apart(name: str, dtype: torch.dtype) -> None:
    model = ARCHITECTURES[name].build().to(dtype)
    stream = residual_stream(model, IDS[:1, :8])
    assert sees_ahead(Network(model, torch.device("cpu")), stream, IDS[:1, :8]) == (
        ARCHITECTURES[name].kind == "encoder"
    )
