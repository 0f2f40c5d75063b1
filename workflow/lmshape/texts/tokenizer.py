"""The tokenizer that a folder holds: files of its own, or a GGUF file that carries one."""

from __future__ import annotations

import copy
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmshape.digest import check_digest
from lmshape.errors import InputError, first_line
from lmshape.store.weights import FOREIGN_CODE, check_fetched, only_gguf, why_not_opened
from lmshape.writing import folder_when_whole

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast


TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt", "merges.txt")
UNCONVERTED = ("*.model", "*.tiktoken")  # of SentencePiece and tiktoken


def tokenizer_files(folder: Path) -> list[Path]:
    """Return the files whose change makes a tokenizer another one; none where there is no tokenizer."""
    own = [folder / name for name in TOKENIZERS if (folder / name).is_file()]
    quantized = None if own else only_gguf(folder)
    return [quantized] if quantized else own


def check_tokenizer(folder: Path) -> None:
    """Refuse a folder with tokenizer files that do not make a tokenizer.

    Raises
    ------
    InputError
        When Git LFS has not fetched them, when they are settings without a vocabulary, or when they are of
        SentencePiece or tiktoken alone.
    """
    own = tokenizer_files(folder)
    for path in own:
        check_fetched(path)
    if any(not path.name.startswith(("tokenizer_config", "merges")) for path in own):
        return
    unconverted = [path.name for pattern in UNCONVERTED for path in sorted(folder.glob(pattern))]
    if unconverted:
        raise InputError(
            f"`{folder}` has {unconverted[0]} and no tokenizer.json. Convert it where sentencepiece, tiktoken and "
            "protobuf are installed: `AutoTokenizer.from_pretrained(folder).save_pretrained(folder)`."
        )
    if own:
        raise InputError(
            f"`{folder}` has {own[0].name} and no vocabulary. Save the tokenizer again, or give the folder that holds "
            "it as `tokenizer` in the registry of models."
        )


def named_tokens(folder: Path) -> dict[str, object]:
    """Return what `tokenizer_config.json` says of tokens by name, such as `mask_token` and `add_bos_token`.

    The rest of that file does not change ids, and differs between the checkpoints of a run.
    """
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_bytes()) if file.is_file() else {}
    return {name: value for name, value in settings.items() if name.endswith("_token")}


def load_tokenizer(folder: Path, *, remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a folder, without asking the hub for anything, and by default without running its code.

    A `tokenizer.json` says alone which ids a text has. The class that its settings name, which may split text in
    another way, gives what the file cannot say: which token is the mask, and the template of a file without one.

    Raises
    ------
    InputError
        When there is none, none that transformers can read, one that has changed since lmshape wrote it, or one that is
        Python code which must not run.
    """
    import tokenizers
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    check_tokenizer(folder)
    files = tokenizer_files(folder)
    if not files:
        raise InputError(
            f"no tokenizer ({', '.join(TOKENIZERS)}, or a GGUF file) in `{folder}`. Correct the path."
        )
    for path in files:
        check_digest(path)
    carried = {"gguf_file": files[0].name} if files[0].suffix == ".gguf" else {}
    file = folder / "tokenizer.json"
    local: dict[str, Any] = {"local_files_only": True, **carried}
    try:
        own = tokenizers.Tokenizer.from_file(str(file)) if file.is_file() else None
        try:
            named = AutoTokenizer.from_pretrained(folder, trust_remote_code=remote_code, **local)
        except Exception as error:
            if own is None or FOREIGN_CODE in str(error):
                raise
            named = PreTrainedTokenizerFast.from_pretrained(folder, **local)  # its class reads other files
    except Exception as error:  # tokenizers raises nothing narrower
        if FOREIGN_CODE in str(error):
            raise InputError(f"the tokenizer of `{folder}` cannot be read: {why_not_opened(error)}") from None
        raise InputError(
            f"the tokenizer of `{folder}` cannot be read by tokenizers {tokenizers.__version__} ({first_line(error)}). "
            "Save it again with the versions that are installed here."
        ) from error
    return _as_in_file(named, own, folder) if own else named


def _as_in_file(named: PreTrainedTokenizerBase, own: Tokenizer, folder: Path) -> PreTrainedTokenizerBase:
    from transformers import PreTrainedTokenizerFast

    if own.post_processor is None and named.is_fast:
        own.post_processor = named.backend_tokenizer.post_processor
    known = {
        role: token
        for role, token in named.special_tokens_map.items()
        if own.token_to_id(str(token)) is not None
    }
    return PreTrainedTokenizerFast(tokenizer_object=own, name_or_path=str(folder), **known)


SLICE_CHARACTERS = 100_000
SAMPLED_CHARACTERS, SAMPLED_PIECES = 200_000, 20  # a fraction of a second
SLICES_PER_BATCH = 32  # bounds the memory that the encodings take to some 100 MB


class TextTokenizer:
    """A transformers tokenizer seen as a function of text alone.

    Truncation, padding and everything else that depends on how it was last called is off, and text that
    spells a special token is encoded as text: "</s>" on a page is four characters, not the end of a sequence.

    Parameters
    ----------
    tokenizer : a fast tokenizer, which is left as it is

    Attributes
    ----------
    backend : private copy of the tokenizer's backend
    prefix, suffix : ids that the template puts around a sequence ([CLS] … [SEP], BOS, nothing)
    ordinary : ids that stand for a piece of text, int32 ascending: in the vocabulary and not special
    unknown : ids that stand for what has no token

    Raises
    ------
    InputError
        When the tokenizer is slow, or has no token for the letter a (its template is read off that).
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.backend = _plain_backend(tokenizer)
        probe = self.backend.encode("a")
        inside = np.flatnonzero(np.array(probe.special_tokens_mask) == 0)
        if not len(inside):
            raise InputError(
                f"`{tokenizer.name_or_path}` has no token for `a`, so its special tokens cannot be located; "
                "use a tokenizer whose vocabulary has the alphabet."
            )
        self.prefix: list[int] = probe.ids[: inside[0]]
        self.suffix: list[int] = probe.ids[inside[-1] + 1 :]
        # Ids without a token, such as the rows that pad an embedding matrix, are in no vocabulary.
        special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
        special.update(tokenizer.all_special_ids)
        self.ordinary = np.array(sorted(set(tokenizer.get_vocab().values()) - special), dtype=np.int32)
        named = getattr(self.backend.model, "unk_token", None)
        self.unknown = {tokenizer.unk_token_id, self.backend.token_to_id(named) if named else None} - {None}

    @property
    def added(self) -> int:
        """Number of tokens that the template adds to a sequence."""
        return len(self.prefix) + len(self.suffix)

    @property
    def special_tokens(self) -> dict[str, list[str]]:
        """The tokens of the template by name, `prefix` and `suffix`; empty lists where it adds none."""
        parts = {"prefix": self.prefix, "suffix": self.suffix}
        return {part: [str(self.backend.id_to_token(index)) for index in ids] for part, ids in parts.items()}

    @property
    def sha256(self) -> str:
        """Fingerprint of what turns text into ids: vocabulary, merges, normalizer, template."""
        return hashlib.sha256(self.backend.to_str().encode()).hexdigest()

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Encode each text on its own, (n_i,) int32 without the template."""
        with _spelling():
            encodings = self.backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]

    def encode_long(self, text: str) -> np.ndarray:
        """Encode a text of any length, (n,) int32 without the template, in slices cut before white space.

        A tokenizer that splits at white space gives what it gives for the whole text; one that puts a space
        before its input does so once a slice. About 2.5 MB/s on one core.
        """
        slices = list(_slices(text))
        ids = [np.empty(0, dtype=np.int32)]
        for first in range(0, len(slices), SLICES_PER_BATCH):
            ids += self.encode(slices[first : first + SLICES_PER_BATCH])
        return np.concatenate(ids)

    def first_characters(self, text: str) -> np.ndarray:
        """Return where in a text each token of `encode_long` begins, (n,) int64."""
        begin, found = 0, [np.empty(0, dtype=np.int64)]
        for piece in _slices(text):
            offsets = self.backend.encode(piece, add_special_tokens=False).offsets
            found.append(begin + np.array([first for first, _ in offsets], dtype=np.int64))
            begin += len(piece)
        return np.concatenate(found)

    def unspelled(self, text: str) -> float:
        """Return the share of a text's UTF-8 bytes that no token stands for, white space counted as spelled.

        Of a text of over 200 000 characters, twenty pieces from all over it are compared.
        """
        pieces = [text] if len(text) <= SAMPLED_CHARACTERS else _spread(text)
        lost = self._dropped_bytes("".join(pieces))
        for piece in pieces:
            with _spelling():
                encoding = self.backend.encode(piece, add_special_tokens=False)
            for (start, end), index in zip(encoding.offsets, encoding.ids, strict=True):
                lost += len(piece[start:end].strip().encode()) if index in self.unknown else 0
        return lost / max(1, sum(len(piece.encode()) for piece in pieces))

    def _dropped_bytes(self, text: str) -> int:
        """Count what BPE without an unknown token leaves out: characters that have no token alone."""
        counts = Counter("".join(text.split()))
        alone = zip(counts.items(), self.encode(list(counts)), strict=True)
        return sum(len(letter.encode()) * count for (letter, count), ids in alone if not len(ids))

    def count_bytes(self, sequences: Sequence[Sequence[int]]) -> np.ndarray:
        """Count the UTF-8 bytes of what each sequence decodes to, special tokens left out, (S,) int32.

        The parts of a character cut at a sequence's border each decode to U+FFFD, three bytes.
        """
        decoded = self.backend.decode_batch(sequences, skip_special_tokens=True)
        return np.array([len(text.encode()) for text in decoded], dtype=np.int32)

    def texts(self, ids: Sequence[int]) -> dict[int, str]:
        """Decode each id by itself, special tokens too; a part of a character gives U+FFFD."""
        decoded = self.backend.decode_batch([[index] for index in ids], skip_special_tokens=False)
        return dict(zip(ids, decoded, strict=True))


@contextmanager
def _spelling() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # tokenizers raises nothing narrower
        raise InputError(
            f"the tokenizer has no token for a part of the text, and none for what is unknown ({error}). "
            "Add its unknown token to the vocabulary, or take the tokenizer that the model was trained with."
        ) from error


def _plain_backend(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    if not tokenizer.is_fast:
        raise InputError(f"`{tokenizer.name_or_path}` is a slow tokenizer; convert it to a `tokenizer.json`.")
    backend = copy.deepcopy(tokenizer.backend_tokenizer)
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True
    if getattr(backend.model, "dropout", None):
        backend.model.dropout = None  # of training: merges left out at random
    return backend


def _spread(text: str) -> list[str]:
    size = SAMPLED_CHARACTERS // SAMPLED_PIECES
    starts = np.linspace(0, len(text) - size, SAMPLED_PIECES).astype(int)
    return [text[start : start + size] for start in starts]


def _slices(text: str) -> Iterator[str]:
    start = 0
    while start < len(text):
        end = start + SLICE_CHARACTERS
        if end < len(text):
            end = start + _cut_before_space(text[start:end])
        yield text[start:end]
        start = end


def _cut_before_space(piece: str) -> int:
    """Find where to end a slice; white space goes to the word behind it, as byte-level tokenizers have it."""
    last_space = max(piece.rfind(" "), piece.rfind("\n"))
    return len(piece[: last_space + 1].rstrip()) or len(piece)


END_OF_TEXT, MASK, PAD = "<|endoftext|>", "<|mask|>", "<|pad|>"


def train_tokenizer(text: str, vocabulary: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer that can spell any text.

    Parameters
    ----------
    text : the training text
    vocabulary : number of entries, the 256 bytes and three special tokens included: 259 or more

    Returns
    -------
    A tokenizer with end-of-text, mask and padding tokens that adds no special token by itself.

    Raises
    ------
    InputError
        When the text is empty.
    """
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
