"""A block is measured site by site, and what is there already is kept, if it would be made the same."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from test_measure import SITES, WIDTH, clouds, stored, tokens

from lmshape import fingerprint
from lmshape.errors import InputError
from lmshape.fingerprint import Definitions
from lmshape.geometry import cka, information_imbalance, neighborhood_overlap, neighborhood_overlap_null
from lmshape.metrics import block
from lmshape.metrics.block import measure_block
from lmshape.metrics.layer import Layer
from lmshape.metrics.registry import MEASURED
from lmshape.metrics.rows import RowSums
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


def test_a_family_has_the_same_bits_whatever_is_measured_beside_it(source: Path, tmp_path: Path) -> None:
    measured(source, tmp_path / "together", families=[*FAMILIES, "leading"])
    for family in (*FAMILIES, "leading"):
        measured(source, tmp_path / "alone", families=[family])
        one, other = (archive(tmp_path / folder, family).read_bytes() for folder in ("together", "alone"))
        assert one == other


def test_sums_are_made_once_for_all_families_of_a_site(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    monkeypatch.setattr(
        "lmshape.metrics.rows.RowSums", lambda layer, sets: (made.append(layer), RowSums(layer, sets))[1]
    )
    measured(source, tmp_path / "s", families=["spectral", "angular", "leading", "linearity"])
    assert len(made) == len(SITES)


def test_what_would_be_made_the_same_is_kept_and_is_newer_than_the_activations(
    source: Path, tmp_path: Path
) -> None:
    measured(source, tmp_path / "s", families=["spectral"])
    path = archive(tmp_path / "s", "spectral")
    before, inode = path.read_bytes(), path.stat().st_ino
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


def test_a_checkpoint_is_compared_with_the_final_one_row_by_row(source: Path, tmp_path: Path) -> None:
    """Both clouds of a site without the sinks of either; measured again when another checkpoint is the final one."""
    options = {"families": ["comparison_final"], "rows": ["no_sink"], "rows_per_draw": None}
    last = clouds(1)
    last[SITES[1]][5] *= 1e4
    final = stored(tmp_path / "final.h5", last)
    assert measured(source, tmp_path / "s", final=final, **options) == ["comparison_final"]
    attributes, layers = read_statistics(archive(tmp_path / "s", "comparison_final"))
    assert [layer.site for layer in layers] == list(SITES)
    assert attributes["final_checkpoint"] == "step7"
    kept = np.flatnonzero((np.arange(80) % 16 > 0) & (np.arange(80) != 5))  # of the first draw
    here, there = clouds()[SITES[1]][kept], last[SITES[1]][kept]
    found = {name: values[0] for name, values in layers[1].arrays.items()}
    assert found == {
        "overlap": neighborhood_overlap(here, there),
        "overlap_null": neighborhood_overlap_null(len(kept)),
        "imbalance": information_imbalance(there, here),
        "imbalance_back": information_imbalance(here, there),
        "cka": cka(here, there),
    }
    assert measured(source, tmp_path / "s", final=final, **options) == []
    other = stored(tmp_path / "other.h5", clouds(2))
    assert measured(source, tmp_path / "s", final=other, **options) == ["comparison_final"]
    assert measured(source, tmp_path / "s", **options) == ["comparison_final"]
    attributes, layers = read_statistics(archive(tmp_path / "s", "comparison_final"))
    assert attributes["final_checkpoint"] == ""
    reason = "the final checkpoint itself: comparison_final compares the others with it"
    assert {layer.attributes["flag"] for layer in layers} == {reason}


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
        lambda *names: "new" if "lmshape.metrics.angular.statistics" in names else real(*names),
    )
    assert measured(source, tmp_path / "s") == ["angular"]


@pytest.fixture
def changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, str], dict[str, str]]:
    """Change the text of a file of a copy of the package, and fingerprint what is measured and what is gathered."""
    package = tmp_path / "lmshape"
    shutil.copytree(fingerprint.PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))

    def codes(file: str, old: str, new: str) -> dict[str, str]:
        path, text = package / file, (package / file).read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        definitions = Definitions(package)
        monkeypatch.setattr(block, "code_fingerprint", lambda *names: definitions.fingerprint(names))
        found = {family: block.family_code(family) for family in MEASURED}
        gathering = definitions.fingerprint(["lmshape.tables.gather.gather"])
        return found | {"all": block.families_code(), "gathering": gathering}

    return codes


@pytest.mark.parametrize(
    ("file", "old", "new", "families"),
    [
        ("spectral.py", 'null="that of anisotropy"', 'null="another"', []),
        ("spectral.py", "np.full_like(total, nan)", "np.zeros_like(total)", []),
        ("metric.py", "sqrt(2) * self.step", "2 * self.step", []),
        ("leading.py", "AXES = 3", "AXES = 4", ["leading"]),
        ("neighbor.py", "AUDITED_ROWS = 200", "AUDITED_ROWS = 100", ["neighbor"]),
        ("released.py", "FEWEST_ROWS = 3", "FEWEST_ROWS = 4", ["released"]),
        ("released.py", '"linearity": np.full(1', '"linearity": np.full(2', ["released_linearity"]),
        ("skdim.py", "SEED = 0", "SEED = 1", ["skdim"]),
        ("own.py", '"not finite: {value}', '"infinite: {value}', ["own"]),
        ("rows.py", "CENTER_ROWS = 101", "CENTER_ROWS = 99", ["spectral", "angular", "leading", "neighbor"]),
        ("rows.py", "MOST_NAMED = 20", "MOST_NAMED = 10", list(MEASURED)),
    ],
)
def test_a_change_measures_exactly_the_families_whose_archives_it_changes(
    changed: Callable[[str, str, str], dict[str, str]],
    file: str,
    old: str,
    new: str,
    families: list[str],
) -> None:
    """An entry, and how numbers are made of arrays, is gathered again; nothing is measured for it."""
    before, after = changed(f"metrics/{file}", old, old), changed(f"metrics/{file}", old, new)
    assert [family for family in MEASURED if before[family] != after[family]] == families
    assert (before["all"] != after["all"]) == any(family != "own" for family in families)
    assert before["gathering"] != after["gathering"] or families


@pytest.mark.parametrize("column", ["draw", "sequence", "position", "special"])
def test_tokens_that_are_counted_otherwise_are_others(source: Path, tmp_path: Path, column: str) -> None:
    measured(source, tmp_path / "s", families=["angular"])
    with h5py.File(source, "r+") as file:
        file[f"tokens/{column}"][3] = 1 - int(file[f"tokens/{column}"][3])
    assert measured(source, tmp_path / "s", families=["angular"]) == ["angular"]


def test_an_archive_that_was_deleted_is_made_again_and_a_stale_one_is_replaced(
    source: Path, tmp_path: Path
) -> None:
    measured(source, tmp_path / "s")
    before = archive(tmp_path / "s", "spectral").read_bytes()
    archive(tmp_path / "s", "spectral").unlink()
    assert measured(source, tmp_path / "s") == ["spectral"]
    assert archive(tmp_path / "s", "spectral").read_bytes() == before
    rows = clouds()
    rows[SITES[1]][50] += 1
    assert measured(stored(tmp_path / "other.h5", rows), tmp_path / "s") == FAMILIES
    assert archive(tmp_path / "s", "spectral").read_bytes() != before
    assert {path.name for path in (tmp_path / "s").rglob("*.h5*")} == {"layers-00-02.h5"}


def test_a_job_that_fails_leaves_the_stale_archive(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Snakemake, too, restores what a failed job has updated."""
    measured(source, tmp_path / "s", families=["angular"])
    before = archive(tmp_path / "s", "angular").read_bytes()

    def broken(layer: Layer) -> dict:
        raise MemoryError

    monkeypatch.setitem(MEASURED, "angular", replace(MEASURED["angular"], statistics=broken))
    monkeypatch.setattr(block, "family_code", lambda family: "new")
    with pytest.raises(MemoryError):
        measured(source, tmp_path / "s", families=["angular"])
    assert archive(tmp_path / "s", "angular").read_bytes() == before


def test_estimators_that_are_named_later_measure_their_family_alone(source: Path, tmp_path: Path) -> None:
    families, named = ["angular", "skdim"], ["skdim.MOM(n_neighbors=10)"]
    assert measured(source, tmp_path / "s", families=families, skdim=[*named, "id_twonn"]) == families
    assert measured(source, tmp_path / "s", families=families, skdim=["skdim.MOM( n_neighbors = 10 )"]) == []
    assert measured(source, tmp_path / "s", families=families, skdim=[*named, "skdim.CorrInt"]) == ["skdim"]
    _, layers = read_statistics(archive(tmp_path / "s", "skdim"))
    assert {layer.rows for layer in layers} == set(ROWS)
    assert all(list(layer.arrays) == ["skdim.CorrInt", *named] for layer in layers)
    with pytest.raises(InputError, match="`skdim` stands for the estimators .*, and none is"):
        measured(source, tmp_path / "s", families=["skdim"])


def test_own_metrics_are_measured_when_their_file_changes(source: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text("def f(x): return x.mean()\n")
    options = {"families": ["angular", "own"], "own_metrics": own}
    assert measured(source, tmp_path / "s", **options) == ["angular", "own"]
    assert measured(source, tmp_path / "s", **options) == []
    attributes, _ = read_statistics(archive(tmp_path / "s", "own"))
    assert attributes["code"] == block.family_code("own", own)
    own.write_text("def f(x): return x.max()\n")
    assert measured(source, tmp_path / "s", **options) == ["own"]


def test_a_broken_archive_is_measured_again(source: Path, tmp_path: Path) -> None:
    measured(source, tmp_path / "s", families=["angular"])
    path = archive(tmp_path / "s", "angular")
    path.write_bytes(path.read_bytes()[:1000])
    assert measured(source, tmp_path / "s", families=["angular"]) == ["angular"]
    assert read_statistics(path)


def test_a_block_beside_the_model_and_an_unknown_family_are_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no layer of the store, 0 to 2"):
        measured(source, tmp_path / "s", first=7, last=8)
    with pytest.raises(InputError, match="unknown metric family `spectrall`. Nearest: spectral"):
        measured(source, tmp_path / "s", families=["spectrall"])
