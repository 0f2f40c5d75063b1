"""Whether a network and the tokens that it shall read belong together, before the first pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from transformers import PreTrainedModel

from lmshape.errors import InputError
from lmshape.networks.network import longest_window
from lmshape.networks.residual import ResidualStream
from lmshape.texts.tokens import Tokens


def check_tokens(tokens: Tokens, model: PreTrainedModel) -> None:
    """Refuse tokens that a network cannot read.

    Raises
    ------
    InputError
        Without tokens; for a sequence longer than the context; for an id outside of the vocabulary.
    """
    if not len(tokens.ids):
        raise InputError("`tokens` is empty; a dataset needs at least one sequence.")
    longest, limit = np.bincount(tokens.sequence).max(), longest_window(model)
    if limit is not None and longest > limit:
        raise InputError(
            f"a sequence has {longest} tokens, but `{model.config.model_type}` here reads at most {limit}; "
            "shorten the dataset's window."
        )
    largest, vocabulary = tokens.ids.max(), model.get_input_embeddings().num_embeddings
    if largest >= vocabulary:
        raise InputError(
            f"token id {largest} is outside the network's vocabulary of {vocabulary}; "
            "tokenize with the tokenizer of this model."
        )


def check_expected(
    model: PreTrainedModel, stream: ResidualStream, folder: Path, expected: dict[str, int | None]
) -> None:
    """Refuse a network whose blocks, width or vocabulary are not what the registry says of it, where it does.

    The vocabulary is that of config.json: the embedding may have more rows, as padding.

    Raises
    ------
    InputError
        When one of them is another.
    """
    vocabulary = model.config.get_text_config().vocab_size
    found = {"blocks": len(stream.blocks), "width": stream.width, "vocabulary": vocabulary}
    for name, value in expected.items():
        if value is not None and value != found[name]:
            raise InputError(
                f"`{name}` of `{folder}` is {found[name]}, but the registry says {value}; correct one of them."
            )
