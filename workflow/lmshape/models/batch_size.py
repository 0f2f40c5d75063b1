"""The number of tokens in the first pass: as many as fit, estimated from the vocabulary."""

from __future__ import annotations

from lmshape.errors import InputError

LOGIT_BYTES = 2**30  # of a batch, in float32: with a large vocabulary nothing else of a pass is as large
GPU_SHARE = 4  # a GPU has the memory to itself, and needs more tokens to be busy
MOST_TOKENS = 8192  # more are no faster: the matrix products are at their full rate long before


def starting_tokens(setting: int | str, *, vocabulary: int, on_gpu: bool) -> int:
    """Tokens of the first pass; a batch is smaller where memory runs out, and at least one sequence.

    `auto`: as many as have 1 GiB of float32 logits, at most 8192; four times both on a GPU.

    Parameters
    ----------
    setting : `extraction.batch_tokens` of the configuration: `auto`, or a number, which stands
    vocabulary : entries of a token's logits
    on_gpu : whether the network runs on a GPU

    Raises
    ------
    InputError
        When the setting is neither `auto` nor a whole number of at least 1.

    Examples
    --------
    >>> starting_tokens("auto", vocabulary=50_304, on_gpu=False)
    5336
    """
    if setting == "auto":
        share = GPU_SHARE if on_gpu else 1
        return max(1, min(share * MOST_TOKENS, share * LOGIT_BYTES // (4 * vocabulary)))
    try:
        tokens = int(setting)
    except ValueError:
        tokens = 0
    if tokens < 1:
        raise InputError(f"`batch_tokens` is {setting}; it must be `auto` or at least 1.")
    return tokens
