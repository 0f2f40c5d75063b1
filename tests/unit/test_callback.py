"""The geometry in transformers' Trainer: in a file and in its logs, and never a reason for the training to end."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_models import ARCHITECTURES, VOCABULARY
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lmshape.callback import GeometryCallback
from lmshape.geometry import anisotropy

IDS = np.random.default_rng(0).integers(3, VOCABULARY - 1, (4, 24))


def trained(folder: Path, geometry: GeometryCallback, *, steps: int = 5, resume: bool = False) -> Trainer:
    rows = [{"input_ids": ids, "labels": ids} for ids in torch.as_tensor(IDS, dtype=torch.int64)]
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=2,
        save_steps=3,
        logging_steps=1,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    model = ARCHITECTURES["llama"].build()
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, callbacks=[geometry, Seen()])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="torch")
        trainer.train(resume_from_checkpoint=resume or None)
    return trainer


class Seen(TrainerCallback):
    """What wandb and TensorBoard are given."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def on_log(self, args: object, state: object, control: object, logs: dict, **_: object) -> None:
        self.names |= set(logs)


def test_numbers_are_in_the_file_and_in_the_logs(tmp_path: Path) -> None:
    trainer = trained(tmp_path, GeometryCallback(IDS, every=2))
    table = pd.read_csv(tmp_path / "geometry.csv")
    assert sorted(table["step"].unique()) == [0, 2, 4, 5], "those that are due, and the last"
    (seen,) = (one for one in trainer.callback_handler.callbacks if isinstance(one, Seen))
    assert {"geometry/layer_01/anisotropy", "geometry/layer_03/id_twonn", "geometry/loss"} <= seen.names
    logged = {row["step"]: row for row in trainer.state.log_history if "geometry/loss" in row}
    last = table[(table["step"] == 5) & (table["layer"] == 2)].set_index("metric")["value"]
    assert logged[5]["geometry/layer_02/anisotropy"] == last["anisotropy"]
    assert [row["step"] for row in trainer.state.log_history if "loss" in row] == [1, 2, 3, 4, 5]
    with torch.no_grad():
        states = trainer.model.eval()(torch.as_tensor(IDS), output_hidden_states=True).hidden_states
    assert last["anisotropy"] == pytest.approx(anisotropy(states[2].flatten(0, 1).numpy()), rel=1e-6)


def test_a_resumed_run_goes_on_in_the_same_file(tmp_path: Path) -> None:
    trained(tmp_path, GeometryCallback(IDS, every=2), steps=4)
    before = pd.read_csv(tmp_path / "geometry.csv")
    trained(tmp_path, GeometryCallback(IDS, every=2), steps=7, resume=True)
    table = pd.read_csv(tmp_path / "geometry.csv")
    assert sorted(table["step"].unique()) == [0, 2, 4, 6, 7]
    pd.testing.assert_frame_equal(table[table["step"] < 4], before[before["step"] < 4])


def test_without_the_handler_the_numbers_are_in_the_file_alone(tmp_path: Path) -> None:
    """As in a trainer of another make, which calls callbacks by itself."""
    geometry, model = GeometryCallback(IDS, every=1), ARCHITECTURES["llama"].build()
    arguments = TrainingArguments(output_dir=str(tmp_path), report_to=[], use_cpu=True)
    told = arguments, TrainerState(), TrainerControl()
    with pytest.warns(UserWarning, match=r"the trainer does not log the geometry; only geometry\.csv has it"):
        geometry.on_train_begin(*told, model=model)
    geometry.on_step_begin(*told, model=model)
    assert set(pd.read_csv(tmp_path / "geometry.csv")["step"]) == {0} and not told[1].log_history


def test_a_measurement_that_fails_is_told_once_and_the_training_goes_on(tmp_path: Path) -> None:
    geometry = GeometryCallback(IDS + VOCABULARY, every=1)  # ids that the embedding does not have
    with pytest.warns(UserWarning, match="the geometry is no longer measured") as said:
        trainer = trained(tmp_path, geometry)
    assert trainer.state.global_step == 5 and geometry.stopped
    assert sum("geometry" in str(one.message) for one in said) == 1
