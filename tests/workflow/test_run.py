"""The miniature study from text to page: its numbers against an independent computation."""

from __future__ import annotations

import csv
import json

import h5py
import numpy as np
import pandas as pd
import pytest
from conftest import CONFIG, StudyFolder
from scipy.spatial.distance import cdist
from snakemake_output import jobs_of

TABLES = (
    "metrics checkpoints profiles phases contrasts audit spikes warnings".split()
    + "truncation truncation_ranks claims".split()
)


@pytest.fixture(scope="module")
def metrics(finished_study: StudyFolder) -> pd.DataFrame:
    return pd.read_parquet(finished_study.path / "results/tables/metrics.parquet")


def test_everything_that_was_promised_is_there(study_copy: StudyFolder) -> None:
    results = study_copy.path / "results"
    run = study_copy.snakemake("--cores", "1", "report")  # which `all` leaves out
    assert run.returncode == 0, run.stdout
    report = (results / "report.html").read_text()
    for words in ("index.html", "anisotropy by layer", "claims", "Every published claim"):
        assert words in report, words  # results, labels, captions
    for page in ("index.html", "explore.html"):
        assert (results / page).stat().st_size > 100_000
    for table in TABLES:
        rows = len(pd.read_parquet(results / f"tables/{table}.parquet"))
        assert rows == len(pd.read_csv(results / f"tables/{table}.csv"))
        assert rows or table == "warnings"  # none where no run was probed
    for figure in CONFIG["figures"]:
        for suffix in ("png", "svg", "csv"):
            assert (results / f"figures/{figure}.{suffix}").stat().st_size > 0
    for model in ("small-decoder", "small-encoder"):
        assert [path.stem for path in (results / "figures" / model).glob("*.png")] == ["anisotropy_by_layer"]


def test_every_cell_and_layer_has_its_rows(metrics: pd.DataFrame) -> None:
    layered = metrics[metrics["metric"] == "anisotropy"]
    cells = layered.groupby(["model", "checkpoint", "dataset", "rows"]).size()
    assert len(cells) == 2 * (3 * 2 + 1)  # rows x (decoder's checkpoints x datasets + the encoder's one cell)
    decoder, encoder = cells["small-decoder"], cells["small-encoder"]
    assert set(decoder) == {4}  # embedding, two blocks, final norm
    assert set(encoder) == {3}  # BERT has no final norm
    assert (metrics["value"].notna() | (metrics["flag"] != "")).all()


@pytest.fixture(scope="module")
def activations(finished_study: StudyFolder) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows after block 1 of the trained decoder on real text, in float64, with position and draw."""
    path = finished_study.path / "results/activations/small-decoder/checkpoint-16/wiki.h5"
    with h5py.File(path, locking=False) as file:
        tokens = file["tokens"]
        return file["layers/01"][:].astype(np.float64), tokens["position"][:], tokens["draw"][:]


def row(metrics: pd.DataFrame, metric: str, rows: str) -> pd.Series:
    chosen = metrics.query(
        "model == 'small-decoder' and checkpoint == 'checkpoint-16' and dataset == 'wiki' "
        "and site == 'block' and layer == 1 and metric == @metric and rows == @rows"
    )
    assert len(chosen) == 1
    return chosen.iloc[0]


def no_sink(x: np.ndarray, position: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(x, axis=1)
    return (position > 0) & (norms <= 10 * np.median(norms))


@pytest.mark.parametrize("rows", ["all", "no_sink"])
def test_spectral_numbers_are_those_of_a_singular_value_decomposition(
    rows: str, metrics: pd.DataFrame, activations: tuple[np.ndarray, ...]
) -> None:
    x, position, _ = activations
    x = x if rows == "all" else x[no_sink(x, position)]
    variances = np.linalg.svd(x - x.mean(axis=0), compute_uv=False) ** 2
    share = variances / variances.sum()
    assert row(metrics, "anisotropy", rows)["value"] == pytest.approx(share[0], rel=1e-9)
    expected = np.exp(-(share * np.log(share, where=share > 0, out=np.zeros_like(share))).sum())
    assert row(metrics, "effective_rank", rows)["value"] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("rows", ["all", "no_sink"])
def test_the_dimension_is_that_of_direct_distances(
    rows: str, metrics: pd.DataFrame, activations: tuple[np.ndarray, ...]
) -> None:
    x, position, draw = activations
    kept = np.ones(len(x), dtype=bool) if rows == "all" else no_sink(x, position)
    estimates = []
    for one in np.unique(draw):
        unique = pd.DataFrame(x[kept & (draw == one)]).drop_duplicates().to_numpy()[:128]
        distances = np.sort(cdist(unique, unique), axis=1)
        ratios = distances[:, 2] / distances[:, 1]
        estimates.append((len(ratios) - 1) / np.log(ratios).sum())
    found = row(metrics, "id_twonn", rows)
    assert found["value"] == pytest.approx(np.mean(estimates), rel=1e-9)
    assert found["ci_low"] < found["value"] < found["ci_high"]


def test_the_decoder_learns(finished_study: StudyFolder, metrics: pd.DataFrame) -> None:
    loss = metrics.query("model == 'small-decoder' and dataset == 'wiki' and metric == 'loss'").set_index(
        "step"
    )
    assert loss.loc[16, "ci_high"] < loss.loc[0, "ci_low"]
    assert loss.loc[0, "value"] == pytest.approx(np.log(400), abs=0.1)  # uniform over the vocabulary
    with (finished_study.path / "results/pretrained/small-decoder/loss.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 16


def test_files_say_where_they_come_from(finished_study: StudyFolder) -> None:
    results = finished_study.path / "results"
    card = json.loads((results / "losses/small-decoder/checkpoint-4/wiki.json").read_text())["attributes"]
    with h5py.File(results / "activations/small-decoder/checkpoint-4/wiki.h5", locking=False) as file:
        assert file.attrs["weights_sha256"].decode() == card["weights_sha256"]
        assert file.attrs["step"] == 4
        assert file.attrs["tokens_seen"] == 4 * 4 * 32


def test_the_papers_own_sampling_runs_from_text_to_tables(new_study: StudyFolder) -> None:
    """128 chunks of 512 characters, each as long as its tokens make it: ragged sequences through every stage."""
    long = {**CONFIG["pretraining"], "window": 512, "sequences": 1, "steps": 1}
    new_study.configure(
        models=["small-decoder"],
        checkpoints="last",
        datasets=["wiki"],
        rows=["all"],
        sampling={"protocol": "paper", "draws": 16, "rows_per_draw": 512},
        truncation={"sequences": 1, "ranks": [4], "removed": [1]},
        pretraining=long,
    )
    tables = ("results/tables/metrics.parquet", "results/tables/truncation.parquet")
    run = new_study.snakemake("--cores", "2", *tables)
    assert run.returncode == 0, run.stdout
    with h5py.File(new_study.path / "results/tokens/small-decoder/wiki.h5", locking=False) as file:
        lengths = np.bincount(file["tokens/sequence"][:])
        assert len(lengths) == 128
        assert len(set(lengths)) > 10
    metrics = pd.read_parquet(new_study.path / "results/tables/metrics.parquet")
    assert metrics.query("metric == 'anisotropy'")["n_rows"].max() == lengths.sum()
    assert metrics.query("metric == 'id_twonn' and site == 'block'")["value"].notna().all()


def test_a_part_of_a_study_announces_nothing_that_it_does_not_make(new_study: StudyFolder) -> None:
    run = new_study.snakemake("--cores", "2", "--until", "tokenize")
    assert run.returncode == 0, run.stdout
    assert jobs_of(run.stdout).keys() == {"fetch_text", "train_tokenizer", "tokenize"}
    ended = run.stdout.rpartition("steps (100%) done")[2]
    assert "results/" not in ended and "complete" not in ended, ended
