"""The tokenizer of a folder: what its tokenizer.json says, whatever class its settings name."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from extraction import extracted
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from lmshape.errors import InputError
from lmshape.models.extract import loss_by_draw, predictable
from lmshape.store.tokens import read_tokens, write_tokens
from lmshape.texts.tokenizer import TextTokenizer, load_tokenizer, train_tokenizer
from lmshape.texts.tokens import Sampling, sample_tokens, tokens_of_texts

TEXT = "Café 1984: the cats' dog's 12345 houses\n\n  are  in the sea; THE END. " * 40
SPECIAL = ["<unk>", "<s>", "</s>", "[MASK]"]
CL100K = (
    r"(?i:'s|'t|'re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_level(pre_tokenizer: pre_tokenizers.PreTokenizer) -> Tokenizer:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizer, decoders.ByteLevel()
    return bpe


def metaspace() -> Tokenizer:
    bpe = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=False))
    bpe.normalizer = normalizers.Lowercase()
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return bpe


def cl100k() -> Tokenizer:
    split = pre_tokenizers.Split(Regex(CL100K), behavior="isolated")
    return byte_level(
        pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    )


FILES: dict[str, Callable[[], Tokenizer]] = {
    "byte-level": lambda: byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "prefix-space": lambda: byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "metaspace": metaspace,
    "cl100k": cl100k,
}


def write(
    folder: Path, file: str, *, template: bool = False, model_type: str = "", **settings: object
) -> Tokenizer:
    """Train a tokenizer and write it with settings beside it; return what it is."""
    tokenizer = FILES[file]()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    if template:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    if model_type:
        (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    return tokenizer


@pytest.mark.parametrize("template", [False, True])
@pytest.mark.parametrize("model_type", ["", "qwen2", "olmo2"])
@pytest.mark.parametrize("name", ["GPT2Tokenizer", "Qwen2Tokenizer", "LlamaTokenizer"])
@pytest.mark.parametrize("file", FILES)
def test_the_ids_are_those_of_the_file(
    file: str, name: str, model_type: str, template: bool, tmp_path: Path
) -> None:
    own = write(tmp_path, file, template=template, model_type=model_type, tokenizer_class=name)
    read = TextTokenizer(load_tokenizer(tmp_path))
    assert read.encode([TEXT])[0].tolist() == own.encode(TEXT, add_special_tokens=False).ids
    assert (read.prefix, read.suffix) == ([1] if template else [], [])
    told, loaded = json.loads(own.to_str()), json.loads(load_tokenizer(tmp_path).backend_tokenizer.to_str())
    for part in ("normalizer", "pre_tokenizer", "model", *(["post_processor"] if template else [])):
        assert loaded[part] == told[part]


@pytest.mark.parametrize("file", ["metaspace", "cl100k"])
def test_the_loss_is_that_of_the_ids_of_the_file(file: str, tmp_path: Path) -> None:
    """AutoTokenizer gives a Qwen2 that was trained on other pieces ids with which its loss is another."""
    folder = tmp_path / "checkpoint"
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=400, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, initializer_range=1.0,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).eval()
    model.save_pretrained(folder)
    own = write(folder, file, tokenizer_class="Qwen2Tokenizer")
    tokens = tokens_of_texts(load_tokenizer(folder), [TEXT] * 2, window=64, draws=2)

    def loss(ids: list[int]) -> float:
        row = torch.tensor([ids[:64]])
        with torch.no_grad():
            return float(model(row, labels=row).loss)

    expected = loss(own.encode(TEXT, add_special_tokens=False).ids)
    assert np.nanmean(extracted(folder, tokens, tmp_path).nll) == pytest.approx(expected, rel=1e-5)
    assert abs(loss(AutoTokenizer.from_pretrained(folder)(TEXT).input_ids) - expected) > 0.01


def test_what_the_file_cannot_say_is_taken_from_the_class(tmp_path: Path) -> None:
    write(tmp_path / "gpt2", "byte-level", tokenizer_class="GPT2Tokenizer", mask_token="[MASK]")
    assert load_tokenizer(tmp_path / "gpt2").mask_token_id == SPECIAL.index("[MASK]")
    write(tmp_path / "bert", "byte-level", tokenizer_class="RobertaTokenizer")
    loaded = load_tokenizer(tmp_path / "bert")
    read = TextTokenizer(loaded)
    assert (read.prefix, read.suffix) == ([1], [2]), "the template of the class, since the file has none"
    assert loaded.mask_token is None and "<mask>" not in loaded.get_vocab(), (
        "the class has it, the file does not"
    )


def test_a_class_that_reads_other_files_is_left_aside(tmp_path: Path) -> None:
    """ESM's reads vocab.txt, which is not there."""
    own = write(tmp_path, "byte-level", tokenizer_class="EsmTokenizer", mask_token="[MASK]")
    loaded = load_tokenizer(tmp_path)
    assert TextTokenizer(loaded).encode([TEXT])[0].tolist() == own.encode(TEXT).ids
    assert loaded.mask_token_id == SPECIAL.index("[MASK]")


def test_merges_are_not_left_out_at_random(tmp_path: Path) -> None:
    """As in training with BPE dropout, whose share the file keeps."""
    own = write(tmp_path, "byte-level")
    told = json.loads((tmp_path / "tokenizer.json").read_text())
    told["model"]["dropout"] = 0.5
    (tmp_path / "tokenizer.json").write_text(json.dumps(told))
    read = TextTokenizer(load_tokenizer(tmp_path))
    assert all(read.encode([TEXT])[0].tolist() == own.encode(TEXT).ids for _ in range(3))
    assert '"dropout":0.5' not in read.backend.to_str()


LETTERS = "\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"  # of tiny Shakespeare
FOREIGN = "The café [of 1984] is a house; it was built by the sea, and nobody has seen it since then: so they say.\n"


def letters(*, unknown: str | None) -> PreTrainedTokenizerFast:
    vocabulary = {letter: index for index, letter in enumerate([*([unknown] if unknown else []), *LETTERS])}
    model = models.WordLevel(vocabulary, unk_token=unknown) if unknown else models.BPE(vocabulary, [])
    backend = Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=backend)


@pytest.mark.parametrize("unknown", [None, "<unk>"])
@pytest.mark.parametrize("text", [FOREIGN * 3, FOREIGN * 2400], ids=["whole", "sampled"])
def test_bytes_without_a_token_are_counted(text: str, unknown: str | None) -> None:
    """Letters that BPE drops, and those that the unknown token stands for."""
    lost = sum(len(letter.encode()) for letter in FOREIGN if letter not in LETTERS)
    assert lost == len("é[1984]".encode())
    share = TextTokenizer(letters(unknown=unknown)).unspelled(text)
    assert share == pytest.approx(lost / len(FOREIGN.encode()), rel=2e-3)


def test_an_unknown_token_outside_of_the_vocabulary_is_told() -> None:
    backend = Tokenizer(
        models.WordLevel({letter: index for index, letter in enumerate(LETTERS)}, unk_token="?!")
    )
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    reader = TextTokenizer(PreTrainedTokenizerFast(tokenizer_object=backend))
    assert reader.encode(["abc"])[0].tolist() == [LETTERS.index(letter) for letter in "abc"]
    for call in (reader.unspelled, lambda text: reader.encode([text])):
        with pytest.raises(InputError, match="no token for a part of the text, and none for what is unknown"):
            call(FOREIGN)


def test_what_a_normalizer_or_bytes_spell_is_not_lost() -> None:
    lower = Tokenizer(models.WordPiece({"[UNK]": 0, "cafe": 1, "a": 2}, unk_token="[UNK]"))
    lower.normalizer, lower.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    assert TextTokenizer(PreTrainedTokenizerFast(tokenizer_object=lower)).unspelled("Café  a CAFÉ\n") == 0
    assert TextTokenizer(train_tokenizer(TEXT, 300)).unspelled(FOREIGN + "日本語") == 0


def test_a_text_that_is_not_spelled_has_no_bits_per_byte_or_is_refused(tmp_path: Path) -> None:
    sampling = Sampling(protocol="windows", window=16, draws=2, rows_per_draw=64, seed=0)
    tokens = sample_tokens(letters(unknown=None), FOREIGN * 20, sampling, order="text")
    assert tokens.doubt == "unspelled: 7.6% of the text's bytes have no token"
    write_tokens(tmp_path / "tokens.h5", tokens)
    assert read_tokens(tmp_path / "tokens.h5").doubt == tokens.doubt
    draws = loss_by_draw(tokens, np.ones(len(tokens.ids), dtype=np.float32), predicted=predictable(tokens))
    assert [draw.nats for draw in draws] == [75, 75] and all(math.isnan(draw.bytes) for draw in draws)
    spelled = sample_tokens(letters(unknown=None), "abc def " * 100, sampling, order="text")
    assert (
        spelled.doubt == ""
        and loss_by_draw(spelled, np.ones(160), predicted=predictable(spelled))[0].bytes == 75
    )
    with pytest.raises(InputError, match=r"100.0% of the text's bytes have no token in .*; at most 10% may"):
        sample_tokens(letters(unknown=None), "日本語" * 100, sampling, order="text")
