"""From a text to the fixed tokens of a (model, dataset): K disjoint draws of whole sequences, and two controls."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np

from lmshape.errors import InputError
from lmshape.store.tokens import Tokens
from lmshape.texts.tokenizer import TextTokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Protocol = Literal["windows", "paper"]
Order = Literal["text", "shuffled", "random"]
# One independent stream of random numbers each; append only, the position is part of the seed.
PURPOSES = ("windows", "chunks", "shuffled", "random")

SPARE_ROWS = 1.25  # rows sampled for each row needed: repeated rows and sinks are dropped later
MOST_UNSPELLED = 0.1  # of a text's bytes: what is left of it is another text
# The sampling of LLM-Microscope's released code (Razzhigaev et al. 2025).
PAPER_CHUNKS = 128
PAPER_CHARACTERS = 512

# Text tokens of each sequence, without the template, and the draw that each belongs to, ascending.
Sequences = tuple[Sequence[np.ndarray], np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Which tokens are measured; the same for every checkpoint of a model.

    Attributes
    ----------
    protocol : packed `windows`, or the random chunks of the `paper`, which uses `draws` and `seed` alone
    window : tokens of a sequence
    draws : K, disjoint draws of whole sequences
    rows_per_draw : unique rows of a draw that neighbor metrics use
    seed : of the choice of sequences, of shuffling and random tokens; the same one gives the same windows in any order
    """

    protocol: Protocol
    window: int
    draws: int
    rows_per_draw: int
    seed: int

    @property
    def used(self) -> dict[str, str | int]:
        """What its protocol uses, but for the seed."""
        used: dict[str, str | int] = {"protocol": self.protocol, "draws": self.draws}
        if self.protocol == "windows":
            used |= {"window": self.window, "rows_per_draw": self.rows_per_draw}
        return used

    @property
    def sequences_per_draw(self) -> int:
        """Windows of a draw: a quarter more tokens than rows, so that repeated rows can be dropped."""
        return math.ceil(SPARE_ROWS * self.rows_per_draw / self.window)

    @property
    def most_tokens(self) -> int:
        """Tokens of a cell, at most: a character of the paper's chunks is one token at the very most."""
        if self.protocol == "paper":
            return PAPER_CHUNKS * PAPER_CHARACTERS
        return self.draws * self.sequences_per_draw * self.window


def sample_tokens(
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    sampling: Sampling,
    *,
    order: Order,
    context: int | None = None,
    vocabulary: int | None = None,
    documents: Sequence[int] | None = None,
) -> Tokens:
    """Choose the tokens that every checkpoint of a model sees on a dataset.

    `windows`: the text's token ids are packed and cut into non-overlapping windows which, with the special
    tokens of the tokenizer's template around them, have exactly `window` tokens. The text is cut into `draws`
    stretches of equal length, one for each draw, of which ceil(1.25 `rows_per_draw` / `window`) windows are chosen at
    random. Where documents are known, a cut moves to the nearest end of one, and a window that lies on both sides is
    in no draw: windows of one document are alike, and draws that shared it would differ too little for their
    intervals. Where a draw would get too few windows so, cuts stay, and the attribute `shared_documents` says it.
    `paper`: 128 random chunks of 512 characters without overlap, each tokenized on its own, whatever its
    length; chunk i is in draw i mod `draws`. `window` and `rows_per_draw` have no part in it.

    Parameters
    ----------
    tokenizer : fast tokenizer of transformers, left as it is
    text : unused when `order` is "random" in `windows`
    sampling : how sequences are taken from the text
    order : "text" as it stands; "shuffled" permutes the tokens within each sequence; "random" replaces each
        by one drawn uniformly from the vocabulary without special tokens. The template's tokens stay in place
    context : longest sequence that the model takes; None is not checked
    vocabulary : rows of the model's embedding: random tokens are drawn below it, as tokens that were added to the
        tokenizer alone may lie beyond; None where it is not known
    documents : characters of `text` at which a document begins, rising, without the first; None where they are not
        known; without a part in `paper`

    Raises
    ------
    InputError
        For a count below 1, a sequence longer than the context, a window
        without room for two tokens of text, an empty text or one with too few tokens, and a text of which over
        10 % of the bytes have no token.
    """
    for name, least in {"window": 1, "draws": 1, "rows_per_draw": 1, "seed": 0}.items():
        if getattr(sampling, name) < least:
            raise InputError(f"`{name}` is {getattr(sampling, name)}; it must be at least {least}.")
    reader = TextTokenizer(tokenizer)
    unspelled = 0.0 if order == "random" else _unspelled(reader, text, tokenizer.name_or_path)
    shared = ""
    if sampling.protocol == "paper":
        contents, draw = _chunks(reader, text, draws=sampling.draws, seed=sampling.seed, context=context)
    else:
        length = _window_length(reader, sampling.window, context)
        # Random tokens take nothing of the text but the shape of its windows, which is known without it.
        source = None if order == "random" else text
        (contents, draw), shared = _windows(reader, source, documents, length=length, sampling=sampling)
    if order == "shuffled":
        generator = _generator(sampling.seed, order)
        contents = [generator.permutation(content) for content in contents]
    if order == "random":
        generator = _generator(sampling.seed, order)
        ids = reader.ordinary if vocabulary is None else reader.ordinary[reader.ordinary < vocabulary]
        contents = [generator.choice(ids, size=len(content)) for content in contents]
    return _assemble(
        (contents, draw), {**sampling.used, "order": order}, tokenizer.mask_token_id, reader, text,
        seed=sampling.seed, unspelled=unspelled, shared_documents=shared,
    )  # fmt: skip


def tokens_of_texts(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, window: int, draws: int
) -> Tokens:
    """Take each text as a sequence of its own, cut at `window` tokens; text i is in draw i mod `draws`.

    Parameters
    ----------
    tokenizer : fast tokenizer of transformers, left as it is; its template is put around every text
    texts : one sequence each; those without a token are left out
    window : most tokens of a sequence, those of the template among them
    draws : K, 2 or more

    Raises
    ------
    InputError
        When there are fewer texts than draws, or `window` has no room for two tokens of text.
    """
    reader = TextTokenizer(tokenizer)
    length = _window_length(reader, window, None)
    contents = [ids[:length] for ids in reader.encode(texts) if len(ids)]
    text = "\n".join(texts)
    return _assemble(
        _dealt(contents, draws),
        {"protocol": "texts", "window": window, "draws": draws},
        tokenizer.mask_token_id,
        reader,
        text,
        unspelled=_unspelled(reader, text, tokenizer.name_or_path),
    )


def tokens_of_ids(sequences: Sequence[np.ndarray], *, draws: int, mask_token_id: int | None = None) -> Tokens:
    """Take token ids as they are, a sequence each; sequence i is in draw i mod `draws`.

    What text they stand for is not known: no token counts as the template's, and there are no bits per byte.

    Raises
    ------
    InputError
        When there are fewer sequences than draws, or one is not a row of whole numbers.
    """
    contents = [np.asarray(ids) for ids in sequences]
    for ids in contents:
        if ids.ndim != 1 or not len(ids) or ids.dtype.kind not in "iu":
            raise InputError(
                f"a sequence of ids has shape {ids.shape} and type {ids.dtype}; each must be a row of whole numbers, "
                "and all of them an array (sequences, length) or a list of rows."
            )
    return _assemble(_dealt(contents, draws), {"protocol": "ids", "draws": draws}, mask_token_id)


def _dealt(contents: Sequence[np.ndarray], draws: int) -> Sequences:
    """Deal sequences out to draws in turn, and put them in the order of the draws."""
    if draws < 2:
        raise InputError(f"`draws` is {draws}; intervals come from the spread over them. Take 5 or more.")
    if len(contents) < draws:
        raise InputError(
            f"{len(contents)} sequences with tokens, and {draws} draws; a draw needs one. Give more, or lower `draws`."
        )
    draw = np.arange(len(contents)) % draws
    order = np.argsort(draw, kind="stable")
    return [contents[i] for i in order], draw[order]


def rows_in(tokenizer: PreTrainedTokenizerBase, text: str, *, window: int, draws: int) -> int:
    """Return the most `rows_per_draw` that `sample_tokens` can take of a text in the protocol `windows`.

    Raises
    ------
    InputError
        When the text has fewer windows than draws.
    """
    reader = TextTokenizer(tokenizer)
    tokens = len(reader.encode_long(_not_empty(text)))
    per_draw = tokens // _window_length(reader, window, None) // draws
    if not per_draw:
        raise InputError(
            f"the text has {tokens} tokens, and {draws} draws of a window of {window} need {draws * window}. Take a "
            "longer text, or lower `window` or `draws`."
        )
    return int(per_draw * window / SPARE_ROWS)


def _unspelled(reader: TextTokenizer, text: str, name: str) -> float:
    share = reader.unspelled(text)
    if share > MOST_UNSPELLED:
        raise InputError(
            f"{share:.1%} of the text's bytes have no token in `{name}`; at most {MOST_UNSPELLED:.0%} may. Take a text "
            "in the characters of this tokenizer, or the tokenizer that the model was trained with."
        )
    return share


def _window_length(reader: TextTokenizer, window: int, context: int | None) -> int:
    """Give the tokens of text in a window."""
    if context is not None and window > context:
        raise InputError(f"`window` is {window}, more than the model's context of {context}; lower `window`.")
    if window < reader.added + 2:
        raise InputError(
            f"`window` is {window}, of which special tokens take {reader.added}; "
            f"raise it to {reader.added + 2} or more."
        )
    return window - reader.added


def _windows(
    reader: TextTokenizer,
    text: str | None,
    documents: Sequence[int] | None,
    *,
    length: int,
    sampling: Sampling,
) -> tuple[Sequences, str]:
    """Choose windows of `length` tokens of the text, and say if draws share documents; without a text, zeros."""
    draws, per_draw = sampling.draws, sampling.sequences_per_draw
    count = draws * per_draw
    draw = np.repeat(np.arange(draws), per_draw)
    if text is None:
        return ([np.zeros(length, dtype=np.int32)] * count, draw), ""
    ids = reader.encode_long(_not_empty(text))
    found = len(ids) // length
    stretch = found // draws
    if stretch < per_draw:
        raise InputError(
            f"the text has {len(ids)} tokens, and {count * length} are needed: {draws} draws of {per_draw} "
            f"windows of {length}. Lower `draws`, `rows_per_draw` or `window`, or take a larger text."
        )
    generator, shared = _generator(sampling.seed, "windows"), ""
    orders = [place * stretch + generator.permutation(stretch) for place in range(draws)]
    if documents is not None:
        begins = np.searchsorted(reader.first_characters(text), documents)
        ends = [0, *_moved(np.arange(1, draws) * stretch * length, begins, len(ids)), len(ids)]
        whole = [(-(-first // length), last // length) for first, last in pairwise(ends)]
        if min(last - first for first, last in whole) >= per_draw:
            orders = [_own(order, *own, generator) for order, own in zip(orders, whole, strict=True)]
        else:
            shared = f"draws share documents: the text has {len(documents) + 1}"
    chosen = np.concatenate([order[:per_draw] for order in orders])
    return (ids[: found * length].reshape(found, length)[chosen], draw), shared


def _moved(cuts: np.ndarray, begins: np.ndarray, count: int) -> list[int]:
    """Move each cut to the nearest place where a document begins or ends, of `count` tokens."""
    ends = np.array([0, *begins, count])
    return ends[np.abs(ends - cuts[:, None]).argmin(axis=1)].tolist()


def _own(order: np.ndarray, first: int, last: int, generator: np.random.Generator) -> np.ndarray:
    """Keep the windows from `first` to `last` of a draw in their order, and put behind them those that it gains."""
    kept = order[(order >= first) & (order < last)]
    return np.concatenate([kept, generator.permutation(np.setdiff1d(np.arange(first, last), order))])


def _chunks(reader: TextTokenizer, text: str, *, draws: int, seed: int, context: int | None) -> Sequences:
    """Choose the paper's chunks from the cells of a grid, so that none overlap."""
    if draws > PAPER_CHUNKS:
        raise InputError(
            f"`draws` is {draws}; the protocol `paper` has {PAPER_CHUNKS} chunks. Lower `draws`."
        )
    cells = len(_not_empty(text)) // PAPER_CHARACTERS
    if cells < PAPER_CHUNKS:
        raise InputError(
            f"the text has {len(text)} characters, and the protocol `paper` needs "
            f"{PAPER_CHUNKS * PAPER_CHARACTERS}; take a larger text or the protocol `windows`."
        )
    starts = _generator(seed, "chunks").choice(cells, PAPER_CHUNKS, replace=False) * PAPER_CHARACTERS
    contents = reader.encode([text[start : start + PAPER_CHARACTERS] for start in starts])
    longest = max(map(len, contents)) + reader.added
    if context is not None and longest > context:
        raise InputError(
            f"a chunk of {PAPER_CHARACTERS} characters has {longest} tokens, more than the model's context "
            f"of {context}; take the protocol `windows`."
        )
    return _dealt(contents, draws)


def _assemble(
    sequences: Sequences,
    sampling: Mapping[str, str | int],
    mask_token_id: int | None,
    reader: TextTokenizer | None = None,
    text: str = "",
    **known: str | int | float,
) -> Tokens:
    """Put the template around each sequence, and say where all of it came from; without a reader there is none."""
    prefix, suffix = (reader.prefix, reader.suffix) if reader else ([], [])
    contents, draw = sequences
    framed = [[*prefix, *content.tolist(), *suffix] for content in contents]
    lengths = np.array([len(ids) for ids in framed])
    position = np.concatenate([np.arange(length) for length in lengths])
    from_end = np.repeat(lengths, lengths) - 1 - position
    ids = np.concatenate(framed).astype(np.int32)
    unknown_bytes = np.zeros(len(framed), dtype=np.int32)
    return Tokens(
        ids=ids,
        sequence=np.repeat(np.arange(len(framed)), lengths).astype(np.int32),
        position=position.astype(np.int32),
        draw=np.repeat(draw, lengths).astype(np.int32),
        special=(position < len(prefix)) | (from_end < len(suffix)),
        sequence_bytes=reader.count_bytes([frame[1:] for frame in framed]) if reader else unknown_bytes,
        attributes={
            "tokenizer_sha256": reader.sha256 if reader else "",
            "special_tokens": json.dumps(reader.special_tokens if reader else {"prefix": [], "suffix": []}),
            "text_sha256": hashlib.sha256(text.encode()).hexdigest() if reader else "",
            "sampling": json.dumps(sampling, sort_keys=True),
            "seed": 0,
            "mask_token_id": -1 if mask_token_id is None else mask_token_id,
            **known,
        },
        texts=reader.texts(np.unique(ids).tolist()) if reader else {},
    )


def _not_empty(text: str) -> str:
    if not text.strip():
        raise InputError("the text is empty; name another text, or another span of it.")
    return text


def _generator(seed: int, purpose: str) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(PURPOSES.index(purpose),)))
