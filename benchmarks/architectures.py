"""Compare the residual stream and the loss with transformers' own in every architecture.

Each is built at a tiny random size from the defaults of its configuration class: `python -m benchmarks.architectures`
writes docs/architectures.md in two minutes.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)
from transformers.utils import logging

from lmshape.errors import InputError, first_line
from lmshape.models.extract import next_token_nll
from lmshape.models.network import Network
from lmshape.models.opened import sees_ahead
from lmshape.models.residual import ResidualStream, residual_stream, run

PAGE = Path(__file__).parents[1] / "docs" / "architectures.md"
LAYERS, VOCABULARY, TOKENS = 3, 96, 8
MOST_PARAMETERS = 20_000_000
SIZES: dict[str, Any] = {
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), LAYERS),
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "dim", "embedding_size", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "num_key_value_heads"), 4),
    **dict.fromkeys(
        ("intermediate_size", "ffn_dim", "hidden_dim", "n_inner", "moe_intermediate_size", "d_ff"), 48
    ),
    **dict.fromkeys(("head_dim", "v_head_dim", "d_kv", "attention_head_size"), 8),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx"), 64),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "n_group", "topk_group", "n_shared_experts"), 1),
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 1),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 16),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "rotary_dim"), 8),
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), VOCABULARY),
    "type_vocab_size": 2,
}
KINDS = {
    "decoder": (MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, AutoModelForCausalLM),
    "encoder": (MODEL_FOR_MASKED_LM_MAPPING_NAMES, AutoModelForMaskedLM),
}


def tiny(name: str, kind: str) -> PreTrainedModel:
    """Build an architecture at a tiny random size."""
    config_class = CONFIG_MAPPING[name]
    known = config_class().get_text_config()
    known.allow_global_per_layer_attribute_access = True  # only to see which sizes there are
    sizes = {key: value for key, value in SIZES.items() if getattr(known, key, None) is not None}
    composite = getattr(config_class, "sub_configs", None) and known.model_type != name
    config = type(known)(**sizes) if composite else config_class(**sizes)
    config.use_cache = False
    with torch.device("meta"):
        parameters = KINDS[kind][1].from_config(config).num_parameters()
    if parameters > MOST_PARAMETERS:
        raise ValueError(f"{parameters / 1e6:.0f} million parameters")
    torch.manual_seed(0)
    return KINDS[kind][1].from_config(config).eval()


@torch.no_grad()
def compared(name: str, kind: str) -> str:
    """Return `agrees`, or what differs or hinders."""
    try:
        model = tiny(name, kind)
    except Exception as error:
        return f"not built at this size: {first_line(error)}"
    ids = torch.randint(2, VOCABULARY, (2, TOKENS), generator=torch.Generator().manual_seed(0))
    try:
        stream = residual_stream(model, ids[:1])
    except InputError as error:
        return f"refused: {error}"
    except Exception as error:
        return f"no pass of text alone: {first_line(error)}"
    try:
        return _differing(model, stream, ids, kind) or "agrees"
    except Exception as error:
        return f"not compared: {first_line(error)}"


def _differing(model: PreTrainedModel, stream: ResidualStream, ids: torch.Tensor, kind: str) -> str:
    """Say what differs from transformers' own; empty where nothing does."""
    found: list[torch.Tensor] = []
    with stream.observed(lambda site, hidden: found.append(hidden.clone())):
        logits = run(model, ids).logits
    told = model(input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True)
    theirs = getattr(told, "hidden_states", None)
    if theirs is None or len(theirs) != len(stream.blocks) + 1:
        return "transformers gives no hidden state of each block"
    places = [*range(len(stream.blocks)), *([-1] if stream.normed else [])]
    worst = max(float((found[place] - theirs[place]).abs().max()) for place in places)
    behind = max(float((one - other).abs().max()) for one, other in zip(found[1:-1], theirs, strict=False))
    if worst > 1e-4 and behind < 1e-4:
        return "states agree; transformers' begin behind the first block"
    if worst > 1e-4:
        return f"differs by {worst:.1e}"
    if kind == "encoder":
        return ""
    if sees_ahead(Network(model, torch.device("cpu")), stream, ids[:1]):
        return "states agree; no loss, since rows change with later tokens"
    loss = float(model(input_ids=ids, labels=ids).loss)
    own = float(next_token_nll(logits, ids)[:, 1:].mean())
    return "" if abs(loss - own) < 1e-4 * abs(loss) else f"loss {own:.4f}, transformers' {loss:.4f}"


def rows() -> Iterator[tuple[str, str, str]]:
    """Yield kind, name and result of every architecture."""
    for kind, (names, _) in KINDS.items():
        for name in sorted(names):
            if name in CONFIG_MAPPING:
                yield kind, name, compared(name, kind)
                print(kind, name, file=sys.stderr, flush=True)


def page(found: list[tuple[str, str, str]]) -> str:
    """Return the page."""
    import transformers

    lines = [
        "# Architectures",
        "",
        "The stream is found by watching a hidden state pass, and no architecture is known by name. This page says in",
        "which of them states and loss are those of transformers' own `output_hidden_states` and `labels`, at tiny",
        f"random sizes, with transformers {transformers.__version__}. Written by `python -m benchmarks.architectures`.",
    ]
    for kind in KINDS:
        own = [(name, said) for of, name, said in found if of == kind]
        agreeing = [name for name, said in own if said == "agrees"]
        lines += ["", f"## {kind.capitalize()}s: {len(agreeing)} of {len(own)} agree", ""]
        lines += [", ".join(f"`{name}`" for name in agreeing) + ".", "", "| other | why |", "|---|---|"]
        lines += [f"| `{name}` | {said.replace('|', '/')[:160]} |" for name, said in own if said != "agrees"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    PAGE.write_text(page(list(rows())))
