"""No tensor of a checkpoint is dropped without a word, and what is not part of the stream is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from extraction import extracted
from safetensors.torch import load_file, save_file
from tiny_models import ARCHITECTURES, make_tokens
from transformers import BertForPreTraining, BertForSequenceClassification, BertModel

from lmshape.errors import InputError

TOKENS = make_tokens([12] * 2)


def saved(folder: Path, name: str, *, extra: dict[str, torch.Tensor] | None = None, **config: object) -> Path:
    """A checkpoint whose config says something else, or whose file holds more."""
    ARCHITECTURES[name].build().save_pretrained(folder)
    told = json.loads((folder / "config.json").read_text())
    told.pop("layer_types", None)  # as long as the stack
    (folder / "config.json").write_text(json.dumps({**told, **config}))
    file = folder / "model.safetensors"
    save_file({**load_file(file), **(extra or {})}, file, metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(
    ("name", "config", "count", "first"),
    [
        ("qwen2", {"num_hidden_layers": 2}, 12, "model.layers.2.input_layernorm.weight"),
        ("gpt2", {"n_layer": 1}, 22, "transformer.h.1.attn.c_attn.weight"),
        (
            "qwen2",
            {"model_type": "llama", "architectures": ["LlamaForCausalLM"]},
            9,
            "model.layers.0.self_attn.k_proj.bias",
        ),
    ],
)
def test_a_config_of_another_network_is_refused(
    name: str, config: dict, count: int, first: str, tmp_path: Path
) -> None:
    folder = saved(tmp_path / "checkpoint", name, **config)
    with pytest.raises(InputError, match=rf"hold {count} tensors for which .* no place \(first: {first}\)"):
        extracted(folder, TOKENS, tmp_path)


def test_a_base_model_that_was_saved_alone_is_compared_too(tmp_path: Path) -> None:
    whole = ARCHITECTURES["bert"].build()
    BertModel(whole.config).save_pretrained(tmp_path / "checkpoint")
    config = tmp_path / "checkpoint" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "num_hidden_layers": 2}))
    with pytest.raises(
        InputError, match="hold 16 tensors for which its network, bert of 2 blocks, has no place"
    ):
        extracted(tmp_path / "checkpoint", TOKENS, tmp_path, kind="encoder")


MASKS = {
    "gpt2": ["transformer.h.0.attn.bias", "transformer.h.0.attn.masked_bias", "score.weight"],
    "gpt_neox": ["gpt_neox.layers.0.attention.bias", "gpt_neox.layers.0.attention.rotary_emb.inv_freq"],
    "llama": ["model.layers.0.self_attn.rotary_emb.inv_freq", "v_head.summary.weight"],
    "bert": ["bert.embeddings.position_ids", "bert.pooler.dense.weight", "classifier.weight"],
}


@pytest.mark.parametrize("name", MASKS)
def test_buffers_and_other_heads_are_no_part_of_the_stream(name: str, tmp_path: Path) -> None:
    kind = ARCHITECTURES[name].kind
    folder = saved(tmp_path / "checkpoint", name, extra={key: torch.ones(2) for key in MASKS[name]})
    ARCHITECTURES[name].build().save_pretrained(tmp_path / "plain")
    torch.testing.assert_close(
        *(extracted(one, TOKENS, tmp_path, kind=kind).rows for one in (folder, tmp_path / "plain"))
    )


@pytest.mark.parametrize("network", [BertForPreTraining, BertForSequenceClassification])
def test_heads_of_other_tasks_are_left_aside(network: type, tmp_path: Path) -> None:
    model = network(ARCHITECTURES["bert"].build().config).eval()
    model.save_pretrained(tmp_path / "checkpoint")
    rows = extracted(tmp_path / "checkpoint", TOKENS, tmp_path, kind="encoder").rows
    with torch.no_grad():
        states = model.bert(
            torch.as_tensor(TOKENS.ids.reshape(2, 12), dtype=torch.int64), output_hidden_states=True
        )
    expected = torch.stack(states.hidden_states).flatten(1, 2).numpy()
    torch.testing.assert_close(rows, expected, rtol=1e-5, atol=2e-6)


def test_an_adapter_beside_whole_weights_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = saved(tmp_path / "checkpoint", "llama")
    (folder / "adapter_model.safetensors").touch()
    extracted(folder, TOKENS, tmp_path)
    assert "adapter_model.safetensors is ignored; merge the adapter" in capsys.readouterr().err
