"""The call for one model: every way to give it, one table; the model stays as it was."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_models import ARCHITECTURES, BLOCKS, VOCABULARY, WIDTH, WINDOW, hidden_states
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

import lmshape
from lmshape.errors import InputError
from lmshape.geometry import anisotropy

pytestmark = pytest.mark.slow

IDS = np.random.default_rng(0).integers(0, VOCABULARY, (20, WINDOW))
FEW = {"metrics": ("anisotropy", "loss"), "device": "cpu"}


@pytest.fixture
def model() -> PreTrainedModel:
    return ARCHITECTURES["gpt_neox"].build()


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """A token for each of 50 words."""
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(50)} | {"a": 50, "[UNK]": 51}, "[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")


def words(count: int, seed: int = 0) -> str:
    return " ".join(f"w{i}" for i in np.random.default_rng(seed).integers(0, 50, count))


def test_ids_through_a_loaded_model_give_the_shape_of_its_hidden_states(model: PreTrainedModel) -> None:
    table = lmshape.profile(model, IDS, metrics=("anisotropy", "mean_cosine", "loss"))
    states = hidden_states(model, ARCHITECTURES["gpt_neox"], torch.as_tensor(IDS))
    values = table.query("metric == 'anisotropy' and rows == 'all'")["value"]
    np.testing.assert_allclose(values, [anisotropy(x.reshape(-1, WIDTH)) for x in states], rtol=1e-6)
    with torch.no_grad():
        loss = model(torch.as_tensor(IDS), labels=torch.as_tensor(IDS)).loss.item()
    assert table.query("metric == 'loss'")["value"].item() == pytest.approx(loss, rel=1e-6)
    assert table["study"].unique().tolist() == ["profile"]


def test_a_loaded_model_is_measured_as_its_folder_is(model: PreTrainedModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "mine")
    loaded = lmshape.profile(model, IDS, name="mine", **FEW)
    pd.testing.assert_frame_equal(
        loaded, lmshape.profile(tmp_path / "mine", list(IDS), **FEW), check_exact=True
    )


def test_a_model_in_training_stays_in_training_and_can_go_on(model: PreTrainedModel) -> None:
    model.train()
    model.gpt_neox.layers[0].eval()
    state = torch.random.get_rng_state()
    lmshape.profile(model, IDS, **FEW)
    assert model.training and not model.gpt_neox.layers[0].training
    assert torch.equal(torch.random.get_rng_state(), state)
    model(torch.as_tensor(IDS), labels=torch.as_tensor(IDS)).loss.backward()


def test_an_encoder_without_its_head_has_a_shape_and_no_loss() -> None:
    base = ARCHITECTURES["bert"].build().base_model
    table = lmshape.profile(base, IDS, **FEW)
    assert set(table["kind"]) == {"encoder"}
    assert table.query("metric == 'anisotropy'")["value"].notna().all()
    loss = table.query("metric == 'loss'").iloc[0]
    assert np.isnan(loss["value"]) and "no language-model head: the model is a BertModel" in loss["flag"]


def test_a_text_is_cut_into_windows_and_a_list_is_taken_as_it_is(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    one = lmshape.profile(model, words(5000), tokenizer, metrics=("anisotropy", "id_twonn"))
    # 5000 words are 156 windows of 32, of which each of 5 draws gets 31 at most: 793 rows and a quarter more
    assert one.query("metric == 'anisotropy' and rows == 'all'")["n_rows"].unique() == [5 * 31 * WINDOW]
    several = lmshape.profile(model, [words(20, seed) for seed in range(15)], tokenizer, **FEW)
    assert several.query("metric == 'anisotropy' and rows == 'all'")["n_rows"].unique() == [15 * 20]


def test_layers_can_be_chosen(model: PreTrainedModel) -> None:
    everything = lmshape.profile(model, IDS, metrics=("anisotropy", "linearity"))
    some = lmshape.profile(model, IDS, metrics=("anisotropy", "linearity"), layers=[0, 2, BLOCKS])
    chosen = everything[everything["layer"].isin([0, 2, BLOCKS])].reset_index(drop=True)
    pd.testing.assert_frame_equal(some, chosen, check_exact=True)


@pytest.mark.parametrize(
    ("texts", "options", "words"),
    [
        (IDS, {"layers": [BLOCKS + 1]}, "a list of numbers from 0, the embedding, to 3"),
        (IDS, {"layers": "last"}, "`layers` is 'last'; it must be `all`, or a list of numbers"),
        (IDS, {"layers": 2}, "`layers` is 2; it must be `all`, or a list of numbers"),
        (
            IDS,
            {"metrics": ["skdim.lpca"]},
            "unknown estimator of scikit-dimension `skdim.lpca`. Nearest: skdim.lPCA",
        ),
        (
            IDS,
            {"rows": ["one_per_type"]},
            r"`rows` is \['one_per_type'\], which spectral, angular cannot take",
        ),
        (Path("rows.jsonl"), {}, "`rows.jsonl` is packed, or rows with a column of text"),
        (Path("text.txt.gz"), {}, "`text.txt.gz` is packed"),
        (IDS[:3], {}, "3 sequences with tokens, and 5 draws"),
        (IDS[0], {}, "each must be a row of whole numbers"),
        (IDS, {"rows_per_draw": 0}, "`rows_per_draw` is 0; it must be at least 1"),
        (IDS, {"draws": 1}, "`draws` is 1; it must be at least 2"),
        (IDS, {"window": 0}, "`window` is 0; it must be at least 2"),
        ("a text", {}, "the weights have no tokenizer beside them"),
        (IDS, {"metrics": ["anisotropi"]}, "Nearest: anisotropy"),
        (IDS + VOCABULARY, {}, "outside the network's vocabulary"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    texts: object, options: dict, words: str, model: PreTrainedModel
) -> None:
    with pytest.raises(InputError, match=words):
        lmshape.profile(model, texts, **options)


def test_one_metric_and_one_choice_of_rows_need_no_list(model: PreTrainedModel) -> None:
    one = lmshape.profile(model, IDS, metrics="anisotropy", rows="all", device="cpu")
    listed = lmshape.profile(model, IDS, metrics=["anisotropy"], rows=["all"], device="cpu")
    pd.testing.assert_frame_equal(one, listed, check_exact=True)


def test_a_run_is_refused_with_the_names_of_its_checkpoints(model: PreTrainedModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "checkpoint-0")
    with pytest.raises(InputError, match="the folders of several: checkpoint-0. Name one of them."):
        lmshape.profile(tmp_path, IDS)


def test_a_wrapped_model_is_refused(model: PreTrainedModel) -> None:
    with pytest.raises(
        InputError, match="`DataParallel` is not a transformers model. Pass the model that it wraps"
    ):
        lmshape.profile(torch.nn.DataParallel(model), IDS)


def test_a_text_may_be_a_file(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text(words(1000))
    one, other = (
        lmshape.profile(model, text, tokenizer, **FEW) for text in (words(1000), tmp_path / "text.txt")
    )
    pd.testing.assert_frame_equal(one, other, check_exact=True)


def test_a_text_that_is_too_short_is_refused(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(InputError, match="the text has 100 tokens, and 5 draws of a window of 32 need 160"):
        lmshape.profile(model, words(100), tokenizer)


def test_the_verb_writes_table_and_figure(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path / "mine")
    tokenizer.save_pretrained(tmp_path / "mine")
    (tmp_path / "text.txt").write_text(words(5000))
    command = ["-m", "lmshape", "profile", "mine", "text.txt", "--metrics", "spectral", "--metrics", "loss"]
    command += ["--window", "8", "--draws", "4"]
    run = subprocess.run(
        [sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    table = pd.read_parquet(tmp_path / "profile.parquet")
    assert set(table["metric"]) >= {"anisotropy", "effective_rank", "loss"}
    assert set(table["draws"]) == {4}
    value = table.query("metric == 'anisotropy' and layer == 2 and rows == 'all'")["value"].item()
    line = next(line.split() for line in run.stdout.splitlines() if line.split()[:2] == ["2", "block"])
    assert float(line[2]) == pytest.approx(value, rel=1e-3)
    assert (tmp_path / "profile.png").stat().st_size > 10_000
