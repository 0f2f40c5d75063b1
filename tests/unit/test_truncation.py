"""Truncations against arithmetic in NumPy, planted ranks, and everything that has no number."""

from __future__ import annotations

import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from markov_network import (
    BLOCKS,
    VOCABULARY,
    WIDTH,
    Markov,
    log_softmax,
    network_of,
    spoken_by,
    states,
    through,
)
from test_device_map import PLACES
from tiny_models import ARCHITECTURES, CELL, make_tokens

from lmshape.geometry.rows import sink_rows
from lmshape.models import opened
from lmshape.models.network import Network, load_model
from lmshape.models.opened import Opening
from lmshape.models.residual import residual_stream
from lmshape.site import Site
from lmshape.store.tokens import Tokens
from lmshape.truncation.ranks import TOLERANCES, least_rank
from lmshape.truncation.tables import TruncatedLoss, Truncation, read_truncation
from lmshape.truncation.truncate import (
    LayerReader,
    Losses,
    MomentsByDraw,
    PrincipalAxes,
    Sequences,
    Trial,
    first_sequences,
    project,
    projected,
    truncate,
    truncations,
)

CPU = torch.device("cpu")
LONG = 5  # a token
BOTH = Trial(rows=["all", "no_sink"], sequences=2)


def truncated(model: Markov, tokens: Tokens, *, trial: Trial = BOTH, batch_tokens: int = 50) -> Truncation:
    return truncations(reader_of(model, tokens, batch_tokens), trial)


def reader_of(model: Markov, tokens: Tokens, batch_tokens: int) -> LayerReader:
    stream = residual_stream(model, torch.as_tensor(tokens.ids[None, :4], dtype=torch.int64))
    return LayerReader(network_of(model), stream, tokens, batch_tokens)


def by_rank(found: Truncation, *, layer: int, rows: str, variant: str) -> list[TruncatedLoss]:
    """One curve, ranks ascending."""
    place = (layer, rows, variant)
    return [one for one in found.measured if (one.layer, one.rows, one.variant) == place]


# ---- Against arithmetic ------------------------------------------------------------------------------------


def reference(model: Markov, tokens: Tokens, layer: int, rows: str, variant: str, rank: int) -> list[float]:
    """Loss of each draw's first two sequences: singular vectors of the other draws' rows, all in float64."""
    weights = model.arrays()
    x = states(weights, tokens.ids, upto=layer)
    kept = ~sink_rows(x, tokens.position) if rows == "no_sink" else np.ones(len(x), dtype=bool)
    losses = []
    for draw in np.unique(tokens.draw):
        others = x[kept & (tokens.draw != draw)]
        _, _, axes = np.linalg.svd(others - others.mean(axis=0))
        projection = axes[:rank].T @ axes[:rank]
        part = (x - others.mean(axis=0)) @ projection
        changed = others.mean(axis=0) + part if variant == "keep" else x - part
        logits = through(weights, tokens.ids, layer=layer, hidden=np.where(kept[:, None], changed, x))
        read = (tokens.draw == draw) & np.isin(
            tokens.sequence, np.unique(tokens.sequence[tokens.draw == draw])[:2]
        )
        following = np.flatnonzero(read & (tokens.position > 0))
        losses.append(-log_softmax(logits)[following - 1, tokens.ids[following]].mean())
    return losses


def with_sinks(model: Markov) -> Markov:
    """One token whose rows are twenty times as long as the others'."""
    model.embedding.weight.data[LONG] *= 20
    return model


@pytest.fixture(scope="module")
def measured() -> tuple[Markov, Tokens, Truncation]:
    model = with_sinks(Markov())
    tokens = make_tokens([20] * 12, draws=3)
    ids = np.random.default_rng(2).integers(VOCABULARY, size=240).astype(np.int32)
    tokens = replace(tokens, ids=ids)
    return model, tokens, truncated(model, tokens)


def test_every_number_is_that_of_numpy(measured: tuple[Markov, Tokens, Truncation]) -> None:
    model, tokens, found = measured
    assert {(one.layer, one.rows, one.variant) for one in found.measured} == {
        (layer, rows, variant)
        for layer in range(BLOCKS + 1)
        for rows in BOTH.rows
        for variant in ("keep", "remove")
    }
    sinks = sink_rows(states(model.arrays(), tokens.ids, upto=0), tokens.position)
    assert 12 < np.count_nonzero(sinks) < 120  # there are some besides those at position 0
    for one in found.measured:
        expected = reference(model, tokens, one.layer, one.rows, one.variant, one.rank)
        np.testing.assert_allclose(one.losses, expected, rtol=0, atol=2e-5, err_msg=str(one))
        assert one.flag == ""


def test_the_whole_is_the_loss_without_an_intervention(measured: tuple[Markov, Tokens, Truncation]) -> None:
    model, tokens, found = measured
    expected = reference(model, tokens, 0, "all", "keep", WIDTH)
    np.testing.assert_allclose(found.whole, expected, rtol=0, atol=1e-5)
    assert found.tokens == (38, 38, 38)  # two sequences of 20, but their first tokens
    for layer in range(BLOCKS + 1):
        assert by_rank(found, layer=layer, rows="all", variant="keep")[-1].losses == found.whole


def test_sinks_make_a_difference(measured: tuple[Markov, Tokens, Truncation]) -> None:
    *_, found = measured
    curves = [by_rank(found, layer=1, rows=rows, variant="keep") for rows in BOTH.rows]
    assert abs(np.mean(curves[0][2].losses) - np.mean(curves[1][2].losses)) > 0.01


# ---- A planted rank ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [3, 5, 7])
def test_a_planted_rank_is_found_exactly(rank: int) -> None:
    model = Markov(rank)
    tokens = spoken_by(model, sequences=1200, length=2, draws=4)  # short, so that every token comes up
    found = truncated(model, tokens, trial=Trial(rows=["all"], sequences=300), batch_tokens=4000)
    for layer in range(BLOCKS + 1):
        curve = by_rank(found, layer=layer, rows="all", variant="keep")
        increases = {one.rank: float(np.mean(np.subtract(one.losses, found.whole))) for one in curve}
        assert least_rank(increases, TOLERANCES[0]) == rank, (layer, increases)
        assert abs(increases[rank]) < 1e-5
        assert increases[rank - 1] > 0.01  # it has been tried


# ---- The projection ----------------------------------------------------------------------------------------


@pytest.fixture
def axes() -> PrincipalAxes:
    generator = np.random.default_rng(0)
    moments = MomentsByDraw(6, np.repeat([0, 1, 2], 20), np.zeros(60, dtype=bool))
    moments.update(np.arange(60), generator.standard_normal((60, 6)) * [9, 5, 3, 2, 1, 0.1] + 4)
    return moments.axes_of_others(1, "all", CPU)


def test_axes_are_those_of_the_other_draws_by_variance() -> None:
    generator = np.random.default_rng(1)
    rows = (generator.standard_normal((60, 4)) * [1, 8, 3, 0.2] + 50).astype(np.float32)
    draw, sinks = np.repeat([0, 1, 2], 20), np.arange(60) % 7 == 0
    rows[sinks] *= 100
    moments = MomentsByDraw(4, draw, sinks)
    for part in (slice(0, 25), slice(25, 60)):
        moments.update(np.arange(60)[part], rows[part])
    for name in ("all", "no_sink"):
        chosen = rows[(draw != 1) & ~(sinks & (name == "no_sink"))].astype(np.float64)
        found = moments.axes_of_others(1, name, CPU)
        _, _, expected = np.linalg.svd(chosen - chosen.mean(axis=0))
        np.testing.assert_allclose(found.mean, chosen.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(np.abs(np.sum(found.axes.numpy() * expected.T, axis=0)), 1, atol=1e-9)
        assert found.rows == len(chosen)


def test_all_axes_or_none_removed_leave_every_bit(axes: PrincipalAxes) -> None:
    x = torch.randn(30, 6) * 1e4
    mean, columns = axes.mean.float(), axes.axes.float()
    assert torch.equal(project(x, mean, columns, variant="keep", rank=6), x)
    assert torch.equal(project(x, mean, columns, variant="remove", rank=0), x)
    assert torch.equal(project(x, mean, columns, variant="keep", rank=0), mean.expand(30, 6))
    kept, removed = (project(x, mean, columns, variant=variant, rank=2) for variant in ("keep", "remove"))
    torch.testing.assert_close(kept + removed - mean, x, rtol=1e-5, atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_that_are_not_chosen_stay_bit_by_bit(axes: PrincipalAxes, dtype: torch.dtype) -> None:
    hidden = torch.randn(4, 5, 6).to(dtype)
    before = hidden.clone()
    chosen = np.random.default_rng(0).random((4, 5)) < 0.5
    chosen[0] = False
    changed = projected(hidden, {0: axes, 2: axes}, np.array([0, 0, 2, 2]), chosen, variant="keep", rank=1)
    assert torch.equal(hidden, before)
    assert torch.equal(changed[~chosen], hidden[~chosen])
    assert changed.dtype == dtype and not torch.isclose(changed[chosen], hidden[chosen]).all(dim=1).any()


# ---- Ways through the network ------------------------------------------------------------------------------


@pytest.mark.parametrize("leaking", [False, True])
def test_what_takes_more_than_the_hidden_state_runs_as_a_whole(leaking: bool) -> None:
    model = Markov(leaking=leaking)
    tokens = spoken_by(model, sequences=4, length=12, draws=2)
    losses = Losses(reader_of(model, tokens, 100), 1)
    assert losses.behind(Site("block", 1)) is not leaking
    unchanged = losses.changed(lambda hidden, one: hidden.clone())
    np.testing.assert_allclose(unchanged, losses.whole, rtol=0, atol=1e-6)
    assert np.all(losses.changed(lambda hidden, one: torch.zeros_like(hidden)) != losses.whole)


def test_the_states_of_one_layer_are_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Markov()
    tokens = spoken_by(model, sequences=4, length=12, draws=2)
    losses = Losses(reader_of(model, tokens, 12), 1)
    alive: list[weakref.ref[torch.Tensor]] = []
    taken = Losses._state

    def watched(self: Losses, one: Sequences) -> torch.Tensor:
        state = taken(self, one)
        alive.append(weakref.ref(state))
        assert sum(each() is not None for each in alive) <= 2  # of this layer: one a sequence
        return state

    monkeypatch.setattr(Losses, "_state", watched)
    for layer in (1, 2):
        assert losses.behind(Site("block", layer))
    assert len(alive) == 4


def test_sequences_of_each_draw_in_any_batch() -> None:
    tokens = make_tokens([9, 5, 9, 7, 7, 5, 9, 9], draws=2)
    chosen = first_sequences(tokens, 3)
    assert sorted(set(tokens.sequence[chosen])) == [0, 1, 2, 4, 5, 6]
    model = ARCHITECTURES["gpt_neox"].build()
    stream = residual_stream(model, torch.arange(3, 9)[None])
    network = Network(model, CPU)
    found = [Losses(LayerReader(network, stream, tokens, size), 3) for size in (1, 16, 1000)]
    for one in found:
        assert one.tokens.tolist() == [8 + 4 + 8, 6 + 4 + 8]
        np.testing.assert_allclose(one.whole, found[0].whole, rtol=0, atol=1e-6)


# ---- What has no number ------------------------------------------------------------------------------------


def test_a_diverged_network_is_flagged_at_every_rank() -> None:
    model = Markov()
    tokens = spoken_by(model, sequences=6, length=12, draws=3)
    model.blocks[1].into.fill_(torch.nan)
    found = truncated(model, tokens)
    assert {one.flag for one in found.measured if one.layer < 2} == {"not finite: whole loss"}
    assert {one.flag for one in found.measured if one.layer == 2} == {"not finite: 72 of 72 rows"}
    assert np.isnan([one.losses for one in found.measured]).all()
    assert len(by_rank(found, layer=0, rows="all", variant="keep")) == 8


def test_few_rows_are_doubted() -> None:
    model = Markov()
    tokens = spoken_by(model, sequences=2, length=6, draws=2)
    found = truncated(model, tokens)
    reasons = {"all": "few rows: axes beyond 5 are arbitrary, fitted on 6 rows"}
    for one in found.measured:
        assert one.flag == reasons.get(one.rows, "few rows: axes beyond 4 are arbitrary, fitted on 5 rows")
        assert np.isfinite(one.losses).all()


def test_without_other_rows_there_are_no_axes() -> None:
    model = Markov()
    tokens = spoken_by(model, sequences=4, length=2, draws=4)
    tokens = replace(tokens, position=np.zeros_like(tokens.position))  # every row a sink
    tokens.position[1::2] = 1
    tokens = replace(tokens, draw=np.array([0, 0, 1, 1, 1, 1, 1, 1], dtype=np.int32))
    found = truncated(model, tokens)
    without = [one for one in found.measured if one.rows == "no_sink"]
    assert {one.flag for one in without} == {"too few rows: 1 to fit axes on; 2 needed"}
    assert np.isnan([one.losses for one in without]).all()


def test_a_checkpoint_without_a_head_is_flagged() -> None:
    model = Markov()
    tokens = spoken_by(model, sequences=4, length=6, draws=2)
    network = Network(model, CPU, "no language-model head: the checkpoint lacks 1 of its tensors")
    found = truncations(replace(reader_of(model, tokens, 10), network=network), BOTH)
    assert {one.flag for one in found.measured} == {network.no_loss}


# ---- The file -----------------------------------------------------------------------------------------------


def test_equal_cells_give_equal_bytes_in_the_order_of_the_trial(tmp_path: Path) -> None:
    ARCHITECTURES["gpt_neox"].build().save_pretrained(tmp_path / "model")
    opening = Opening(kind="decoder", threads=1, blocks=3, width=24)
    trial = replace(BOTH, ranks=[4, 30], removed=[2])
    outputs = [tmp_path / "one.parquet", tmp_path / "two.parquet"]
    for output in outputs:
        options = {"opening": opening, "attributes": CELL, "trial": trial}
        truncate(tmp_path / "model", make_tokens([16] * 8), output=output, **options)
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    found = read_truncation(outputs[0])
    assert (found.attributes["width"], found.attributes["blocks"], found.attributes["model"]) == (
        24,
        3,
        "tiny",
    )
    assert {0, 4, 24} <= {one.rank for one in found.measured if one.variant == "keep"}
    assert {one.rank for one in found.measured if one.variant == "remove"} == {2}
    places = [(one.layer, BOTH.rows.index(one.rows), one.variant, one.rank) for one in found.measured]
    assert places == sorted(places)


@pytest.mark.parametrize("name", ["llama", "gpt_neox"])
def test_a_network_in_several_places_gives_what_it_gives_in_one(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ARCHITECTURES[name].build().save_pretrained(tmp_path / "model")
    tokens = make_tokens([12] * 6)
    options = {"attributes": CELL, "trial": Trial(rows=["all"], sequences=1, ranks=[3], removed=[2])}
    whole = Opening(kind="decoder", threads=1)
    truncate(tmp_path / "model", tokens, opening=whole, output=tmp_path / "one.parquet", **options)
    loaded = []

    def dispatched(folder: Path, *, device_map: str, **others: object) -> Network:
        loaded.append(load_model(folder, device_map=PLACES[name], **others))
        return loaded[0]

    monkeypatch.setattr(opened, "load_model", dispatched)
    spread = replace(whole, device_map="auto")
    truncate(tmp_path / "model", tokens, opening=spread, output=tmp_path / "many.parquet", **options)
    assert {"cpu", "disk"} <= set(loaded[0].model.hf_device_map.values())
    one, many = (read_truncation(tmp_path / f"{name}.parquet") for name in ("one", "many"))
    for before, after in zip(one.measured, many.measured, strict=True):
        assert (before.layer, before.variant, before.rank) == (after.layer, after.variant, after.rank)
        np.testing.assert_allclose(after.losses, before.losses, rtol=0, atol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["many.parquet", "model", "one.parquet"]
