"""One pass in pieces for all choices of rows: the same numbers as of whole arrays, and the driver around it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from layers import layer_of

from lmshape.metrics import angular, block, spectral
from lmshape.metrics.layer import Layer, Measured
from lmshape.metrics.registry import MEASURED
from lmshape.metrics.rows import choices, parts_of, robust_center, survey
from lmshape.site import Site
from lmshape.store.activations import ActivationWriter, Rows
from lmshape.store.statistics import read_statistics
from lmshape.store.tokens import Tokens

pytestmark = pytest.mark.slow

N, WIDTH, WINDOW = 600, 12, 20
DRAW = np.repeat([0, 1, 2], 200)
SITES = (Site("embedding", 0), Site("block", 1), Site("block", 2), Site("final_norm", 2))


def cloud(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((N, WIDTH)) * np.geomspace(1, 20, WIDTH) + 100).astype(np.float32)
    x[::WINDOW, 3] += 30_000
    x[5] = x[9]
    return x


def kept(x: np.ndarray) -> dict[str, np.ndarray]:
    position = np.arange(N) % WINDOW
    return {"all": np.ones(N, dtype=bool), "no_sink": position > 0, "few": np.arange(N) % 60 == 7}


def flat(found: dict) -> dict[tuple[str, str], np.ndarray]:
    return {(name, key): array for name, (arrays, _) in found.items() for key, array in arrays.items()}


@pytest.mark.parametrize("family", [spectral, angular])
@pytest.mark.parametrize("chunk_rows", [1, 7, 199, 201, N])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pieces_and_dtype_change_nothing(family, chunk_rows: int, dtype: type) -> None:
    x = cloud()
    whole = flat(family.statistics(layer_of(x, DRAW, kept(x), chunk_rows=N)))
    pieces = flat(family.statistics(layer_of(x.astype(dtype), DRAW, kept(x), chunk_rows=chunk_rows)))
    assert pieces.keys() == whole.keys()
    for name, array in pieces.items():
        # small eigenvalues are right to the rounding of the largest one, cosines to that of 1
        size = np.abs(whole[name]).max() if name[1].startswith(("eigenvalues", "mean_cosine")) else 0
        np.testing.assert_allclose(array, whole[name], rtol=1e-12, atol=1e-13 * size, err_msg=str(name))


@pytest.mark.parametrize("family", [spectral, angular])
def test_a_choice_is_what_its_rows_are_alone(family) -> None:
    x = cloud()
    together = flat(family.statistics(layer_of(x, DRAW, kept(x), chunk_rows=50)))
    for choice, mask in kept(x).items():
        alone = flat(family.statistics(layer_of(x[mask], DRAW[mask], chunk_rows=1000)))
        for (_, key), array in alone.items():
            size = np.abs(array).max() if key.startswith(("eigenvalues", "mean_cosine")) else 0
            np.testing.assert_allclose(
                together[choice, key], array, rtol=1e-12, atol=1e-13 * size, err_msg=key
            )


def test_rows_in_no_choice_are_not_looked_at() -> None:
    x = cloud()
    masks = {"all": np.arange(N) % 2 == 0}
    expected = flat(angular.statistics(layer_of(x, DRAW, masks)))
    x[1::2] = np.nan
    found = flat(angular.statistics(layer_of(x, DRAW, masks)))
    assert all(np.array_equal(found[name], expected[name]) for name in found)


def test_parts_are_the_rows_of_a_draw_that_the_same_choices_keep() -> None:
    draw = np.array([4, 4, 4, 7, 7, 9])
    masks = {"a": np.array([1, 1, 0, 1, 0, 0], bool), "b": np.array([1, 0, 0, 1, 1, 1], bool)}
    parts = parts_of(draw, masks)
    assert parts.label[2] == -1 and len(set(parts.label.tolist())) == 6
    for name, mask in masks.items():
        everything, *left_out = parts.subsets(name)
        draws = np.unique(draw[mask])
        np.testing.assert_array_equal(np.isin(parts.label, everything), mask)
        for j, own in zip(draws, left_out, strict=True):
            np.testing.assert_array_equal(np.isin(parts.label, own), mask & (draw != j))
    x = np.arange(12.0).reshape(6, 2)
    seen = np.zeros(6, dtype=int)
    for part, where, rows in parts.blocks(Rows(x, chunk_bytes=64), entries=4):
        np.testing.assert_array_equal(x[where], rows)
        assert (parts.label[where] == part).all()
        seen[where] += 1
    np.testing.assert_array_equal(seen, parts.label >= 0)


def test_the_center_is_amid_the_rows_that_all_choices_keep() -> None:
    x = np.random.default_rng(0).standard_normal((300, 4)) + 1000
    x[::3] *= 1e6
    masks = {"all": np.ones(300, dtype=bool), "no_sink": np.arange(300) % 3 > 0}
    assert (np.abs(robust_center(Rows(x), masks) - 1000) < 1).all()
    apart = {"a": np.arange(300) % 3 == 1, "b": np.arange(300) % 3 == 2}
    assert (np.abs(robust_center(Rows(x), apart) - 1000) < 1).all()


def test_a_survey_finds_norms_and_copies_and_what_is_not_finite() -> None:
    x = cloud()
    x[30], x[31], x[32, 0] = 0.0, -0.0, np.inf
    x[40, 3] = np.nan
    x[50] = 3e30
    found = survey(Rows(x, chunk_bytes=7 * x[0].nbytes))
    finite = np.arange(N)[np.isfinite(x).all(axis=1)]
    np.testing.assert_array_equal(np.flatnonzero(found.finite), finite)
    np.testing.assert_allclose(
        found.norms[finite], np.linalg.norm(x[finite].astype(np.float64), axis=1), rtol=1e-14
    )
    assert found.unique(DRAW, found.finite) == len(finite) - 2  # 9 repeats 5, and -0.0 is 0.0
    assert found.unique(DRAW, np.isin(np.arange(N), [5, 9, 300])) == 2
    assert found.unique(np.arange(N), found.finite) == len(finite)  # each its own draw: no copies


def stored(path: Path, clouds: dict[Site, np.ndarray], texts: dict[int, str] | None = None) -> Path:
    n = len(next(iter(clouds.values())))
    tokens = Tokens(
        ids=(np.arange(n) % 33).astype(np.int32),
        sequence=(np.arange(n) // WINDOW).astype(np.int32),
        position=(np.arange(n) % WINDOW).astype(np.int32),
        draw=(np.arange(n) * 3 // n).astype(np.int32),
        special=np.zeros(n, dtype=bool),
        sequence_bytes=np.ones(n // WINDOW, dtype=np.int32),
        attributes={},
        texts=texts or {},
    )
    with ActivationWriter(path, sites=list(clouds), width=WIDTH, tokens=tokens, attributes={}) as writer:
        for site, x in clouds.items():
            writer.write(site, 0, x)
    return path


def entries(path: Path) -> dict[tuple[Site, str], dict]:
    return {(layer.site, layer.rows): layer.attributes for layer in read_statistics(path)[1]}


def test_entries_say_which_rows_are_sinks_and_how_many_repeat(tmp_path: Path) -> None:
    x = cloud()
    x[[47, 48, 147]] *= 1e5
    lengths = np.linalg.norm(x, axis=1)
    x[[61, 62]] *= (np.array([7.0, 4.0]) * np.median(lengths) / lengths[[61, 62]])[:, None]
    texts = {0: "<s>", 14: "\n", 15: "\ufffd"}
    source = stored(tmp_path / "a.h5", {SITES[0]: x}, texts)
    block.measure(
        source, tmp_path / "s.h5", family=MEASURED["angular"], first=0, last=0, rows=["all", "no_sink"]
    )
    found = entries(tmp_path / "s.h5")
    for rows, n in (("all", N), ("no_sink", N - 33)):
        own = found[SITES[0], rows]
        assert (own["n_rows"], own["n_unique"], own["duplicates"]) == (n, n - 1, 1)
        assert (own["sink_rows"], own["near_sink_rows"]) == (33, 1)
        assert json.loads(own["sink_positions"]) == {"0": 30, "7": 2, "8": 1}
        tokens = json.loads(own["sink_tokens"])
        ids = np.append(np.arange(0, N, WINDOW), [47, 48, 147]) % 33
        assert sum(tokens.values()) == 33 and len(tokens) == 21  # 20 by name, and the others
        assert tokens[repr("\n")] == (ids == 14).sum() and tokens[repr("<s>")] == (ids == 0).sum()
        assert tokens["20"] == (ids == 20).sum()
        assert list(tokens.values())[:-1] == sorted(list(tokens.values())[:-1], reverse=True)
        assert list(tokens)[-1] == "other"


class Pairs:
    """A paired family that keeps what it is given."""

    def __init__(self) -> None:
        self.given: list[Layer] = []
        self.measured = Measured(
            name="pairs", statistics=self.statistics, missing=self.missing, paired="before"
        )

    def statistics(self, layer: Layer) -> dict:
        self.given.append(layer)
        x, before = (rows.take(np.arange(N)) for rows in (layer.rows, layer.other))
        return {
            name: ({"difference": (x[mask] - before[mask]).sum(axis=0)}, {"flag": ""})
            for name, mask in layer.kept.items()
        }

    def missing(self, *, rows: int, width: int, draws: int, rows_per_draw: int | None) -> dict:
        return {"difference": np.full(width, np.nan)}


@pytest.fixture
def pairs() -> Pairs:
    return Pairs()


@pytest.mark.parametrize("first", [0, 1, 2])
def test_a_paired_family_gets_each_block_with_the_site_before(
    tmp_path: Path, pairs: Pairs, first: int
) -> None:
    clouds = {site: cloud(seed) for seed, site in enumerate(SITES)}
    clouds[SITES[1]][[33, 34]] *= 1e6  # sinks after block 1 alone
    clouds[SITES[2]][[51]] *= 1e6
    source = stored(tmp_path / "a.h5", clouds)
    block.measure(
        source, tmp_path / "s.h5", family=pairs.measured, first=first, last=2, rows=["all", "no_sink"]
    )
    layers = {(layer.site, layer.rows): layer for layer in read_statistics(tmp_path / "s.h5")[1]}
    assert {site for site, _ in layers} == set(SITES[first:])
    alone = (
        "no layer before: pairs compares a block's output with the one before it (embedding and final norm)"
    )
    for before, site in zip((None, *SITES[:2], None), SITES, strict=True):
        if site.layer < first:
            continue
        for rows, removed in (("all", []), ("no_sink", [33, 34, *([51] * (site == SITES[2]))])):
            entry = layers[site, rows]
            if before is None:
                assert entry.attributes["flag"] == alone and np.isnan(entry.arrays["difference"]).all()
                continue
            mask = np.ones(N, dtype=bool)
            mask[removed] = False
            mask &= (rows == "all") | (np.arange(N) % WINDOW > 0)
            expected = (clouds[site][mask] - clouds[before][mask]).sum(axis=0)
            np.testing.assert_array_equal(entry.arrays["difference"], expected)
            assert entry.attributes["n_rows"] == mask.sum()


def test_rows_that_are_not_finite_before_flag_the_pair(tmp_path: Path, pairs: Pairs) -> None:
    clouds = {site: cloud(seed) for seed, site in enumerate(SITES)}
    clouds[SITES[1]][3, 3], clouds[SITES[2]][4, 3] = np.nan, np.inf
    source = stored(tmp_path / "a.h5", clouds)
    block.measure(source, tmp_path / "s.h5", family=pairs.measured, first=0, last=2, rows=["no_sink"])
    found = entries(tmp_path / "s.h5")
    assert found[SITES[1], "no_sink"]["flag"] == f"not finite: 1 of {N} rows"
    assert found[SITES[2], "no_sink"]["flag"] == f"not finite: 2 of {N} rows"
    assert not pairs.given


def test_sites_are_read_in_pieces_when_they_are_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = stored(tmp_path / "a.h5", {site: cloud(seed) for seed, site in enumerate(SITES)})
    for name in ("whole", "pieces"):
        block.measure(
            source, tmp_path / f"{name}.h5", family=MEASURED["spectral"], first=0, last=2, rows=["no_sink"]
        )
        monkeypatch.setattr("lmshape.store.activations.PIECE_BYTES", 0)
    assert (tmp_path / "whole.h5").read_bytes() == (tmp_path / "pieces.h5").read_bytes()


def test_choices_without_statistics_say_why() -> None:
    surveyed = SimpleNamespace(norms=np.ones(6), finite=np.ones(6, dtype=bool))
    tokens = SimpleNamespace(position=np.array([0, 1, 2, 0, 0, 0]), draw=np.array([0, 0, 0, 1, 1, 1]))
    chosen = choices(["all", "no_sink"], [surveyed], tokens, seed=0)
    assert chosen.refused == {"no_sink": "too few draws: 1; an interval needs 2"}
    assert chosen.accepted.keys() == {"all"} and chosen.sinks.sum() == 4


def test_a_killed_measuring_job_leaves_no_archive(tmp_path: Path) -> None:
    source = stored(tmp_path / "a.h5", {site: cloud(seed) for seed, site in enumerate(SITES)})
    target = tmp_path / "out" / "s.h5"
    code = (
        "import sys, time; from dataclasses import replace; from lmshape.metrics.block import MEASURED, measure\n"
        "def slow(layer): print('measuring', flush=True); time.sleep(60)\n"
        "family = replace(MEASURED['spectral'], statistics=slow)\n"
        f"measure({str(source)!r}, {str(target)!r}, family=family, first=0, last=2)"
    )
    job = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert job.stdout.readline() == "measuring\n"
    job.send_signal(signal.SIGKILL)
    job.communicate()
    assert not target.exists()
    block.measure(source, target, family=MEASURED["spectral"], first=0, last=2)
    assert list(target.parent.iterdir()) == [target]
    with h5py.File(target) as file:
        assert set(file) == {"layers", "final_norm"}
