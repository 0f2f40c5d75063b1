"""One call on one checkpoint gives what the workflow's table says of it, to the last bit."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import CONFIG, StudyFolder

import lmshape
from lmshape.tables.columns import without_categories
from lmshape.texts.corpus import read_text, span

OF_THE_CALL = [
    "study",
    "model",
    "checkpoint",
    "step",
    "tokens_seen",
    "dataset",
    "change",
    "change_low",
    "change_high",
]


@pytest.mark.parametrize("model", ["small-decoder", "small-encoder"])
def test_a_profile_is_the_studys_own(
    model: str, finished_study: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = finished_study.path / "results"
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # as the jobs have: more sum in another order
    found = lmshape.profile(
        results / f"pretrained/{model}/checkpoint-16",
        span(read_text(finished_study.path / "wikipedia.txt"), 0.5, 1.0),
        results / "pretrained/tokenizer",
        metrics=CONFIG["metrics"],
        **CONFIG["sampling"],
    )
    whole = {pa.int64(): pd.Int64Dtype()}.get
    table = without_categories(pq.read_table(results / "tables/metrics.parquet")).to_pandas(
        types_mapper=whole
    )
    own = table.query("model == @model and checkpoint == 'checkpoint-16' and dataset == 'wiki'")
    pd.testing.assert_frame_equal(
        found.drop(columns=OF_THE_CALL),
        own.drop(columns=OF_THE_CALL).reset_index(drop=True),
        check_exact=True,
    )
