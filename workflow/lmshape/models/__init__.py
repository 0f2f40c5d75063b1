"""From a folder of weights to the residual stream, the activations of every layer, and the loss.

Here is how the forward passes of a study run, as `extraction` of its configuration says; imports nothing heavy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lmshape.errors import InputError

LOGIT_BYTES = 2**30  # of a batch, in float32: with a large vocabulary nothing else of a pass is as large
GPU_SHARE = 4  # a GPU has the memory to itself, and needs more tokens to be busy
MOST_TOKENS = 8192  # more are no faster: the matrix products are at their full rate long before

DeviceMap = Literal["none", "auto"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Extraction:
    """Settings of the forward passes; `auto` is decided on the machine that runs them.

    Attributes
    ----------
    dtype : number type of weights and passes; `auto`: bfloat16 on a CUDA GPU, float32 elsewhere
    device : `auto`: a GPU if there is one
    device_map : `auto` spreads the network over all GPUs, then memory, then disk; `none` does not
    batch_tokens : most tokens of a pass; `auto`: what fits
    """

    dtype: str = "auto"
    device: str = "auto"
    device_map: DeviceMap = "none"
    batch_tokens: int | Literal["auto"] = "auto"

    def starting_tokens(self, *, vocabulary: int, on_gpu: bool) -> int:
        """Tokens of the first pass; a batch is smaller where memory runs out, and at least one sequence.

        `auto`: as many as have 1 GiB of float32 logits, at most 8192; four times both on a GPU.

        Parameters
        ----------
        vocabulary : entries of a token's logits
        on_gpu : whether the network runs on a GPU

        Raises
        ------
        InputError
            When `batch_tokens` is neither `auto` nor a whole number of at least 1.

        Examples
        --------
        >>> Extraction().starting_tokens(vocabulary=50_304, on_gpu=False)
        5336
        """
        if self.batch_tokens == "auto":
            share = GPU_SHARE if on_gpu else 1
            return max(1, min(share * MOST_TOKENS, share * LOGIT_BYTES // (4 * vocabulary)))
        if not isinstance(self.batch_tokens, int) or self.batch_tokens < 1:
            raise InputError(f"`batch_tokens` is {self.batch_tokens}; it must be `auto` or at least 1.")
        return self.batch_tokens
