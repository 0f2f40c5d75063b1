"""The embedded study's tokenizer: byte-level BPE trained on the corpus, the same for decoder and encoder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lmshape.errors import InputError
from lmshape.writing.atomic import folder_when_whole

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

END_OF_TEXT, MASK, PAD = "<|endoftext|>", "<|mask|>", "<|pad|>"
SMALLEST_VOCABULARY = 256 + 3  # every byte, and the three special tokens


def train_tokenizer(text: str, vocabulary: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer that can spell any text.

    Parameters
    ----------
    text : the training text
    vocabulary : number of entries, the 256 bytes and three special tokens included

    Returns
    -------
    A tokenizer with end-of-text, mask and padding tokens that adds no special token by itself.

    Raises
    ------
    InputError
        When `vocabulary` cannot hold the bytes, or the text is empty.
    """
    if vocabulary < SMALLEST_VOCABULARY:
        raise InputError(
            f"`pretraining.vocabulary` is {vocabulary}; a byte-level vocabulary needs at least "
            f"{SMALLEST_VOCABULARY} entries (256 bytes and 3 special tokens). Raise it."
        )
    if not text.strip():
        raise InputError("the training text is empty. Name a text with words in `pretraining.text`.")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT, MASK, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(text.splitlines(keepends=True), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=END_OF_TEXT,
        mask_token=MASK,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
    )


def write_tokenizer(text: str, output: Path, *, vocabulary: int) -> None:
    """Train a tokenizer and save it as a folder that `AutoTokenizer` reads; whole or not at all."""
    tokenizer = train_tokenizer(text, vocabulary)
    with folder_when_whole(output) as partial:
        tokenizer.save_pretrained(partial)
