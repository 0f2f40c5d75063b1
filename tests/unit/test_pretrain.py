"""The embedded pretraining: really resumes, really deterministic, and refuses what cannot be followed."""

from __future__ import annotations

import dataclasses
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from lmshape.errors import InputError
from lmshape.monitor import MONITORED, GeometryMonitor, held_out, monitor_of
from lmshape.texts.corpus import span
from lmshape.texts.tokenizer import load_tokenizer, train_tokenizer, write_tokenizer
from lmshape.training.pretrain import (
    MASKED_SHARE,
    TrainingRun,
    batch_of,
    frequency_entropy,
    masked_batch,
    pretrain,
    training_windows,
)
from lmshape.training.recipe import Recipe

pytestmark = pytest.mark.slow

TEXT = "\n".join(f"In the year {n} the river of letter {chr(97 + n % 26)} rose again." for n in range(900))


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "tokenizer"
    write_tokenizer(TEXT, folder, vocabulary=300)
    return folder


def recipe(**changes: object) -> Recipe:
    plain = Recipe(
        architecture="gpt_neox", width=16, blocks=2, heads=2, window=16, sequences=4, steps=12,
        checkpoint_steps=(0, 1, 2, 4, 8, 12), learning_rate=1e-2, warmup=2,
    )  # fmt: skip
    return dataclasses.replace(plain, **changes)


def weights(folder: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(folder / f"checkpoint-{step}" / "model.safetensors")


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def watch(tokenizer_folder: Path, plan: Recipe) -> GeometryMonitor:
    return monitor_of(TEXT, tokenizer_folder, plan)


@pytest.mark.parametrize("architecture", ["gpt_neox", "bert", "modernbert"])
def test_a_killed_run_resumes_to_the_very_same_weights(
    architecture: str, tokenizer_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    followed = recipe(architecture=architecture, probe_every=3, probe_tokens=64)
    pretrain(
        TEXT, tokenizer_folder, tmp_path / "whole", recipe=followed, monitor=watch(tokenizer_folder, followed)
    )

    advance = TrainingRun.advance

    def killed_at_step_six(run: TrainingRun) -> None:
        if run.step == 6:
            raise KeyboardInterrupt
        advance(run)

    monkeypatch.setattr(TrainingRun, "advance", killed_at_step_six)
    monitor = watch(tokenizer_folder, followed)
    with pytest.raises(KeyboardInterrupt):
        pretrain(TEXT, tokenizer_folder, tmp_path / "killed", recipe=followed, monitor=monitor)
    assert not (tmp_path / "killed").exists()  # nothing that a rerun would take for whole

    steps = []

    def counted(run: TrainingRun) -> None:
        steps.append(run.step)
        advance(run)

    monkeypatch.setattr(TrainingRun, "advance", counted)
    monitor = watch(tokenizer_folder, followed)
    pretrain(TEXT, tokenizer_folder, tmp_path / "killed", recipe=followed, monitor=monitor)
    assert steps == list(range(4, 12))  # from the last checkpoint, not from the start
    for step in followed.checkpoint_steps:
        assert equal(weights(tmp_path / "whole", step), weights(tmp_path / "killed", step))
    for file in ("loss.csv", "geometry.csv"):
        assert (tmp_path / "whole" / file).read_text() == (tmp_path / "killed" / file).read_text()


def test_measuring_on_the_way_leaves_weights_as_they_are(tokenizer_folder: Path, tmp_path: Path) -> None:
    probed = recipe(probe_every=1, probe_tokens=64)
    pretrain(TEXT, tokenizer_folder, tmp_path / "plain", recipe=recipe())
    pretrain(
        TEXT, tokenizer_folder, tmp_path / "probed", recipe=probed, monitor=watch(tokenizer_folder, probed)
    )
    for step in probed.checkpoint_steps:
        assert equal(weights(tmp_path / "plain", step), weights(tmp_path / "probed", step))
    assert (tmp_path / "plain/loss.csv").read_text() == (tmp_path / "probed/loss.csv").read_text()
    assert (tmp_path / "plain/geometry.csv").read_text() == "step,layer,metric,value\n"
    rows = (tmp_path / "probed/geometry.csv").read_text().splitlines()
    assert len(rows) == 1 + 13 * (2 * len(MONITORED) + 1)  # steps 0 … 12, two blocks, and the loss


def test_another_monitor_never_resumes_from_an_old_state(tokenizer_folder: Path, tmp_path: Path) -> None:
    plan = recipe(probe_every=4, probe_tokens=64)
    run = TrainingRun(
        plan, training_windows(TEXT, tokenizer_folder, plan), load_tokenizer(tokenizer_folder),
        folder=tmp_path / "run.partial", monitor=watch(tokenizer_folder, plan),
    )  # fmt: skip
    run.resume()
    run.advance()
    run.save_if_due()
    assert (tmp_path / "run.partial/checkpoint-1").is_dir()
    run.monitor = GeometryMonitor(run.monitor.ids, every=5)
    run.resume()
    assert not (tmp_path / "run.partial/checkpoint-1").exists()


def test_a_run_may_keep_nothing_but_its_numbers(tokenizer_folder: Path, tmp_path: Path) -> None:
    plan = recipe(keep_checkpoints=False, checkpoint_steps=(4, 8))
    pretrain(TEXT, tokenizer_folder, tmp_path / "run", recipe=plan)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "geometry.csv",
        "lmshape.json",
        "loss.csv",
        "summary.json",
    ]


def test_a_checkpoint_without_its_state_is_not_trusted(tokenizer_folder: Path, tmp_path: Path) -> None:
    pretrain(TEXT, tokenizer_folder, tmp_path / "whole", recipe=recipe())
    partial = tmp_path / "again.partial"
    run = TrainingRun(
        recipe(),
        training_windows(TEXT, tokenizer_folder, recipe()),
        load_tokenizer(tokenizer_folder),
        folder=partial,
    )
    run.resume()
    run.save_if_due()
    run.advance()
    run.save_if_due()
    shutil.copytree(partial / "checkpoint-1", partial / "checkpoint-2")  # killed between weights and state
    pretrain(TEXT, tokenizer_folder, tmp_path / "again", recipe=recipe())
    assert equal(weights(tmp_path / "whole", 2), weights(tmp_path / "again", 2))


def test_another_recipe_never_resumes_from_an_old_state(tokenizer_folder: Path, tmp_path: Path) -> None:
    run = TrainingRun(
        recipe(seed=1), training_windows(TEXT, tokenizer_folder, recipe()), load_tokenizer(tokenizer_folder),
        folder=tmp_path / "run.partial",
    )  # fmt: skip
    run.resume()
    run.save_if_due()
    pretrain(TEXT, tokenizer_folder, tmp_path / "run", recipe=recipe())
    pretrain(TEXT, tokenizer_folder, tmp_path / "fresh", recipe=recipe())
    assert equal(weights(tmp_path / "run", 0), weights(tmp_path / "fresh", 0))


def test_other_libraries_never_resume_from_an_old_state(
    tokenizer_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows = training_windows(TEXT, tokenizer_folder, recipe())
    run = TrainingRun(recipe(), windows, load_tokenizer(tokenizer_folder), folder=tmp_path / "run.partial")
    found = {run.identity()}
    for library in (torch, transformers):
        with monkeypatch.context() as other:
            other.setattr(library, "__version__", "0.0.1")
            found.add(run.identity())
    assert len(found) == 3


@pytest.mark.parametrize(
    ("share", "error"),
    [
        ((0.1, 1), None),
        ((0, 0.9), None),
        ((0, 1), "the text outside the training text has 0 tokens; `probe_tokens` asks for 64"),
    ],
)
def test_a_run_is_measured_on_what_is_beside_its_span(
    share: tuple[float, float], error: str | None, tokenizer_folder: Path, tmp_path: Path
) -> None:
    plan = recipe(probe_every=6, probe_tokens=64, checkpoint_steps=(12,))
    beside = held_out(TEXT, *share)
    if error:
        with pytest.raises(InputError, match=error):
            monitor_of(beside, tokenizer_folder, plan)
        return
    assert beside and beside not in span(TEXT, *share)
    monitor = monitor_of(beside, tokenizer_folder, plan)
    pretrain(span(TEXT, *share), tokenizer_folder, tmp_path / "run", recipe=plan, monitor=monitor)
    measured = (tmp_path / "run/geometry.csv").read_text().splitlines()[1:]
    assert {line.split(",")[0] for line in measured} == {"0", "6", "12"}


def test_the_loss_falls_below_the_unigram_entropy(tokenizer_folder: Path, tmp_path: Path) -> None:
    long = recipe(steps=120, checkpoint_steps=(120,), window=32, width=32)
    pretrain(TEXT, tokenizer_folder, tmp_path / "run", recipe=long)
    losses = np.loadtxt(tmp_path / "run/loss.csv", delimiter=",", skiprows=1)
    assert losses.shape == (120, 5)
    entropy = frequency_entropy(training_windows(TEXT, tokenizer_folder, long))
    assert losses[0, 2] == pytest.approx(math.log(300), abs=0.3)  # uniform at the start
    assert losses[-10:, 2].mean() < 0.7 * entropy


def test_every_model_sees_the_same_windows_once_an_epoch() -> None:
    windows = np.arange(44).reshape(22, 2)
    epoch = np.concatenate([batch_of(windows, step, sequences=4, seed=3) for step in range(5)])
    assert len(np.unique(epoch[:, 0])) == 20
    assert np.array_equal(
        batch_of(windows, 2, sequences=4, seed=3), batch_of(windows, 2, sequences=4, seed=3)
    )
    assert not np.array_equal(
        batch_of(windows, 0, sequences=4, seed=3), batch_of(windows, 5, sequences=4, seed=3)
    )


def test_masks_ask_for_their_share_and_depend_on_the_step(tokenizer_folder: Path) -> None:
    tokenizer = load_tokenizer(tokenizer_folder)
    ids = torch.full((200, 100), 7)
    batch = masked_batch(ids, tokenizer, seed=(0, 1))
    asked = batch["labels"] != -100
    masked = batch["input_ids"] == tokenizer.mask_token_id
    assert asked.float().mean().item() == pytest.approx(MASKED_SHARE, abs=0.01)
    assert torch.equal(masked, asked)
    assert torch.equal(batch["input_ids"][~asked], ids[~asked])
    assert not torch.equal(batch["labels"], masked_batch(ids, tokenizer, seed=(0, 2))["labels"])


def test_unigram_entropy_of_equal_frequencies_is_the_logarithm() -> None:
    assert frequency_entropy(np.arange(64).reshape(8, 8)) == pytest.approx(math.log(64), rel=1e-12)


def test_the_learning_rate_warms_up_and_decays() -> None:
    plan = recipe(steps=100, warmup=10, checkpoint_steps=(0,), learning_rate=1.0, final_share=0.1)
    rates = [plan.learning_rate_at(step) for step in range(101)]
    assert rates[0] == 0.1
    assert max(rates) == rates[9] == 1.0
    assert rates[100] == pytest.approx(0.1)
    assert all(after < before for before, after in zip(rates[10:], rates[11:], strict=False))


def test_the_schedule_begins_again_with_each_cycle() -> None:
    plan = recipe(steps=90, warmup=20, cycle=30, checkpoint_steps=(), learning_rate=1.0, first_share=0.01)
    rates = [plan.learning_rate_at(step) for step in range(90)]
    assert rates[:30] == rates[30:60] == rates[60:]
    assert rates[0] == pytest.approx(0.01) and max(rates) == rates[20] == 1.0 and rates[29] < 0.2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"probe_every": 2, "probe_tokens": 10}, "`probe_tokens` is 10; a dimension needs 64 tokens"),
        ({"width": 15}, "`width` 15 is not a multiple of `heads` 2"),
        ({"width": 8}, "leaves 4 dimensions per head"),
        ({"steps": 8}, "a checkpoint after step 12 is after the last step, 8"),
    ],
)
def test_a_recipe_that_cannot_be_followed_is_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        recipe(**changes)


def test_a_text_shorter_than_a_step_is_refused(tokenizer_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="tokens; one step needs 64"):
        pretrain("Too short.", tokenizer_folder, tmp_path / "run", recipe=recipe())


def test_a_tokenizer_spells_every_text() -> None:
    tokenizer = train_tokenizer(TEXT, 300)
    strange = "Ω ≈ 3.14 — 水\x00 \U0001f40b"
    assert tokenizer.decode(tokenizer(strange)["input_ids"]) == strange
    assert len(tokenizer) == 300


def test_a_tokenizer_of_an_empty_text_is_refused() -> None:
    with pytest.raises(InputError, match="is empty"):
        train_tokenizer(" ", 300)
