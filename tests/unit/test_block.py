"""A block is measured family by family, and what is there already is kept, if it would be made the same."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from test_measure import SITES, WIDTH, clouds, stored, tokens

from lmshape.errors import InputError
from lmshape.metrics import block
from lmshape.metrics.block import measure_block
from lmshape.store.activations import Activations, ActivationWriter
from lmshape.store.statistics import read_statistics

FAMILIES = ["spectral", "angular", "neighbor", "linearity"]
ROWS = ["all", "no_sink", "one_per_type"]


def measured(source: Path, folder: Path, **changes: object) -> list[str]:
    options = {"families": FAMILIES, "first": 0, "last": 2, "rows": ROWS, "rows_per_draw": 60} | changes
    return measure_block(source, folder, **options)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return stored(tmp_path / "activations.h5", clouds())


def archive(folder: Path, family: str) -> Path:
    return folder / family / "layers-00-02.h5"


def test_every_family_has_its_archive_with_the_rows_that_concern_it(source: Path, tmp_path: Path) -> None:
    assert measured(source, tmp_path / "s") == FAMILIES
    for family in FAMILIES:
        attributes, layers = read_statistics(archive(tmp_path / "s", family))
        assert attributes["family"] == family and attributes["model"] == "m"
        assert {layer.site for layer in layers} == set(SITES)
        assert {layer.rows for layer in layers} == set(ROWS if family == "neighbor" else ROWS[:2])
        assert attributes["rows_per_draw"] == (60 if family == "neighbor" else 0)


def test_what_would_be_made_the_same_is_kept_and_is_newer_than_the_activations(
    source: Path, tmp_path: Path
) -> None:
    measured(source, tmp_path / "s", families=["spectral"])
    path = archive(tmp_path / "s", "spectral")
    before, inode = path.read_bytes(), path.stat().st_ino
    assert not list(path.parent.glob(".*partial*"))
    os.utime(path, (1, 1))
    assert measured(source, tmp_path / "s", families=["spectral", "angular"]) == ["angular"]
    assert (path.read_bytes(), path.stat().st_ino) == (before, inode)
    assert path.stat().st_mtime >= source.stat().st_mtime


def test_activations_that_are_made_again_alike_are_the_same(source: Path, tmp_path: Path) -> None:
    measured(source, tmp_path / "s")
    again = stored(tmp_path / "again.h5", clouds())
    assert measured(again, tmp_path / "s") == []


def test_what_nobody_knows_is_the_same_again(source: Path, tmp_path: Path) -> None:
    """A local run without `tokens_per_step` has NaN for the tokens it has seen."""
    with h5py.File(source, "r+") as file:
        file.attrs["tokens_seen"] = np.nan
    assert measured(source, tmp_path / "s", families=["angular"]) == ["angular"]
    assert measured(source, tmp_path / "s", families=["angular"]) == []
    with h5py.File(source, "r+") as file:
        file.attrs["tokens_seen"] = 8.0
    assert measured(source, tmp_path / "s", families=["angular"]) == ["angular"]


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("row", [0, 100, -1])
def test_other_activations_are_measured_again(source: Path, tmp_path: Path, site: object, row: int) -> None:
    measured(source, tmp_path / "s", families=["angular"])
    rows = clouds()
    rows[site][row, 0] += 1
    other = stored(tmp_path / "other.h5", rows)
    assert measured(other, tmp_path / "s", families=["angular"]) == ["angular"]


def test_a_change_of_the_layer_before_a_block_counts(source: Path, tmp_path: Path) -> None:
    """Linearity compares a layer with the one before it, which is not of the block."""
    measured(source, tmp_path / "s", families=["linearity"], first=2)
    rows = clouds()
    rows[SITES[1]][-1, 0] += 1
    other = stored(tmp_path / "other.h5", rows)
    assert measured(other, tmp_path / "s", families=["linearity"], first=2) == ["linearity"]


def test_another_loss_is_another_forward_pass(source: Path, tmp_path: Path) -> None:
    measured(source, tmp_path / "s", families=["angular"])
    other = tmp_path / "other.h5"
    with Activations(source) as old:
        rows = {site: old.read(site) for site in old.sites}
        attributes = old.attributes
    with ActivationWriter(other, sites=SITES, width=WIDTH, tokens=tokens(), attributes=attributes) as writer:
        for site in SITES:
            writer.write(site, 0, rows[site])
        writer.write_nll(0, np.ones(3, dtype=np.float32))
    assert measured(other, tmp_path / "s", families=["angular"]) == ["angular"]


@pytest.mark.parametrize(
    ("changes", "again"),
    [
        ({"rows": ["all", "no_sink"]}, ["neighbor"]),
        ({"rows": ["all"]}, FAMILIES),
        ({"rows_per_draw": 50}, ["neighbor"]),
        ({}, []),
    ],
)
def test_other_options_measure_the_families_that_they_concern(
    source: Path, tmp_path: Path, changes: dict, again: list[str]
) -> None:
    measured(source, tmp_path / "s")
    assert measured(source, tmp_path / "s", **changes) == again


def test_changed_code_measures_its_family(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured(source, tmp_path / "s")
    real = block.code_fingerprint
    monkeypatch.setattr(
        block,
        "code_fingerprint",
        lambda *modules: "new" if "lmshape.metrics.angular" in modules else real(*modules),
    )
    assert measured(source, tmp_path / "s") == ["angular"]


@pytest.mark.parametrize("column", ["draw", "sequence", "position", "special"])
def test_tokens_that_are_counted_otherwise_are_others(source: Path, tmp_path: Path, column: str) -> None:
    measured(source, tmp_path / "s", families=["angular"])
    with h5py.File(source, "r+") as file:
        file[f"tokens/{column}"][3] = 1 - int(file[f"tokens/{column}"][3])
    assert measured(source, tmp_path / "s", families=["angular"]) == ["angular"]


def test_a_name_that_was_deleted_is_given_again_and_a_stale_archive_is_not(
    source: Path, tmp_path: Path
) -> None:
    """As Snakemake deletes outputs before a job, and of a job that fails."""
    measured(source, tmp_path / "s")
    before = archive(tmp_path / "s", "spectral").read_bytes()
    for family in FAMILIES:
        archive(tmp_path / "s", family).unlink()
    assert measured(source, tmp_path / "s") == []
    assert archive(tmp_path / "s", "spectral").read_bytes() == before
    rows = clouds()
    rows[SITES[1]][50] += 1
    for family in FAMILIES:
        archive(tmp_path / "s", family).unlink()
    assert measured(stored(tmp_path / "other.h5", rows), tmp_path / "s") == FAMILIES
    assert archive(tmp_path / "s", "spectral").read_bytes() != before


def test_without_hard_links_the_archive_is_a_copy(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError("no hard links here")

    monkeypatch.setattr(os, "link", refused)
    assert measured(source, tmp_path / "s", families=["angular"]) == ["angular"]
    assert measured(source, tmp_path / "s", families=["angular"]) == []
    path = archive(tmp_path / "s", "angular")
    assert read_statistics(path) and path.read_bytes() == block.kept_name(path).read_bytes()
    assert not list(path.parent.glob("*partial*"))


def test_a_broken_archive_is_measured_again(source: Path, tmp_path: Path) -> None:
    measured(source, tmp_path / "s", families=["angular"])
    path = archive(tmp_path / "s", "angular")
    path.write_bytes(path.read_bytes()[:1000])
    assert measured(source, tmp_path / "s", families=["angular"]) == ["angular"]
    assert read_statistics(path)


def test_a_block_beside_the_model_and_an_unknown_family_are_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no layer of the store, 0 to 2"):
        measured(source, tmp_path / "s", first=7, last=8)
    with pytest.raises(InputError, match="unknown module|unknown metric family"):
        measured(source, tmp_path / "s", families=["spectrall"])
