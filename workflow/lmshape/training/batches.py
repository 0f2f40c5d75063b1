"""What a training step sees: windows of the text in a seeded order and, for encoders, which tokens are masked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from lmshape.errors import InputError
from lmshape.texts.encoding import TextTokenizer
from lmshape.texts.tokenizer_folder import load_tokenizer
from lmshape.training.recipe import Recipe

# Always by the mask token: BERT's 10 % that stay as they are could be copied, and the loss would look like learning.
MASKED_SHARE = 0.15


def windows_of(text: str, tokenizer_folder: Path, recipe: Recipe) -> np.ndarray:
    """Cut a text into consecutive windows of token ids, (count, window); the rest of the text is left.

    Raises
    ------
    InputError
        When the text holds fewer windows than one step needs.
    """
    ids = TextTokenizer.of(load_tokenizer(tokenizer_folder)).encode_long(text)
    count = len(ids) // recipe.window
    if count < recipe.sequences:
        raise InputError(
            f"the training text holds {len(ids)} tokens; one step needs {recipe.sequences * recipe.window} "
            f"({recipe.sequences} windows of {recipe.window}). Take a larger text."
        )
    return ids[: count * recipe.window].reshape(count, recipe.window)


def batch_of(windows: np.ndarray, step: int, *, sequences: int, seed: int) -> np.ndarray:
    """Windows of a step, (sequences, window): a seeded shuffle an epoch, the same for every model."""
    per_epoch = len(windows) // sequences
    epoch, place = divmod(step, per_epoch)
    order = np.random.default_rng((seed, epoch)).permutation(len(windows))
    return windows[order[place * sequences : (place + 1) * sequences]].astype(np.int64)


def masked_batch(
    ids: torch.Tensor, tokenizer: PreTrainedTokenizerBase, *, seed: tuple[int, int]
) -> dict[str, torch.Tensor]:
    """Put the mask token for a share of the tokens; the labels are -100 where nothing is asked."""
    asked = torch.from_numpy(np.random.default_rng((2, *seed)).random(ids.shape) < MASKED_SHARE)
    inputs = torch.where(asked, tokenizer.mask_token_id, ids)
    return {"input_ids": inputs, "labels": torch.where(asked, ids, -100)}


def unigram_entropy(windows: np.ndarray) -> float:
    """Entropy of the token frequencies in nats: the loss of a model that has learned nothing else."""
    counts = np.bincount(windows.ravel())
    share = counts[counts > 0] / windows.size
    return float(-(share * np.log(share)).sum())
