"""One flipped bit in a file of ours: the same content is read, or a message names the file; never other content."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hub_locks import checkpoint, lock_of
from layers import write_statistics

from lmshape.digest import write_digest
from lmshape.errors import InputError
from lmshape.hub.lock import read_lock, write_lock
from lmshape.jobs.texts import whole_text
from lmshape.site import Site
from lmshape.store.activations import Activations, ActivationWriter
from lmshape.store.statistics import (
    DrawLoss,
    LayerStatistics,
    read_loss_card,
    read_statistics,
    write_loss_card,
)
from lmshape.store.tokens import Tokens, read_tokens, write_tokens
from lmshape.tables.columns import read_parquet, write_parquet

pytestmark = pytest.mark.slow

FLIPS = int(os.environ.get("LMSHAPE_FLIPS", "60"))  # of each format; `make soak` asks for more
SITES = (Site("embedding", 0), Site("block", 1), Site("final_norm", 1))
ROOT = {"model": "tiny", "family": "spectral", "step": 4, "tokens_seen": 128.0, "sampling": "{}", "note": ""}

Read = Callable[[Path], object]


def tokens() -> Tokens:
    n = 40
    return Tokens(
        ids=np.arange(n) % 7,
        sequence=np.repeat(np.arange(4), 10),
        position=np.tile(np.arange(10), 4),
        draw=np.repeat(np.arange(2), 20),
        special=np.arange(n) % 10 == 0,
        sequence_bytes=np.full(4, 30),
        attributes={"tokenizer_sha256": "abc", "seed": 3},
        texts={index: "$ß\u200b" * index for index in range(7)},
    )


def write_activations(path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)
    with ActivationWriter(path, sites=SITES, width=6, tokens=tokens(), attributes=ROOT) as writer:
        for site in SITES:
            writer.write(site, 0, rows)
        writer.write_nll(0, rows[:, 0])


def read_activations(path: Path) -> object:
    with Activations(path) as activations:
        rows = [
            (site, part.tobytes())
            for site in activations.sites
            for _, part in activations.rows(site).chunks()
        ]
        nll = activations.nll.tobytes()
        return activations.attributes, plain(activations.tokens), rows, nll


def write_archive(path: Path) -> None:
    rng = np.random.default_rng(0)
    counts = {"n_rows": 40, "draws": 2, "flag": "few types: 7 per draw"}
    layers = [
        LayerStatistics(
            site, rows, {"eigenvalues": rng.standard_normal((3, 5)), "rows": rng.random(3)}, counts
        )
        for site in SITES
        for rows in ("all", "no_sink")
    ]
    axes = {"eigenvalues": ("left_out", "component")}
    write_statistics(path, attributes=ROOT, layers=layers, axes=axes)


def read_archive(path: Path) -> object:
    attributes, layers = read_statistics(path)
    arrays = [(one.site, one.rows, {k: v.tobytes() for k, v in one.arrays.items()}) for one in layers]
    return attributes, arrays, [one.attributes for one in layers]


def plain(found: Tokens) -> object:
    columns = (found.ids, found.sequence, found.position, found.draw, found.special, found.sequence_bytes)
    return [column.tolist() for column in columns], dict(found.attributes), dict(found.texts)


TABLE = pa.table({"metric": ["anisotropy", "loss"] * 20, "value": np.arange(40) / 7, "step": list(range(40))})


def write_rows(path: Path) -> None:
    write_parquet(TABLE.replace_schema_metadata({"checkpoints": '{"step4": {"commit": "abc"}}'}), path)


def read_rows(path: Path) -> object:
    found = read_parquet(path)
    return found.to_pydict(), found.schema.metadata[b"checkpoints"]


def write_card(path: Path) -> None:
    draws = [DrawLoss(draw=draw, tokens=40, nats=100.5 + draw, bytes=150.0) for draw in range(3)]
    write_loss_card(path, attributes=ROOT | {"tokens_seen": float("nan")}, draws=draws)


def write_a_text(path: Path) -> None:
    path.write_text("the cat sat on the mat. " * 9)
    write_digest(path)


def write_a_lock(path: Path) -> None:
    write_lock(path, lock_of([checkpoint(0), checkpoint(8, note="a#1")], facts={"blocks": 6}))


FORMATS: dict[str, tuple[Callable[[Path], None], Read]] = {
    "activations.h5": (write_activations, read_activations),
    "statistics.h5": (write_archive, read_archive),
    "tokens.h5": (lambda path: write_tokens(path, tokens()), lambda path: plain(read_tokens(path))),
    "rows.parquet": (write_rows, read_rows),
    "text.txt": (write_a_text, whole_text),
    "lock.tsv": (write_a_lock, read_lock),
    "card.json": (write_card, lambda path: str(read_loss_card(path))),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_flipped_bit_is_noticed_or_changes_nothing(name: str, tmp_path: Path) -> None:
    write, read = FORMATS[name]
    path = tmp_path / name
    write(path)
    whole, expected = path.read_bytes(), read(path)
    noticed = 0
    for bit in np.random.default_rng(1).integers(8 * len(whole), size=FLIPS).tolist():
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            found = read(path)
        except InputError as error:
            assert f"`{path}`" in str(error) and "\n" not in str(error), str(error)
            noticed += 1
        else:
            assert found == expected, f"bit {bit} changed what is read"
    assert noticed > FLIPS / 20, "hardly a flip was noticed"
    path.write_bytes(whole)
    assert read(path) == expected
