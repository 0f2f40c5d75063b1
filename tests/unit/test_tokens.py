"""The tokens of a cell: shapes, draws that share nothing, and controls that change one thing only."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import fields
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import chisquare
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from lmshape.errors import InputError
from lmshape.geometry.resample import over_draws
from lmshape.store.tokens import Tokens
from lmshape.texts.tokenizer import TextTokenizer
from lmshape.texts.tokens import (
    PAPER_CHARACTERS,
    PAPER_CHUNKS,
    Sampling,
    sample_tokens,
)

# Every word once, so that an id tells its place in the text; 4 special ids come first.
WORDS = 15_000
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
TEXT = " ".join(f"w{word:05}" for word in range(WORDS))
SAMPLING = {"protocol": "windows", "order": "text", "window": 32, "draws": 3, "rows_per_draw": 200, "seed": 7}
SEQUENCES = 3 * 8  # 3 draws of ceil(1.25 * 200 / 32)


def words_tokenizer(template: str = "$A") -> PreTrainedTokenizerFast:
    vocabulary = {word: index for index, word in enumerate([*SPECIAL, *TEXT.split()])}
    words = Tokenizer(models.WordLevel(vocabulary | {"a": WORDS + 4}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


TOKENIZERS = {
    "none": words_tokenizer(),
    "bos": words_tokenizer("[CLS] $A"),
    "bert": words_tokenizer("[CLS] $A [SEP]"),
}
FRAMES = {"none": ([], []), "bos": ([2], []), "bert": ([2], [3])}


def sample(template: str = "none", text: str = TEXT, **changes: object) -> Tokens:
    return sampled(TOKENIZERS[template], text, **changes)


def sampled(tokenizer: PreTrainedTokenizerFast, text: str, **changes: object) -> Tokens:
    """Sample with the fields of `Sampling` and the options of `sample_tokens` mixed."""
    options = {**SAMPLING, **changes}
    sampling = Sampling(**{field.name: options.pop(field.name) for field in fields(Sampling)})
    return sample_tokens(tokenizer, text, sampling, **options)


def contents(tokens: Tokens) -> list[np.ndarray]:
    """Ids of each sequence, without the template's."""
    inside = ~tokens.special
    return [tokens.ids[inside & (tokens.sequence == s)] for s in range(tokens.sequence[-1] + 1)]


def test_the_text_of_every_token_id_is_kept() -> None:
    tokens = sample("bert")
    assert tokens.texts.keys() == set(tokens.ids.tolist())
    assert (tokens.texts[2], tokens.texts[3]) == ("[CLS]", "[SEP]")
    assert all(tokens.texts[index] == f"w{index - 4:05}" for index in tokens.texts if index > 3)


@pytest.mark.parametrize("template", TOKENIZERS)
@pytest.mark.parametrize("order", ["text", "shuffled", "random"])
def test_windows_have_their_exact_shape(template: str, order: str) -> None:
    tokens = sample(template, order=order)
    prefix, suffix = FRAMES[template]
    for column in (tokens.ids, tokens.sequence, tokens.position, tokens.draw, tokens.sequence_bytes):
        assert column.dtype == np.int32
    np.testing.assert_array_equal(tokens.sequence, np.repeat(np.arange(SEQUENCES), 32))
    np.testing.assert_array_equal(tokens.position, np.tile(np.arange(32), SEQUENCES))
    np.testing.assert_array_equal(tokens.draw, np.repeat([0, 1, 2], 8 * 32))
    rows = tokens.ids.reshape(SEQUENCES, 32)
    np.testing.assert_array_equal(rows[:, : len(prefix)], np.tile(prefix, (SEQUENCES, 1)))
    np.testing.assert_array_equal(rows[:, 32 - len(suffix) :], np.tile(suffix, (SEQUENCES, 1)))
    special = tokens.special.reshape(SEQUENCES, 32)
    assert special.sum() == SEQUENCES * (len(prefix) + len(suffix)) == np.isin(tokens.ids, [2, 3]).sum()


@pytest.mark.parametrize("template", TOKENIZERS)
def test_windows_are_stretches_of_the_text_that_share_nothing(template: str) -> None:
    windows = contents(sample(template))
    for window in windows:
        np.testing.assert_array_equal(np.diff(window), 1)
    ids = np.concatenate(windows)
    assert len(np.unique(ids)) == len(ids)
    starts = np.array([window[0] for window in windows])
    assert np.ptp(starts) > WORDS / 2, "windows come from all over the text"
    assert (np.diff(starts) < 0).any(), "and in no order, so that leaving out the last ones is fair"


def test_draws_are_of_stretches_of_the_text_that_no_other_has() -> None:
    tokens = sample(draws=5)
    places = [tokens.ids[tokens.draw == draw] - len(SPECIAL) for draw in range(5)]
    assert all(before.max() < after.min() for before, after in pairwise(places))
    assert all(np.ptp(own) > WORDS / 5 / 2 for own in places)  # from all of its stretch
    more = sample(draws=5, rows_per_draw=400)  # a larger draw has the windows of the smaller one
    for draw, own in enumerate(places):
        assert np.isin(own, more.ids[more.draw == draw] - len(SPECIAL)).all()


def test_intervals_hold_the_mean_of_texts_of_eight_documents() -> None:
    """Each document has a mean of its own: draws that shared documents would be too much alike."""
    tokens = sample(draws=5)
    document = (tokens.ids - len(SPECIAL)) * 8 // WORDS
    shares = np.array([np.bincount(document[tokens.draw == draw], minlength=8) for draw in range(5)], float)
    shares /= shares.sum(axis=1, keepdims=True)
    means = np.random.default_rng(0).standard_normal((2000, 8)) @ shares.T
    found = [over_draws(values) for values in means]
    coverage = np.mean([estimate.low <= 0 <= estimate.high for estimate in found])
    assert 0.88 < coverage < 0.97


def of_documents(count: int, **changes: object) -> tuple[Tokens, list[set[int]]]:
    """Sample a text of documents of lengths 1 to `count`; and the documents of each draw."""
    begins = np.cumsum(np.arange(1, count)) * WORDS // (count * (count + 1) // 2)
    tokens = sample(draws=5, documents=(len("w00000 ") * begins).tolist(), **changes)
    document = np.searchsorted(begins, tokens.ids - len(SPECIAL), side="right")
    return tokens, [set(document[tokens.draw == draw].tolist()) for draw in range(5)]


def test_draws_share_no_document_where_documents_are_known() -> None:
    tokens, documents = of_documents(12)
    assert tokens.attributes["shared_documents"] == ""
    assert sum(map(len, documents)) == len(set.union(*documents)) > 8
    unknown = sample(draws=5)  # most windows are those that they would be without
    assert np.isin(tokens.ids, unknown.ids).mean() > 0.5
    larger, _ = of_documents(12, rows_per_draw=300)
    assert np.isin(tokens.ids, larger.ids).all()


@pytest.mark.parametrize("count", [1, 4, 6])
def test_too_few_documents_are_shared_and_say_so(count: int) -> None:
    tokens, documents = of_documents(count)
    assert tokens.attributes["shared_documents"] == f"draws share documents: the text has {count}"
    assert sum(map(len, documents)) > len(set.union(*documents))
    np.testing.assert_array_equal(tokens.ids, sample(draws=5).ids)


def test_a_token_is_found_in_its_text() -> None:
    reader = TextTokenizer(TOKENIZERS["none"])
    begins = reader.first_characters(TEXT)  # longer than a slice
    np.testing.assert_array_equal(begins, np.arange(WORDS) * len("w00000 "))


@pytest.mark.parametrize("protocol", ("windows", "paper"))
def test_shuffling_permutes_within_each_sequence(protocol: str) -> None:
    text, shuffled = (sample("bert", protocol=protocol, order=order) for order in ("text", "shuffled"))
    for before, after in zip(contents(text), contents(shuffled), strict=True):
        assert (before != after).any()
        np.testing.assert_array_equal(np.sort(before), np.sort(after))
    for name in ("sequence", "position", "draw", "special"):
        np.testing.assert_array_equal(getattr(text, name), getattr(shuffled, name))


@pytest.mark.parametrize("protocol", ("windows", "paper"))
def test_random_tokens_keep_the_shape_and_no_special_id(protocol: str) -> None:
    text, random = (sample("bert", protocol=protocol, order=order) for order in ("text", "random"))
    for name in ("sequence", "position", "draw", "special"):
        np.testing.assert_array_equal(getattr(text, name), getattr(random, name))
    assert np.isin(random.ids[~random.special], TextTokenizer(TOKENIZERS["bert"]).ordinary).all()


def test_random_tokens_are_rows_of_the_embedding() -> None:
    """Tokens that were added to the tokenizer alone lie beyond it."""
    tokenizer = words_tokenizer()
    tokenizer.add_tokens(["<tool>", "<call>"])
    assert TextTokenizer(tokenizer).ordinary[-1] == WORDS + 6
    for vocabulary in (5000, WORDS + 5, None):
        tokens = sampled(tokenizer, "", order="random", rows_per_draw=30_000, vocabulary=vocabulary)
        assert len(SPECIAL) <= tokens.ids.min() and tokens.ids.max() < (vocabulary or WORDS + 7)
        assert tokens.ids.max() > 0.98 * (vocabulary or WORDS)


def test_random_tokens_are_uniform_over_the_ordinary_ids() -> None:
    tokens = sample("bert", order="random", rows_per_draw=100_000)
    counts = np.bincount(tokens.ids[~tokens.special], minlength=WORDS + 5)
    assert counts[: len(SPECIAL)].sum() == 0
    assert chisquare(counts[len(SPECIAL) :]).pvalue > 0.001


def test_random_windows_need_no_text() -> None:
    np.testing.assert_array_equal(sample(text="", order="random").ids, sample(order="random").ids)


def test_the_paper_takes_chunks_of_characters() -> None:
    tokens = sample("bert", protocol="paper")
    per_draw = [len(range(draw, PAPER_CHUNKS, 3)) for draw in range(3)]
    starts = np.flatnonzero(tokens.position == 0)
    assert len(starts) == PAPER_CHUNKS == len(tokens.sequence_bytes)
    np.testing.assert_array_equal(tokens.draw[starts], np.repeat([0, 1, 2], per_draw))
    assert (np.diff(tokens.sequence) >= 0).all()
    assert (tokens.ids[starts] == 2).all() and (
        tokens.ids[np.append(starts[1:], len(tokens.ids)) - 1] == 3
    ).all()
    words = [content[content != 1] for content in contents(tokens)]  # [UNK]: words that a chunk cuts
    for chunk in words:
        np.testing.assert_array_equal(np.diff(chunk), 1)
        assert abs(len(chunk) - PAPER_CHARACTERS / 7) <= 2
    assert len(np.unique(np.concatenate(words))) == sum(map(len, words)), "no two chunks overlap"
    assert len({len(chunk) for chunk in contents(tokens)}) > 1, "their lengths differ"


@pytest.mark.parametrize("protocol", ("windows", "paper"))
@pytest.mark.parametrize("order", ["text", "shuffled", "random"])
def test_the_same_seed_gives_the_same_tokens(protocol: str, order: str) -> None:
    first, again, other = (sample(protocol=protocol, order=order, seed=seed) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first.ids, again.ids)
    np.testing.assert_array_equal(first.sequence_bytes, again.sequence_bytes)
    assert first.attributes == again.attributes
    assert first.ids.shape != other.ids.shape or (first.ids != other.ids).any()


def test_a_seed_means_the_same_on_every_machine() -> None:
    # NumPy may change a stream of random numbers between versions; results would then not be comparable.
    assert [window[0] - 4 for window in contents(sample())[:4]] == [1600, 4800, 2240, 4128]
    assert (sample(order="random").ids[:4] - 4).tolist() == [7193, 14735, 4864, 914]


@pytest.mark.parametrize(("template", "covered"), [("none", 31), ("bos", 31), ("bert", 30)])
def test_bytes_cover_what_a_next_token_loss_covers(template: str, covered: int) -> None:
    tokens = sample(template)
    # Words of 6 bytes, a space between two; the first token is BOS, [CLS] or, without a template, a word.
    np.testing.assert_array_equal(tokens.sequence_bytes, np.full(SEQUENCES, 7 * covered - 1))


def test_attributes_say_where_the_tokens_come_from() -> None:
    attributes = sample("bert").attributes
    assert (
        attributes["tokenizer_sha256"]
        == TextTokenizer(TOKENIZERS["bert"]).sha256
        != TextTokenizer(TOKENIZERS["bos"]).sha256
    )
    assert attributes["seed"] == 7
    assert json.loads(attributes["sampling"]) == {
        key: value for key, value in SAMPLING.items() if key != "seed"
    }
    assert attributes["text_sha256"] != sample(text=TEXT + " a").attributes["text_sha256"]
    paper = json.loads(sample(protocol="paper").attributes["sampling"])
    assert paper == {"protocol": "paper", "order": "text", "draws": 3}


@pytest.mark.parametrize(
    ("template", "prefix", "suffix"),
    [("none", [], []), ("bos", ["[CLS]"], []), ("bert", ["[CLS]"], ["[SEP]"])],
)
def test_the_templates_tokens_are_named(template: str, prefix: list[str], suffix: list[str]) -> None:
    for protocol in ("windows", "paper"):
        named = json.loads(sample(template, protocol=protocol).attributes["special_tokens"])
        assert named == {"prefix": prefix, "suffix": suffix}


def test_the_mask_token_is_kept_for_encoders() -> None:
    assert sample("bert").attributes["mask_token_id"] == -1
    masked = words_tokenizer("[CLS] $A [SEP]")
    masked.mask_token = "[PAD]"
    assert sampled(masked, TEXT).attributes["mask_token_id"] == 0


def test_a_whole_text_is_encoded_without_special_tokens() -> None:
    np.testing.assert_array_equal(TextTokenizer(TOKENIZERS["bert"]).encode_long(TEXT), np.arange(WORDS) + 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window": 0}, "`window` is 0; it must be at least 1"),
        ({"draws": -1}, "`draws` is -1; it must be at least 1"),
        ({"rows_per_draw": -5}, "`rows_per_draw` is -5; it must be at least 1"),
        ({"seed": -1}, "`seed` is -1; it must be at least 0"),
        ({"window": 3}, "`window` is 3, of which special tokens take 2; raise it to 4 or more"),
        (
            {"window": 64, "context": 48},
            "`window` is 64, more than the model's context of 48; lower `window`",
        ),
        ({"text": " \n"}, "the text is empty; name another text, or another span of it"),
        ({"text": "", "protocol": "paper"}, "the text is empty"),
        (
            {"text": "w00001 w00002 w00003"},
            "has 3 tokens, and 720 are needed: 3 draws of 8 windows of 30. Lower `draws`, `rows_per_draw` or "
            "`window`, or take a larger text",
        ),
        (
            {"text": TEXT[:60_000], "protocol": "paper"},
            "has 60000 characters, and the protocol `paper` needs 65536; take a larger text or the protocol "
            "`windows`",
        ),
        (
            {"protocol": "paper", "draws": 129},
            "`draws` is 129; the protocol `paper` has 128 chunks. Lower `draws`",
        ),
        (
            {"protocol": "paper", "context": 60},
            "a chunk of 512 characters has 7. tokens, more than the model's context of 60; take the protocol",
        ),
    ],
)
def test_what_cannot_be_sampled_is_refused(changes: Mapping[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        sample("bert", **changes)


def test_a_text_that_just_suffices() -> None:
    needed = SEQUENCES * 30
    tokens = sample("bert", text=" ".join(TEXT.split()[:needed]), context=32)
    assert len(np.unique(tokens.ids[~tokens.special])) == needed
    with pytest.raises(InputError, match=f"has {needed - 1} tokens, and {needed} are needed"):
        sample("bert", text=" ".join(TEXT.split()[: needed - 1]))


def test_importing_texts_and_tokens_stays_light() -> None:
    code = "import sys, lmshape.texts.corpus, lmshape.texts.fetch, lmshape.texts.tokens; "
    code += (
        "print([name for name in ('torch', 'transformers', 'tokenizers', 'pandas') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"[]\n"
