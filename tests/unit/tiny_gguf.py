"""A tiny Llama as llama.cpp's converter writes it, with a byte-level tokenizer in the same file."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
from tiny_models import ARCHITECTURES, BLOCKS, VOCABULARY, WIDTH, WINDOW
from torch import Tensor
from transformers import PreTrainedModel

TOKENS = [
    *(chr(ord("!") + place) for place in range(VOCABULARY - 2)),
    "AB",
    "a",
]  # "!" to "[", a merge, and "a"
BOS = 1

_OF_BLOCK = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


def llama() -> PreTrainedModel:
    """The model whose weights `write_gguf` writes."""
    return ARCHITECTURES["llama"].build()


def write_gguf(path: Path) -> Path:
    model = llama()
    config, weights = model.config, model.state_dict()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_block_count(BLOCKS)
    writer.add_embedding_length(WIDTH)
    writer.add_context_length(WINDOW)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(WIDTH // config.num_attention_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([gguf.TokenType.NORMAL] * VOCABULARY)
    writer.add_token_merges(["A B"])
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(2)
    add(writer, "token_embd", weights["model.embed_tokens.weight"])
    add(writer, "output_norm", weights["model.norm.weight"])
    add(writer, "output", weights["lm_head.weight"])
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for block in range(BLOCKS):
        for name, module in _OF_BLOCK.items():
            tensor = weights[f"model.layers.{block}.{module}.weight"]
            add(writer, f"blk.{block}.{name}", paired(tensor, heads[name]) if name in heads else tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add(writer: gguf.GGUFWriter, name: str, tensor: Tensor) -> None:
    writer.add_tensor(f"{name}.weight", tensor.numpy().astype(np.float32))


def paired(tensor: Tensor, heads: int) -> Tensor:
    """llama.cpp rotates neighboring entries of a head, transformers the two halves."""
    return tensor.reshape(heads, 2, -1, tensor.shape[-1]).swapaxes(1, 2).reshape(tensor.shape).contiguous()
