"""What sampling takes from tokenizers of three kinds: byte-level, with a template, with added tokens."""

from __future__ import annotations

import lzma
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dumps import clean
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from lmshape.errors import InputError
from lmshape.texts.tokenizer import SLICE_CHARACTERS, TextTokenizer

EXCERPT = Path(__file__).parents[2] / "data" / "enwik8-excerpt.xz"


@pytest.fixture(scope="module")
def prose() -> str:
    with lzma.open(EXCERPT) as excerpt:
        return clean(excerpt.read(700_000).decode(errors="ignore"))


def byte_level(prose: str, **options: object) -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|endoftext|>", "<|pad|>", "<s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(prose[:100_000].splitlines(keepends=True), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|endoftext|>", clean_up_tokenization_spaces=False, **options
    )


def bert_like(prose: str) -> PreTrainedTokenizerFast:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    pieces.normalizer = normalizers.BertNormalizer(lowercase=True)
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pieces.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=600, special_tokens=special, show_progress=False)
    pieces.train_from_iterator(prose[:100_000].splitlines(), trainer)
    pieces.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    pieces.enable_truncation(16)
    pieces.enable_padding(length=16)
    return PreTrainedTokenizerFast(
        tokenizer_object=pieces,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def test_a_template_is_read_off_the_tokenizer(prose: str) -> None:
    plain = TextTokenizer(byte_level(prose))
    assert (plain.prefix, plain.suffix, plain.added) == ([], [], 0)
    llama = TextTokenizer(byte_level(prose, bos_token="<s>", add_bos_token=True))
    assert (llama.prefix, llama.suffix, llama.added) == ([2], [], 1)
    bert = TextTokenizer(bert_like(prose))
    assert (bert.prefix, bert.suffix, bert.added) == ([2], [3], 2)


@pytest.mark.parametrize("build", [byte_level, bert_like])
def test_slices_give_the_tokens_of_the_whole_text(
    prose: str, build: Callable[[str], PreTrainedTokenizerFast]
) -> None:
    tokenizer = build(prose)
    assert len(prose) > 4 * SLICE_CHARACTERS
    expected = tokenizer(prose, add_special_tokens=False, verbose=False)["input_ids"]
    ids = TextTokenizer(tokenizer).encode_long(prose)
    assert ids.dtype == np.int32
    np.testing.assert_array_equal(ids, expected)


@pytest.mark.parametrize("text", ["", " ", "a" * (2 * SLICE_CHARACTERS + 1), " " * (SLICE_CHARACTERS + 5)])
def test_texts_without_a_place_to_cut(prose: str, text: str) -> None:
    reader = TextTokenizer(byte_level(prose))
    assert reader.backend.decode(reader.encode_long(text).tolist()) == text


def test_text_that_spells_a_special_token_is_text(prose: str) -> None:
    tokenizer = byte_level(prose)
    text = "an <|endoftext|> in a page about <s>"
    ids = TextTokenizer(tokenizer).encode_long(text)
    assert not set(ids.tolist()) & set(tokenizer.all_special_ids) and 2 not in ids
    assert tokenizer.decode(ids) == text


def test_the_tokenizer_is_left_as_it_is_and_its_last_call_has_no_part(prose: str) -> None:
    tokenizer = bert_like(prose)
    before = TextTokenizer(tokenizer).sha256
    assert len(TextTokenizer(tokenizer).encode([prose[:1000]])[0]) > 16
    assert tokenizer.backend_tokenizer.truncation["max_length"] == 16
    tokenizer(prose[:1000], truncation=True, max_length=32, padding="max_length")
    assert TextTokenizer(tokenizer).sha256 == before
    assert re.fullmatch(r"[0-9a-f]{64}", before)
    assert TextTokenizer(byte_level(prose)).sha256 != before


def test_ordinary_ids_are_the_vocabulary_without_special_tokens(prose: str) -> None:
    tokenizer = byte_level(prose)
    tokenizer.add_tokens([AddedToken("    ", normalized=False)])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|user|>"]})
    ordinary = TextTokenizer(tokenizer).ordinary
    assert tokenizer.convert_tokens_to_ids("    ") in ordinary
    np.testing.assert_array_equal(ordinary, [*range(3, 601)])  # 601 is <|user|>


def test_bytes_are_those_of_the_decoded_text(prose: str) -> None:
    reader = TextTokenizer(byte_level(prose))
    texts = ["naïve", " café", "𝔘", ""]
    sequences = [ids.tolist() for ids in reader.encode(texts)]
    np.testing.assert_array_equal(reader.count_bytes(sequences), [6, 6, 4, 0])
    assert reader.count_bytes([[0, *sequences[0], 1]]) == [6], "special tokens have no bytes"


def test_a_slow_tokenizer_is_refused() -> None:
    class Slow:
        is_fast = False
        name_or_path = "old"

    with pytest.raises(InputError, match="`old` is a slow tokenizer; convert it to a `tokenizer.json`"):
        TextTokenizer(Slow())


def test_a_tokenizer_without_an_a_is_refused() -> None:
    greek = Tokenizer(models.BPE(vocab={"α": 0, "β": 1}, merges=[]))
    with pytest.raises(InputError, match="has no token for `a`, so its special tokens cannot be located"):
        TextTokenizer(PreTrainedTokenizerFast(tokenizer_object=greek))
