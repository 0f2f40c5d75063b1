"""A run of transformers' Trainer whose checkpoints come and go: `python trainer_run.py FOLDER CALLS`.

It saves one checkpoint more for each byte in the file CALLS, and keeps three.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

sys.path.insert(0, str(Path(__file__).parents[2] / "workflow"))

from lmshape.texts.tokenizer import train_tokenizer  # noqa: E402


class Paced(TrainerCallback):
    """Wait until the next checkpoint is due."""

    def __init__(self, calls: Path) -> None:
        self.calls, self.saved = calls, 0

    def on_save(self, args: TrainingArguments, state: object, control: object, **_: object) -> None:
        self.saved += 1
        while self.saved > self.calls.stat().st_size + 1:
            time.sleep(0.05)


def main(folder: str, calls: str) -> None:
    tokenizer = train_tokenizer("the cat sat on the mat and the dog sat on the log. " * 50, 300)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=300, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64,
    )  # fmt: skip
    rows = [{"input_ids": ids, "labels": ids} for ids in torch.randint(0, 300, (64, 32))]
    arguments = TrainingArguments(
        output_dir=folder, max_steps=1000, per_device_train_batch_size=2, save_steps=2, save_total_limit=3,
        logging_steps=1, learning_rate=1e-2, report_to=[], use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    Trainer(
        model=LlamaForCausalLM(config),
        args=arguments,
        train_dataset=rows,
        processing_class=tokenizer,
        callbacks=[Paced(Path(calls))],
    ).train()


if __name__ == "__main__":
    main(*sys.argv[1:])
