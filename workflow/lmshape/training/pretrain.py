"""Pretrain the embedded study's small models, checkpoint by checkpoint.

Every step is a function of the recipe and of its own number (which windows, which masks, which learning
rate; no dropout), so a run that was killed continues from its last checkpoint to the very same weights.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from math import isnan
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import transformers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from lmshape.errors import InputError
from lmshape.fingerprint import code_fingerprint
from lmshape.models.extract import MASKED_SHARE
from lmshape.progress import progress
from lmshape.receipt import delete_own, foreign_files, write_receipt
from lmshape.texts.tokenizer import TextTokenizer, load_tokenizer
from lmshape.training.recipe import GEOMETRY_COLUMNS, Recipe
from lmshape.writing import folder_when_whole, name_whole_folder, remove_leftovers, replaced_when_whole

LOSS_COLUMNS = ("step", "tokens", "loss", "learning_rate", "gradient_norm")
Probe = tuple[int, int, str, float]  # of geometry.csv


def build_model(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Initialize the model of a recipe, without dropout: Pythia's GPT-NeoX, a BERT or a ModernBERT."""
    eos = tokenizer.eos_token_id
    shape: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": recipe.width,
        "num_hidden_layers": recipe.blocks,
        "num_attention_heads": recipe.heads,
        "intermediate_size": 4 * recipe.width,
        "max_position_embeddings": recipe.window,
        "pad_token_id": tokenizer.pad_token_id,
    }
    if recipe.architecture == "bert":
        return BertForMaskedLM(BertConfig(**shape, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))
    shape |= {"bos_token_id": eos, "eos_token_id": eos}
    if recipe.architecture == "gpt_neox":
        return GPTNeoXForCausalLM(GPTNeoXConfig(**shape))
    shape |= {
        "cls_token_id": eos,
        "sep_token_id": eos,
        "intermediate_size": 2 * recipe.width,  # gated: two matrices in, so as many parameters as the others
        "global_attn_every_n_layers": 1,  # the window is no longer than its local attention
        # with the usual 0.02 it takes thousands of steps to start learning
        "initializer_range": recipe.width**-0.5,
        "sparse_prediction": True,  # logits of the masked tokens alone: a fifth less time
    }
    return ModernBertForMaskedLM(ModernBertConfig(**shape))


def training_windows(text: str, tokenizer_folder: Path, recipe: Recipe) -> np.ndarray:
    """Cut a text into consecutive windows of token ids, (count, window); the rest of the text is left.

    Raises
    ------
    InputError
        When the text holds fewer windows than one step needs.
    """
    ids = TextTokenizer(load_tokenizer(tokenizer_folder)).encode_long(text)
    count = len(ids) // recipe.window
    if count < recipe.sequences:
        raise InputError(
            f"the training text holds {len(ids)} tokens; one step needs {recipe.sequences * recipe.window} "
            f"({recipe.sequences} windows of {recipe.window}). Take a larger text."
        )
    return ids[: count * recipe.window].reshape(count, recipe.window)


def batch_of(windows: np.ndarray, step: int, *, sequences: int, seed: int) -> np.ndarray:
    """Windows of a step, (sequences, window): a seeded shuffle an epoch, the same for every model."""
    per_epoch = len(windows) // sequences
    epoch, place = divmod(step, per_epoch)
    order = np.random.default_rng((seed, epoch)).permutation(len(windows))
    return windows[order[place * sequences : (place + 1) * sequences]].astype(np.int64)


def masked_batch(
    ids: torch.Tensor, tokenizer: PreTrainedTokenizerBase, *, seed: tuple[int, int]
) -> dict[str, torch.Tensor]:
    """Put the mask token for a share of the tokens; the labels are -100 where nothing is asked.

    Always the mask token: BERT's 10 % that stay as they are could be copied, and the loss would look like learning.
    """
    asked = torch.from_numpy(np.random.default_rng((2, *seed)).random(ids.shape) < MASKED_SHARE)
    inputs = torch.where(asked, tokenizer.mask_token_id, ids)
    return {"input_ids": inputs, "labels": torch.where(asked, ids, -100)}


def frequency_entropy(windows: np.ndarray) -> float:
    """Entropy of the token frequencies in nats: the loss of a model that has learned nothing else."""
    counts = np.bincount(windows.ravel())
    share = counts[counts > 0] / windows.size
    return float(-(share * np.log(share)).sum())


class Monitor(Protocol):
    """An observer of a run, such as `lmshape.monitor.GeometryMonitor`; no weight depends on it.

    Attributes
    ----------
    rows : what it has measured: step, layer, metric, value
    """

    rows: list[Probe]

    def observe(self, model: PreTrainedModel, step: int, *, last: bool) -> None:
        """Measure the model, if it is due or the `last` time, and keep the rows."""

    def identity(self) -> str:
        """Name all that its numbers depend on."""


def pretrain(
    text: str,
    tokenizer_folder: Path,
    output: Path,
    *,
    recipe: Recipe,
    monitor: Monitor | None = None,
    threads: int = 1,
) -> None:
    """Train a model on a text and leave a folder of `checkpoint-*` directories, `loss.csv` and `geometry.csv`.

    Parameters
    ----------
    text : the training text
    tokenizer_folder : folder that `AutoTokenizer` reads
    output : the run's folder; it appears whole, once the last step is done
    recipe : what to train, and how
    monitor : measures the geometry before each step that it finds due, and after the last
    threads : CPU threads; results are equal to the last bit for an equal number

    Raises
    ------
    InputError
        When the text holds fewer tokens than one step needs.

    Notes
    -----
    Work in progress lies in `{output}.partial`. A second call resumes there from the last checkpoint, unless
    the text, the tokenizer, the recipe or the monitor has changed: then it starts anew.
    """
    torch.set_num_threads(threads)
    transformers.utils.logging.disable_progress_bar()  # a bar for every checkpoint would bury ours
    run = TrainingRun(
        recipe,
        training_windows(text, tokenizer_folder, recipe),
        load_tokenizer(tokenizer_folder),
        folder=output.with_name(output.name + ".partial"),
        monitor=monitor,
    )
    run.resume()
    if run.step == 0:  # later ones were saved before the state that is resumed
        run.save_if_due()
    with progress(recipe.steps, done=run.step, description=output.name, unit="steps") as bar:
        while run.step < recipe.steps:
            run.advance()
            run.save_if_due()
            bar.set_postfix_str(f"loss {run.losses[-1][2]:.3f} nats", refresh=False)
            bar.update()
    run.finish(output)


class TrainingRun:
    """A model, its optimizer, the losses and geometry so far; the folder holds what a resumed run needs."""

    def __init__(
        self,
        recipe: Recipe,
        windows: np.ndarray,
        tokenizer: PreTrainedTokenizerBase,
        *,
        folder: Path,
        monitor: Monitor | None = None,
    ) -> None:
        """Set up the run at step 0: initial weights are a function of the recipe's seed."""
        torch.manual_seed(recipe.seed)
        self.recipe, self.windows, self.tokenizer, self.folder = recipe, windows, tokenizer, folder
        self.model = build_model(recipe, tokenizer)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=recipe.learning_rate,
            betas=(0.9, recipe.beta2),
            weight_decay=recipe.weight_decay,
        )
        self.step = 0
        self.losses: list[tuple[int, int, float, float, float]] = []
        self.monitor = monitor

    def advance(self) -> None:
        """Measure the geometry if it is due, do one parameter update and note its loss."""
        self._observe()
        recipe, step = self.recipe, self.step
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.learning_rate_at(step)
        ids = torch.from_numpy(batch_of(self.windows, step, sequences=recipe.sequences, seed=recipe.seed))
        batch = {"input_ids": ids, "labels": ids}
        if recipe.architecture != "gpt_neox":
            batch = masked_batch(ids, self.tokenizer, seed=(recipe.seed, step))
        loss = self.model(**batch).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.gradient_clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        tokens = self.step * recipe.sequences * recipe.window
        self.losses.append((step, tokens, loss.item(), recipe.learning_rate_at(step), norm.item()))

    def _observe(self) -> None:
        if self.monitor is not None:
            self.monitor.observe(self.model, self.step, last=self.step == self.recipe.steps)

    def save_if_due(self) -> None:
        """Save weights and the state to resume from, each whole or not at all."""
        if self.step not in self.recipe.checkpoint_steps:
            return
        with folder_when_whole(self._checkpoint(self.step)) as partial:
            self.model.save_pretrained(partial)
            self.tokenizer.save_pretrained(partial)
        state = {
            "step": self.step,
            "optimizer": self.optimizer.state_dict(),
            "losses": self.losses,
            "geometry": self.monitor.rows if self.monitor else [],
        }
        with replaced_when_whole(self.folder / "state.pt") as partial:
            torch.save(state | {"identity": self.identity()}, partial)
        write_receipt(self.folder)

    def resume(self) -> None:
        """Continue from the last saved state when it belongs to the same recipe, text and tokenizer.

        Raises
        ------
        InputError
            When the run must start anew, and its folder holds what no run has written there.
        """
        state_file = self.folder / "state.pt"
        state = torch.load(state_file, weights_only=True) if state_file.is_file() else {}
        if state.get("identity") != self.identity():
            self._start_anew()
            return
        self.step, self.losses = state["step"], state["losses"]
        if self.monitor is not None:
            self.monitor.rows = state["geometry"]
        self.model = type(self.model).from_pretrained(self._checkpoint(self.step)).train()
        self.optimizer.param_groups[0]["params"] = list(self.model.parameters())
        self.optimizer.load_state_dict(state["optimizer"])

    def _start_anew(self) -> None:
        for partial in self.folder.glob(".*.partial-*"):
            remove_leftovers(self.folder, partial.name.partition("partial-")[0] + "partial-")
        for folder in (*self.folder.glob("checkpoint-*"), self.folder):
            delete_own(folder)
        foreign = foreign_files(self.folder)
        if foreign:
            raise InputError(
                f"`{self.folder}` is where a run is trained, and has {foreign[0].relative_to(self.folder)}, which no "
                "run wrote in this form. Move it elsewhere, and run again."
            )
        self.folder.mkdir(parents=True, exist_ok=True)

    def finish(self, output: Path) -> None:
        """Write losses and geometry, and move the folder to its final name."""
        self._observe()
        write_rows(self.folder / "geometry.csv", self.monitor.rows if self.monitor else [])
        rows = [",".join(LOSS_COLUMNS), *(",".join(map(str, row)) for row in self.losses)]
        (self.folder / "loss.csv").write_text("\n".join(rows) + "\n")
        (self.folder / "summary.json").write_text(json.dumps(self.summary(), indent=2) + "\n")
        (self.folder / "state.pt").unlink(missing_ok=True)
        for checkpoint in [] if self.recipe.keep_checkpoints else self.folder.glob("checkpoint-*"):
            delete_own(checkpoint)
        for weights in self.folder.glob("checkpoint-*/*"):
            os.utime(weights)  # made before a kill, they may look older than the text they were trained on
        name_whole_folder(self.folder, output)

    def summary(self) -> dict[str, float | int | str]:
        """Facts of the run for the reader: size, last loss, and the loss of a model that knows only frequencies."""
        last = [loss for _, _, loss, _, _ in self.losses[-32:]]
        return {
            "architecture": self.recipe.architecture,
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "steps": self.step,
            "tokens_per_step": self.recipe.sequences * self.recipe.window,
            "training_loss_nats": float(np.mean(last)) if last else float("nan"),
            "unigram_entropy_nats": frequency_entropy(self.windows),
        }

    def identity(self) -> str:
        """Hash of all that the weights depend on, this code included: another's state is never resumed."""
        versions = f"{torch.__version__} {transformers.__version__}"
        made_by = f"{code_fingerprint('lmshape.training.pretrain')} {versions} {torch.get_num_threads()}"
        digest = hashlib.sha256(f"{self.recipe.as_json()} {made_by}".encode())
        digest.update(self.windows.tobytes())
        digest.update(self.monitor.identity().encode() if self.monitor else b"")
        digest.update(self.tokenizer.backend_tokenizer.to_str().encode())
        return digest.hexdigest()

    def _checkpoint(self, step: int) -> Path:
        return self.folder / f"checkpoint-{step}"


def write_rows(path: Path, rows: Iterable[Probe]) -> None:
    """Write step, layer, metric and value, whole or not at all: NaN is an empty cell, no row the header alone."""
    lines = (
        f"{step},{layer},{metric},{'' if isnan(value) else value}" for step, layer, metric, value in rows
    )
    with replaced_when_whole(path) as partial:
        partial.write_text("\n".join([",".join(GEOMETRY_COLUMNS), *lines]) + "\n")
