"""Clouds of hardly any rows: every family makes an archive of them, and every metric a row, NaN with its reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from layers import ROOT, SITES

from lmshape.metrics.block import measure, measured_family
from lmshape.metrics.metric import Metric
from lmshape.metrics.registry import FAMILIES, MEASURED
from lmshape.store.activations import ActivationWriter
from lmshape.store.tokens import Tokens
from lmshape.tables import gather as gather_module
from lmshape.tables.gather import gather
from lmshape.tables.shapes import shapes

pytestmark = pytest.mark.slow

SKDIM = ("skdim.lPCA", "skdim.MLE")


def store(path: Path, unique: int, *, width: int = 8, draws: int = 3, window: int = 24) -> Path:
    """Write activations of whose rows each draw has so many different ones."""
    n = draws * window
    tokens = Tokens(
        ids=np.tile(np.arange(window) % unique, draws),
        sequence=np.repeat(np.arange(draws), window),
        position=np.tile(np.arange(window), draws),
        draw=np.repeat(np.arange(draws), window),
        special=np.zeros(n, dtype=bool),
        sequence_bytes=np.full(draws, 100),
        attributes={},
        texts={index: chr(97 + index) for index in range(unique)},
    )
    rng = np.random.default_rng(0)
    with ActivationWriter(path, sites=SITES, width=width, tokens=tokens, attributes=ROOT) as writer:
        for site in SITES:
            writer.write(site, 0, rng.standard_normal((unique, width)).astype(np.float32)[tokens.ids])
    return path


def table_of(activations: Path, family: str, folder: Path) -> pd.DataFrame:
    archive = folder / f"{family}.h5"
    own = folder / "own.py"
    own.write_text("def spread(x):\n    return float(x.std())\n")
    measured = measured_family(family, own_metrics=own, skdim=SKDIM)
    measure(activations, archive, family=measured, first=0, last=2, rows_per_draw=16)
    shapes([archive], folder / "shapes", study="test")
    names = {"skdim": SKDIM, "own": ("spread",)}.get(family, (family,))
    gather([archive], [], folder / "t.parquet", study="test", metrics=names, own=own)
    return pq.read_table(folder / "t.parquet").to_pandas()


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("family", MEASURED)
@pytest.mark.parametrize(
    "cloud",
    [
        *({"unique": unique} for unique in (1, 2, 3, 7, 8, 9)),
        {"unique": 9, "width": 1},
        {"unique": 1, "width": 1},
        {"unique": 9, "draws": 1},
        {"unique": 2, "window": 2},
        {"unique": 1, "window": 1},  # all rows are sinks: none is left without them
    ],
    ids=str,
)
def test_every_metric_has_a_number_or_a_reason(cloud: dict[str, int], family: str, tmp_path: Path) -> None:
    table = table_of(store(tmp_path / "activations.h5", **cloud), family, tmp_path)
    assert len(table) and set(table["site"]) == {site.name for site in SITES}
    nothing = table["value"].isna()
    assert (table.loc[nothing, "flag"] != "").all()
    if family != "skdim":  # whose reasons are those of its estimators
        assert not table["flag"].str.contains("Error").any(), set(table["flag"])
    assert np.isinf(table["value"]).sum() == 0


def test_a_metric_that_fails_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = [replace(metric, values=fail) if metric.name == "anisotropy" else metric for metric in metrics()]
    monkeypatch.setattr(gather_module, "select", lambda names, own: chosen)
    table = table_of(store(tmp_path / "activations.h5", 9), "spectral", tmp_path).set_index("metric")
    failed = table.loc["anisotropy"]
    assert failed["value"].isna().all()
    assert set(failed["flag"]) == {"anisotropy failed: ZeroDivisionError: of nothing"}
    assert all(np.isnan(numbers).all() and len(numbers) == 4 for numbers in failed["replicates"])
    assert table.drop(index="anisotropy")["value"].notna().any()


def metrics() -> Iterator[Metric]:
    yield from FAMILIES["spectral"].metrics


def fail(arrays: object) -> np.ndarray:
    raise ZeroDivisionError("of nothing")
