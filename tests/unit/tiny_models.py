"""Networks of real architectures with random weights, small enough to be made anew for every test run."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter

import numpy as np
import torch
import transformers
from transformers import PreTrainedModel

from lmshape.store.tokens import Tokens

VOCABULARY, WIDTH, BLOCKS, WINDOW, MASK_TOKEN = 61, 24, 3, 32, 60

_COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 2,
}
_INNER = {**_COMMON, "intermediate_size": 40, "max_position_embeddings": WINDOW}
# transformers sets these to ids of its default vocabularies, which are larger
_IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


@dataclass(frozen=True)
class Architecture:
    """A network, and by hand: where its blocks are, in which order they run, and its final norm, if it has one."""

    model: str
    config: dict[str, object]
    blocks: str
    norm: str | None = None
    kind: str = "decoder"
    order: tuple[int, ...] = tuple(range(BLOCKS))

    def build(self, seed: int = 0) -> PreTrainedModel:
        torch.manual_seed(seed)
        network = getattr(transformers, self.model)
        model = network(network.config_class(**{**_IDS, **self.config})).eval()
        with torch.no_grad():
            for (
                parameter
            ) in model.parameters():  # biases and norms would start at 0 and 1: nothing to get wrong
                parameter.add_(torch.randn_like(parameter) * 0.1)
        return model

    def blocks_of(self, model: PreTrainedModel) -> list[torch.nn.Module]:
        listed = attrgetter(self.blocks)(model)
        return [listed[place] for place in self.order]

    def norm_of(self, model: PreTrainedModel) -> torch.nn.Module | None:
        return attrgetter(self.norm)(model) if self.norm else None


_GROUPED = {**_INNER, "num_key_value_heads": 1}
_OPT = {**_COMMON, "ffn_dim": 40, "max_position_embeddings": WINDOW}

ARCHITECTURES = {
    "gpt_neox": Architecture("GPTNeoXForCausalLM", _INNER, "gpt_neox.layers", "gpt_neox.final_layer_norm"),
    "gpt2": Architecture(
        "GPT2LMHeadModel",
        {"vocab_size": VOCABULARY, "n_embd": WIDTH, "n_layer": BLOCKS, "n_head": 2, "n_positions": WINDOW},
        "transformer.h",
        "transformer.ln_f",
    ),
    "opt": Architecture(
        "OPTForCausalLM",
        {**_OPT, "word_embed_proj_dim": WIDTH},
        "model.decoder.layers",
        "model.decoder.final_layer_norm",
    ),
    # OPT-350m: norms after the layers, and a projection, which is not a norm, behind the last one
    "opt_projected": Architecture(
        "OPTForCausalLM",
        {**_OPT, "word_embed_proj_dim": 12, "do_layer_norm_before": False},
        "model.decoder.layers",
    ),
    "bloom": Architecture(
        "BloomForCausalLM",
        {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "n_layer": BLOCKS, "n_head": 2},
        "transformer.h",
        "transformer.ln_f",
    ),
    "bert": Architecture("BertForMaskedLM", _INNER, "bert.encoder.layer", kind="encoder"),
    # RoBERTa's position table keeps its first two rows free
    "roberta": Architecture(
        "RobertaForMaskedLM",
        {**_INNER, "max_position_embeddings": WINDOW + 2, "bos_token_id": 0, "pad_token_id": 1},
        "roberta.encoder.layer",
        kind="encoder",
    ),
    # two blocks for three layers, and an embedding that is narrower than the residual stream
    "albert": Architecture(
        "AlbertForMaskedLM",
        {**_INNER, "embedding_size": 8, "num_hidden_groups": 2},
        "albert.encoder.albert_layer_groups",
        kind="encoder",
        order=(0, 0, 1),
    ),
    "albert_shared": Architecture(
        "AlbertForMaskedLM",
        {**_INNER, "embedding_size": 8},
        "albert.encoder.albert_layer_groups",
        kind="encoder",
        order=(0, 0, 0),
    ),
    "modernbert": Architecture(
        "ModernBertForMaskedLM", _INNER, "model.layers", "model.final_norm", kind="encoder"
    ),
    "modernbert_decoder": Architecture(
        "ModernBertDecoderForCausalLM", _INNER, "model.layers", "model.final_norm"
    ),
    **{
        name: Architecture(model, _GROUPED, "model.layers", "model.norm")
        for name, model in {
            "llama": "LlamaForCausalLM",
            "mistral": "MistralForCausalLM",
            "olmo": "OlmoForCausalLM",  # norms without weights
            "olmo2": "Olmo2ForCausalLM",  # norms after attention and MLP
            "olmo3": "Olmo3ForCausalLM",
            "qwen2": "Qwen2ForCausalLM",
            "gemma": "GemmaForCausalLM",  # embeddings are scaled before the first block
            "smollm3": "SmolLM3ForCausalLM",
        }.items()
    },
}


def make_tokens(lengths: list[int], *, draws: int = 2, seed: int = 0, specials: bool = False) -> Tokens:
    """Random ordinary tokens (no pad, no mask) of 3 bytes each; sequence s of S is in draw s·draws/S."""
    n, count = sum(lengths), len(lengths)
    position = np.concatenate([np.arange(length) for length in lengths], dtype=np.int32)
    special = (position == 0) & specials
    ids = np.random.default_rng(seed).integers(3, MASK_TOKEN, n).astype(np.int32)
    return Tokens(
        ids=np.where(special, 2, ids).astype(np.int32),
        sequence=np.repeat(np.arange(count), lengths).astype(np.int32),
        position=position,
        draw=np.repeat(np.arange(count) * draws // count, lengths).astype(np.int32),
        special=special,
        sequence_bytes=np.array([3 * (length - 1) for length in lengths], dtype=np.int32),
        attributes={
            "tokenizer_sha256": "tokenizer",
            "text_sha256": "text",
            "special_tokens": '{"prefix": [], "suffix": []}',
            "sampling": "{}",
            "seed": 0,
        },
    )


CELL = {
    "model": "tiny",
    "checkpoint": "step3",
    "dataset": "wiki",
    "repository": "somewhere",
    "revision": "step3",
    "commit": "",
    "step": 3,
    "tokens_seen": 6144.0,
}


def hidden_states(model: PreTrainedModel, architecture: Architecture, ids: torch.Tensor) -> list[np.ndarray]:
    """Input of the first block, output of each and of the norm, by hooks on the modules named by hand."""
    states: list[torch.Tensor] = []

    def keep(module: torch.nn.Module, args: tuple, output: object) -> None:
        states.append((output[0] if isinstance(output, tuple) else output).clone())

    def keep_input(module: torch.nn.Module, args: tuple, kwargs: dict) -> None:
        if not states:  # a shared block is called again
            states.append((args[0] if args else kwargs["hidden_states"]).clone())

    blocks, norm = architecture.blocks_of(model), architecture.norm_of(model)
    handles = [blocks[0].register_forward_pre_hook(keep_input, with_kwargs=True)]
    distinct = dict.fromkeys([*blocks, *([norm] if norm else [])])
    handles += [module.register_forward_hook(keep) for module in distinct]
    with torch.no_grad():
        model(ids)
    for handle in handles:
        handle.remove()
    return [state.reshape(-1, state.shape[-1]).numpy() for state in states]
