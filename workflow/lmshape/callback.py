"""The geometry of each block while transformers' Trainer trains: in a file, and in what the trainer logs."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lmshape.monitor import GeometryMonitor


class GeometryCallback(TrainerCallback):
    """Measures a model's blocks while Trainer trains it, every so many steps and at the end.

    A measurement that fails gives one warning; the training goes on without further measurements.

    Examples
    --------
    >>> geometry = GeometryCallback(held_out_ids, every=100)  # doctest: +SKIP
    >>> geometry.attach(trainer)  # doctest: +SKIP
    >>> trainer.train()  # doctest: +SKIP
    """

    def __init__(
        self,
        ids: ArrayLike | Tensor,
        *,
        every: int,
        path: Path | None = None,
        causal: bool = True,
        blocks: str | None = None,
    ) -> None:
        """Take the tokens.

        Parameters
        ----------
        ids, every, causal, blocks : as those of `GeometryMonitor`
        path : CSV file of the numbers; None is `geometry.csv` in the trainer's output folder. A run that is resumed
            goes on in it
        """
        self.monitor = GeometryMonitor(ids, every=every, causal=causal, blocks=blocks)
        self.path = path
        self.stopped = False
        self._trainer: Trainer | None = None

    def attach(self, trainer: Trainer) -> None:
        """Add the callback to a trainer, which then logs `geometry/layer_06/anisotropy` and so on where it logs to."""
        trainer.add_callback(self)
        self._trainer = trainer

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure before the update where a step is due."""
        self._observe(args, state, kwargs["model"], last=False)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure behind the last update."""
        if state.global_step >= state.max_steps or control.should_training_stop:
            self._observe(args, state, kwargs["model"], last=True)

    def _observe(self, args: TrainingArguments, state: TrainerState, model: nn.Module, *, last: bool) -> None:
        if self.stopped or not state.is_world_process_zero:
            return
        known = len(self.monitor.rows)
        try:
            self.monitor.observe(model, state.global_step, last=last)
            found = self.monitor.rows[known:]
            if not found:
                return
            self.monitor.write(self.path or Path(args.output_dir or ".") / "geometry.csv")
            if self._trainer is not None:
                self._trainer.log({_logged(layer, metric): value for _, layer, metric, value in found})
        except Exception as error:  # a training run is worth more than its measurement
            self.stopped = True
            warnings.warn(f"the geometry is not measured any more: {error}", stacklevel=2)


def _logged(layer: int, metric: str) -> str:
    return "geometry/loss" if metric == "loss" else f"geometry/layer_{layer:02d}/{metric}"
