"""The tables `spectra` and `clouds`: which checkpoints, layers and rows of the archives, and with what numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from lmshape.geometry.nulls import spectrum_null
from lmshape.geometry.resample import jackknife
from lmshape.metrics.block import measure
from lmshape.metrics.registry import MEASURED
from lmshape.site import Site
from lmshape.store.activations import ActivationWriter
from lmshape.store.tokens import Tokens
from lmshape.tables.shapes import (
    CLOUD_COLUMNS,
    SPECTRA_COLUMNS,
    combine_shapes,
    log_ranks,
    seen_checkpoints,
    shapes,
)

DRAWS, SEQUENCES, WINDOW, WIDTH, BLOCKS = 3, 4, 16, 10, 4
N = DRAWS * SEQUENCES * WINDOW
SITES = (
    Site("embedding", 0),
    *(Site("block", layer) for layer in range(1, BLOCKS + 1)),
    Site("final_norm", BLOCKS),
)
STEPS = (0, 1, 4, 16, 64, 256, 1024)


def tokens() -> Tokens:
    sequences = DRAWS * SEQUENCES
    return Tokens(
        ids=np.tile(np.arange(WINDOW), sequences).astype(np.int32),
        sequence=np.repeat(np.arange(sequences), WINDOW).astype(np.int32),
        position=np.tile(np.arange(WINDOW), sequences).astype(np.int32),
        draw=np.repeat(np.arange(DRAWS), SEQUENCES * WINDOW).astype(np.int32),
        special=np.zeros(N, dtype=bool),
        sequence_bytes=np.full(sequences, 3 * WINDOW, dtype=np.int32),
        attributes={},
        texts={0: "The", 3: "\n"},
    )


def rows_of(step: int, site: Site) -> np.ndarray:
    seed = np.random.default_rng([step, site.layer, site.name == "final_norm"])
    rows = seed.standard_normal((N, WIDTH)) * np.geomspace(4, 0.5, WIDTH)
    rows[::WINDOW, 2] += step / 4
    return rows.astype(np.float32)


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, str, str], Path]:
    """Archives of seven checkpoints, layers 0 to 2 and 3 to 4 apart; at step 4 all rows are equal."""
    folder = tmp_path_factory.mktemp("cells")
    found = {}
    for step in STEPS:
        attributes = {
            "model": "m", "kind": "decoder", "checkpoint": f"step{step}", "step": step, "dataset": "wiki",
            "blocks": BLOCKS,
        }  # fmt: skip
        path = folder / f"{step}.h5"
        with ActivationWriter(
            path, sites=SITES, width=WIDTH, tokens=tokens(), attributes=attributes
        ) as writer:
            for site in SITES:
                writer.write(site, 0, np.ones((N, WIDTH), np.float32) if step == 4 else rows_of(step, site))
        for family in ("spectral", "leading"):
            for first, last in ((0, 2), (3, 4)):
                output = folder / f"{step}-{family}-{first}.h5"
                measure(
                    path, output, family=MEASURED[family], first=first, last=last, rows=["all", "no_sink"]
                )
                found[step, family, f"{first:02d}-{last:02d}"] = output
    return found


@pytest.fixture(scope="module")
def tables(archives: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes") / "m"
    shapes(list(archives.values())[::-1], folder, study="s")
    return folder


def test_spectra_are_of_every_step_and_named_block(tables: Path) -> None:
    frame = pd.read_parquet(tables / "spectra.parquet")
    assert list(dict.fromkeys(frame["step"])) == list(STEPS)
    named = frame[["layer", "band", "site"]].drop_duplicates().itertuples(index=False, name=None)
    assert set(named) == {(1, "early", "block"), (2, "middle", "block"), (4, "last", "block")}
    assert set(frame["rows"]) == {"all", "no_sink"} and set(frame["study"]) == {"s"}
    assert pq.read_schema(tables / "spectra.parquet").equals(SPECTRA_COLUMNS)


@pytest.mark.parametrize("rows", ["all", "no_sink"])
def test_shares_are_those_of_the_raw_rows_with_their_jackknife(tables: Path, rows: str) -> None:
    frame = pd.read_parquet(tables / "spectra.parquet")
    own = frame[(frame["step"] == 64) & (frame["layer"] == 2) & (frame["rows"] == rows)].sort_values("rank")
    x, known = rows_of(64, Site("block", 2)).astype(np.float64), tokens()
    kept = np.ones(N, dtype=bool) if rows == "all" else known.position > 0
    shares = []
    for draw in range(-1, DRAWS):
        part = x[kept & (known.draw != draw)]
        sizes = np.linalg.svd(part - part.mean(axis=0), compute_uv=False) ** 2
        shares.append(sizes / sizes.sum())
    np.testing.assert_array_equal(own["rank"], np.arange(1, WIDTH + 1))
    np.testing.assert_allclose(own["share"], shares[0], rtol=1e-9)
    bounds = [jackknife(one[0], one[1:], bounds=(0, 1)) for one in np.array(shares).T]
    np.testing.assert_allclose(own["ci_low"], [one.low for one in bounds], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(own["ci_high"], [one.high for one in bounds], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(own["null"], spectrum_null(int(kept.sum()), WIDTH, own["rank"]), rtol=1e-12)
    assert set(own["n_rows"]) == {kept.sum()} and set(own["draws"]) == {DRAWS}


@pytest.mark.parametrize(("table", "columns"), [("spectra", ["share"]), ("clouds", ["axis_1", "share_1"])])
def test_rows_without_variance_have_a_reason_instead(tables: Path, table: str, columns: list[str]) -> None:
    frame = pd.read_parquet(tables / f"{table}.parquet")
    absent = frame[columns].isna().all(axis=1)
    assert set(frame.loc[absent, "step"]) == {4} and set(frame.loc[absent, "flag"]) == {"zero variance"}
    assert (frame.loc[~absent, "flag"] == "").all()


def test_clouds_are_rows_on_the_axes_at_five_steps(tables: Path) -> None:
    frame = pd.read_parquet(tables / "clouds.parquet")
    assert list(dict.fromkeys(frame["step"])) == [0, 4, 16, 256, 1024] and set(frame["rows"]) == {"all"}
    own = frame[(frame["step"] == 1024) & (frame["layer"] == 4)]
    x = rows_of(1024, Site("block", 4)).astype(np.float64)
    _, _, axes = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    coordinates = (x - x.mean(axis=0)) @ axes[:3].T
    assert len(own) == N  # fewer than are sampled of a larger cloud
    for k in (1, 2, 3):
        np.testing.assert_allclose(np.abs(own[f"axis_{k}"]), np.abs(coordinates[:, k - 1]), atol=1e-4)
        share = np.var(coordinates[:, k - 1]) / np.var(x, axis=0).sum()
        np.testing.assert_allclose(own[f"share_{k}"], share, rtol=1e-9)
    np.testing.assert_array_equal(own["position"], tokens().position)
    np.testing.assert_array_equal(own["group"] == "position_0", own["position"] == 0)
    assert dict(zip(own["token"], own["text"], strict=True))[3] == "'\\n'" and set(own["weight"]) == {1.0}
    assert pq.read_schema(tables / "clouds.parquet").equals(CLOUD_COLUMNS)


def test_one_choice_of_rows_will_do(archives: dict, tmp_path: Path) -> None:
    measure(
        next(iter(archives.values())).parent / "64.h5",
        tmp_path / "only.h5",
        family=MEASURED["leading"],
        first=0,
        last=4,
        rows=["no_sink"],
    )
    shapes([tmp_path / "only.h5"], tmp_path, study="s")
    assert set(pd.read_parquet(tmp_path / "clouds.parquet")["rows"]) == {"no_sink"}
    assert pd.read_parquet(tmp_path / "spectra.parquet").empty


@pytest.mark.parametrize(
    ("steps", "seen"),
    [
        ({"a": 0}, ["a"]),
        ({"main": -1, "b": -1}, ["b"]),
        ({f"s{step}": step for step in range(0, 400, 100)}, ["s0", "s100", "s200", "s300"]),
        ({"z": 1000, "main": -1, "a": 0, "m": 31}, ["a", "m", "z"]),
        ({f"s{step}": step for step in range(0, 1025)}, ["s0", "s5", "s31", "s180", "s1024"]),
    ],
)
def test_checkpoints_to_look_at(steps: dict[str, int], seen: list[str]) -> None:
    assert seen_checkpoints(steps) == seen


def test_ranks_are_all_of_the_first_and_fewer_of_the_last() -> None:
    assert log_ranks(6).tolist() == [1, 2, 3, 4, 5, 6] and log_ranks(1).tolist() == [1]
    ranks = log_ranks(4096)
    assert ranks[:6].tolist() == [1, 2, 3, 4, 5, 6] and ranks[-1] == 4096 and 45 <= len(ranks) <= 60


def test_models_are_put_together_in_their_order(tables: Path, tmp_path: Path) -> None:
    shapes([], tmp_path / "none", study="s")
    combine_shapes([tmp_path / "none", tables, tables], tmp_path / "tables")
    for name in ("spectra", "clouds"):
        once = pd.read_parquet(tables / f"{name}.parquet")
        both = pd.read_parquet(tmp_path / "tables" / f"{name}.parquet")
        pd.testing.assert_frame_equal(both, pd.concat([once, once], ignore_index=True))
        assert len(pd.read_csv(tmp_path / "tables" / f"{name}.csv")) == len(both)


def test_the_same_archives_give_the_same_bytes(archives: dict, tables: Path, tmp_path: Path) -> None:
    shapes(list(archives.values()), tmp_path, study="s")
    for name in ("spectra", "clouds"):
        assert (tmp_path / f"{name}.parquet").read_bytes() == (tables / f"{name}.parquet").read_bytes()
