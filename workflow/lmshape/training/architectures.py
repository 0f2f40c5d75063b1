"""The small models that a study trains itself, by architecture."""

from __future__ import annotations

from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from lmshape.training.recipe import Recipe


def build_model(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Initialize the model of a recipe, without dropout: Pythia's GPT-NeoX, a BERT or a ModernBERT."""
    shape = {
        "vocab_size": len(tokenizer),
        "hidden_size": recipe.width,
        "num_hidden_layers": recipe.blocks,
        "num_attention_heads": recipe.heads,
        "max_position_embeddings": recipe.window,
        "pad_token_id": tokenizer.pad_token_id,
    }
    ends = {"bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id}
    wide = 4 * recipe.width
    if recipe.architecture == "bert":
        free = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        return BertForMaskedLM(BertConfig(**shape, **free, intermediate_size=wide))
    if recipe.architecture == "modernbert":
        return ModernBertForMaskedLM(
            ModernBertConfig(
                **shape,
                **ends,
                cls_token_id=tokenizer.eos_token_id,
                sep_token_id=tokenizer.eos_token_id,
                intermediate_size=wide // 2,  # gated: two matrices in, so as many parameters as the others
                global_attn_every_n_layers=1,  # the window is no longer than its local attention
                # with the usual 0.02 it takes thousands of steps to start learning
                initializer_range=recipe.width**-0.5,
            )
        )
    return GPTNeoXForCausalLM(GPTNeoXConfig(**shape, **ends, intermediate_size=wide))
