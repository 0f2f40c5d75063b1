"""What a model's config.json says of its shape, whatever the architecture calls it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Fact = str | int

# What config.json calls the facts of a model, by architecture.
CONFIG_KEYS = {
    "architecture": ("model_type",),
    "blocks": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "width": ("hidden_size", "n_embd", "d_model", "dim"),
    "context": ("max_position_embeddings", "n_positions", "n_ctx"),
    "vocabulary": ("vocab_size",),
}
OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert")  # the first token's position is pad_token_id + 1


def config_facts(config: Mapping[str, Fact]) -> dict[str, Fact | None]:
    """Architecture, blocks, width, context and vocabulary; None for what it does not say.

    `context` is None where the architecture has no longest sequence (ALiBi).
    """
    read = {fact: _first(config, keys) for fact, keys in CONFIG_KEYS.items()}
    if read["context"] and read["architecture"] in OFFSET_POSITIONS:
        read["context"] -= config.get("pad_token_id", 1) + 1
    return read


def _first(config: Mapping[str, Fact], keys: Sequence[str]) -> Fact | None:
    return next((config[key] for key in keys if config.get(key) is not None), None)
