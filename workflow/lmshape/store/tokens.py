"""The tokens file: the one token matrix that every checkpoint of a model reads on a dataset."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from lmshape.store.hdf5 import (
    name_axes,
    new_file,
    noticed,
    open_format,
    read_attributes,
    write_array,
    write_attributes,
)

LEAST_UNSPELLED = 0.01  # of a text's bytes: bits per byte are off by as much


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """The tokens of a cell, in rows ordered by sequence, then position; sequences are ordered by draw.

    Attributes
    ----------
    ids : (n,) int32
    sequence : (n,) int32, 0 … S - 1
    position : (n,) int32, from 0 in each sequence
    draw : (n,) int32, 0 … K - 1
    special : (n,) bool, true where the tokenizer's own template put the token ([CLS], [SEP], BOS, …)
    sequence_bytes : (S,) int32, UTF-8 bytes of the tokens that a next-token loss covers: all but the first
        token of the sequence, special ones left out, as the tokenizer decodes them
    attributes : `tokenizer_sha256`, `special_tokens` (JSON: the template's `prefix` and `suffix`), `text_sha256`,
        `sampling` (JSON), `seed`, `mask_token_id` (-1: none), `unspelled` (share of the text's bytes without a token),
        `shared_documents` (a doubt about the intervals; empty where there is none)
    texts : token id → the text that it stands for, special tokens too; empty where that is not known
    """

    ids: np.ndarray
    sequence: np.ndarray
    position: np.ndarray
    draw: np.ndarray
    special: np.ndarray
    sequence_bytes: np.ndarray
    attributes: Mapping[str, str | int | float]
    texts: Mapping[int, str] = field(default_factory=dict)

    @property
    def doubt(self) -> str:
        """Say if the tokens do not spell the text, so that bits per byte mean nothing; empty if they do."""
        share = float(self.attributes.get("unspelled", 0.0))
        return f"unspelled: {share:.1%} of the text's bytes have no token" if share > LEAST_UNSPELLED else ""


TOKENS_FORMAT = "lmshape-tokens"

# dataset in the file -> field of Tokens, and its type
_COLUMNS = {
    "id": ("ids", np.int32),
    "sequence": ("sequence", np.int32),
    "position": ("position", np.int32),
    "draw": ("draw", np.int32),
    "special": ("special", np.bool_),
    "sequence_bytes": ("sequence_bytes", np.int32),
}
_AXES = {"sequence_bytes": "sequences", "type_id": "types", "type_text": "types"}  # of the others `row`


def write_tokens(path: str | Path, tokens: Tokens) -> None:
    """Write a tokens file: `/tokens/{id,sequence,position,draw,special,sequence_bytes,type_id,type_text}`."""
    with new_file(path, TOKENS_FORMAT) as file:
        write_token_group(file, tokens)


def read_tokens(path: str | Path) -> Tokens:
    """Read a tokens file; `InputError` for a missing, truncated or foreign file."""
    with open_format(path, TOKENS_FORMAT) as file, noticed(path):
        return read_token_group(file)


def token_columns(tokens: Tokens) -> dict[str, np.ndarray]:
    """Return the arrays of the group `/tokens`.

    `type_id` and `type_text` are the distinct ids in ascending order and what each stands for, as JSON strings:
    HDF5 ends a text at the character 0, which is a token of byte-level vocabularies.
    """
    columns: dict[str, np.ndarray] = {
        name: np.asarray(getattr(tokens, attribute), dtype=dtype)
        for name, (attribute, dtype) in _COLUMNS.items()
    }
    types = sorted(tokens.texts)
    texts = [json.dumps(tokens.texts[index], ensure_ascii=False).encode() for index in types]
    longest = max(map(len, texts), default=1)
    columns["type_id"] = np.array(types, dtype=np.int32)
    columns["type_text"] = np.array(texts, dtype=h5py.string_dtype("utf-8", longest))
    return columns


def write_token_group(file: h5py.File, tokens: Tokens) -> h5py.Group:
    """Write the group `/tokens`, the same in the tokens file and beside activations."""
    group = file.create_group("tokens")
    write_attributes(group, tokens.attributes)
    for name, column in token_columns(tokens).items():
        name_axes(write_array(group, name, column), _AXES.get(name, "row"))
    return group


def read_token_group(file: h5py.File) -> Tokens:
    """Read the group `/tokens` of a tokens or activations file."""
    group = file["tokens"]
    columns = {field: group[name][:] for name, (field, _) in _COLUMNS.items()}
    texts = json.loads(b"[%s]" % b",".join(group["type_text"][:].tolist()))
    by_id = dict(zip(group["type_id"][:].tolist(), texts, strict=True))
    return Tokens(**columns, attributes=read_attributes(group), texts=by_id)
