"""The geometry of each block while transformers' Trainer trains, in a file and in the trainer's logs."""

from __future__ import annotations

import inspect
import warnings
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import CallbackHandler

from lmshape.monitor import GeometryMonitor


class GeometryCallback(TrainerCallback):
    """Measures a model's blocks while Trainer trains it, every so many steps and at the end.

    The trainer logs `geometry/layer_06/anisotropy` and so on wherever it logs to, under the step that it has reached.
    A measurement that fails gives one warning; the training continues without further measurements.

    Examples
    --------
    >>> geometry = GeometryCallback(held_out_ids, every=100)  # doctest: +SKIP
    >>> trainer = Trainer(model, arguments, callbacks=[geometry], ...)  # doctest: +SKIP
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
        self._handler: CallbackHandler | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Find the handler that the trainer logs to: Trainer does not pass it to callbacks, but it calls this one.

        Its loggers come before any callback of the user's, so that `on_log` is too late to add to the logs.
        """
        frame = inspect.currentframe()
        caller = frame.f_back.f_locals.get("self") if frame and frame.f_back else None
        self._handler = caller if isinstance(caller, CallbackHandler) else None
        if self._handler is None:
            warnings.warn("the trainer does not log the geometry; only geometry.csv has it", stacklevel=2)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure before the update where a step is due."""
        self._observe(args, state, control, kwargs["model"], last=False)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure after the last update."""
        if state.global_step >= state.max_steps or control.should_training_stop:
            self._observe(args, state, control, kwargs["model"], last=True)

    def _observe(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module,
        *,
        last: bool,
    ) -> None:
        if self.stopped or not state.is_world_process_zero:
            return
        known = len(self.monitor.rows)
        try:
            self.monitor.observe(model, state.global_step, last=last)
            found = self.monitor.rows[known:]
            if not found:
                return
            self.monitor.write(self.path or Path(args.output_dir or ".") / "geometry.csv")
            if self._handler is not None:
                logs = {
                    "geometry/loss" if metric == "loss" else f"geometry/layer_{layer:02d}/{metric}": value
                    for _, layer, metric, value in found
                }
                due, logs["epoch"] = control.should_log, float(state.epoch or 0)
                state.log_history.append({**logs, "step": state.global_step})
                self._handler.on_log(args, state, control, logs)
                control.should_log = due  # the loss of this step is still to come
        except Exception as error:  # a training run is worth more than its measurement
            self.stopped = True
            warnings.warn(f"the geometry is no longer measured: {error}", stacklevel=2)
