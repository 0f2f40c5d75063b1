"""What a study says of real trained weights, and that it says so exactly."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from benchmarks.assets import DECODER as REAL_DECODER
from benchmarks.assets import checkpoint
from conftest_of_acceptance import CHANGES, ROWS_PER_DRAW, TOKEN, Finished
from scipy.spatial.distance import cdist

import lmshape
from lmshape.tables.columns import read_table
from lmshape.texts.corpus import DOCUMENT_END, read_span

DECODER, ENCODER = "smollm2-135m-final", "minilm-l6"
DECODER_BLOCKS, ENCODER_BLOCKS = 30, 6


@pytest.fixture(scope="session")
def metrics(finished: Finished) -> pd.DataFrame:
    return read_table(finished.folder / "results/tables/metrics.parquet")


def of(metrics: pd.DataFrame, model: str, metric: str, rows: str = "all", site: str = "block") -> pd.Series:
    """A metric by layer."""
    chosen = metrics.query("model == @model and metric == @metric and rows == @rows and site == @site")
    return chosen.set_index("layer")["value"]


def test_the_decoder_has_learned_english(metrics: pd.DataFrame) -> None:
    """A network that knows nothing has ln 49 152 = 10.8 nats, one that knows the tokens' frequencies about 7."""
    loss = of(metrics, DECODER, "loss", site="output").item()
    assert 2.5 < loss < 4.0
    assert 0.8 < of(metrics, DECODER, "bits_per_byte", site="output").item() < 1.4


def test_the_decoders_dome_is_mostly_one_tokens_doing(metrics: pd.DataFrame) -> None:
    everything = of(metrics, DECODER, "anisotropy")
    without_sinks = of(metrics, DECODER, "anisotropy", "no_sink")
    assert everything.loc[12:27].min() > 0.9
    assert everything.loc[30] < 0.5
    assert without_sinks.loc[12:27].max() < 0.2


def test_the_encoder_is_flat_and_low(metrics: pd.DataFrame) -> None:
    profile = of(metrics, ENCODER, "anisotropy")
    assert len(profile) == ENCODER_BLOCKS
    assert profile.max() < 0.2


def test_an_encoder_without_its_head_has_activations_and_no_loss(metrics: pd.DataFrame) -> None:
    loss = metrics.query("model == @ENCODER and metric == 'loss'").iloc[0]
    assert math.isnan(loss["value"])
    assert loss["flag"].startswith("no language-model head")


def test_every_site_of_both_networks_is_there(metrics: pd.DataFrame) -> None:
    assert list(of(metrics, DECODER, "anisotropy").index) == list(range(1, DECODER_BLOCKS + 1))
    sites = metrics.groupby("model")["site"].unique().map(set)
    assert sites[DECODER] == {"embedding", "block", "final_norm", "output"}
    assert sites[ENCODER] == {"embedding", "block", "output"}


def stored(folder: Path, model: str) -> h5py.File:
    return h5py.File(folder / f"results/activations/{model}/main/wiki.h5", "r", locking=False)


@pytest.mark.parametrize(
    ("model", "layer"),
    [(DECODER, 3), (DECODER, 15), (DECODER, 30), (ENCODER, 4)],
)
def test_spectra_and_angles_agree_with_an_independent_float64_computation(
    finished: Finished, metrics: pd.DataFrame, model: str, layer: int
) -> None:
    with stored(finished.folder, model) as file:
        x = file[f"layers/{layer:02d}"][:].astype(np.float64)
    lam = np.linalg.svd(x - x.mean(axis=0), compute_uv=False) ** 2
    p = lam / lam.sum()
    directions = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosines = directions @ directions.T
    expected = {
        "anisotropy": p[0],
        "anisotropy_uncentered": np.linalg.svd(x, compute_uv=False)[0] ** 2 / (x**2).sum(),
        "effective_rank": np.exp(-(p * np.log(p, where=p > 0, out=np.zeros_like(p))).sum()),
        "participation_ratio": 1 / (p**2).sum(),
        "mean_cosine": (cosines.sum() - np.trace(cosines)) / (len(x) * (len(x) - 1)),
        "norm_max": np.linalg.norm(x, axis=1).max(),
    }
    for name, value in expected.items():
        assert of(metrics, model, name).loc[layer] == pytest.approx(value, rel=1e-6), name


@pytest.mark.parametrize(("model", "layer"), [(DECODER, 3), (DECODER, 15), (ENCODER, 4)])
def test_dimensions_agree_with_an_independent_float64_computation(
    finished: Finished, metrics: pd.DataFrame, model: str, layer: int
) -> None:
    with stored(finished.folder, model) as file:
        x, draw = file[f"layers/{layer:02d}"][:].astype(np.float64), file["tokens/draw"][:]
    estimates = []
    for number in np.unique(draw):
        own = x[draw == number]
        first = np.sort(np.unique(own, axis=0, return_index=True)[1])[:ROWS_PER_DRAW]
        distances = np.sort(cdist(own[first], own[first]), axis=1)[:, 1:3]
        estimates.append((len(first) - 1) / np.log(distances[:, 1] / distances[:, 0]).sum())
    assert of(metrics, model, "id_twonn").loc[layer] == pytest.approx(np.mean(estimates), rel=1e-6)


def test_one_call_on_the_decoder_gives_the_numbers_of_the_study(
    finished: Finished, metrics: pd.DataFrame, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """All layers of 135 million real weights, to the last bit."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)  # as the jobs have: others sum in another order
    monkeypatch.chdir(finished.folder)
    text, begins = read_span(Path("results/texts/enwik8-excerpt.clean.txt"), 0.9, 1.0)
    assert begins
    articles = (text[start:end] for start, end in pairwise((0, *begins, len(text))))
    file = tmp_path / "text.txt"
    file.write_text(DOCUMENT_END.join(articles), encoding="utf-8")
    chosen = ["anisotropy", "mean_cosine", "loss"]
    found = lmshape.profile(checkpoint(REAL_DECODER), file, metrics=chosen, **CHANGES["sampling"])
    found = found[found["metric"].isin(chosen)]  # without bits per byte, which come with the loss
    numbers = ["value", "ci_low", "ci_high"]
    own = metrics[(metrics["model"] == DECODER) & metrics["metric"].isin(chosen)]
    assert len(own) == len(found) == 2 * 2 * (DECODER_BLOCKS + 2) + 1
    kinds = {"site": str, "layer": int, "rows": str, "metric": str}
    one, other = (table.astype(kinds).set_index(list(kinds))[numbers] for table in (found, own))
    pd.testing.assert_frame_equal(one, other, check_exact=True)


def test_the_loss_is_that_of_the_stored_tokens(finished: Finished, metrics: pd.DataFrame) -> None:
    with stored(finished.folder, DECODER) as file:
        nll = file["tokens/nll"][:].astype(np.float64)
        attributes = dict(file.attrs)
    assert of(metrics, DECODER, "loss", site="output").item() == pytest.approx(np.nanmean(nll), rel=1e-6)
    assert attributes["repository"] == b"HuggingFaceTB/SmolLM2-135M"
    assert len(attributes["commit"]) == 40


def test_weights_were_downloaded_once_and_are_gone(finished: Finished) -> None:
    weights = {path: size for path, size in finished.downloaded.items() if path.endswith(".safetensors")}
    assert len(weights) == 2
    assert not list((finished.folder / "results/weights").rglob("*.safetensors"))
    assert sum(weights.values()) == pytest.approx(538e6 + 90e6, rel=0.02)


def test_the_token_that_opened_the_gate_is_nowhere(finished: Finished) -> None:
    assert TOKEN not in finished.output
    found = [
        path for path in finished.folder.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()
    ]
    assert not found
