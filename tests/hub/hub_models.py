"""Small real models, and whole training runs of them as the loopback hub's repositories."""

from __future__ import annotations

import io
import json
import math
import os
import pickle
import tempfile
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

if TYPE_CHECKING:
    from hub_store import HubStore

Files = dict[str, bytes]
Layout = Literal["safetensors", "sharded", "bin", "sharded_bin", "both"]

STEPS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
SHARD = "20KB"  # the largest shard of a sharded model, which is then of a few
TEXT = [
    "The quick brown fox jumps over the lazy dog near the river bank, and the dog sleeps on.\n",
    "A language model predicts the next word of a text from the words before it, again and again.\n",
    "Layers of a network turn a word into a point of a space, and the space has a shape.\n",
]
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_SHAPE = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
_IDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}


@cache
def decoder_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE of about 300 entries, like that of Pythia."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet, special = sorted(pre_tokenizers.ByteLevel.alphabet()), ["<|endoftext|>", "<|padding|>"]
    bpe.train_from_iterator(
        TEXT,
        trainers.BpeTrainer(
            vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=special[0], eos_token=special[0], pad_token=special[1]
    )


@cache
def encoder_tokenizer() -> PreTrainedTokenizerFast:
    """WordPiece that adds [CLS] and [SEP], like that of BERT."""
    wordpiece = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    wordpiece.normalizer = normalizers.BertNormalizer(lowercase=True)
    wordpiece.pre_tokenizer, wordpiece.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    wordpiece.train_from_iterator(
        TEXT, trainers.WordPieceTrainer(vocab_size=200, special_tokens=_SPECIAL, show_progress=False)
    )
    ids = [(name, wordpiece.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    wordpiece.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
    )
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    return PreTrainedTokenizerFast(tokenizer_object=wordpiece, **dict(zip(names, _SPECIAL, strict=True)))


@cache
def decoder(seed: int = 0) -> GPTNeoXForCausalLM:
    """A GPT-NeoX of width 16 and 2 blocks with random weights."""
    torch.manual_seed(seed)
    return GPTNeoXForCausalLM(
        GPTNeoXConfig(vocab_size=304, max_position_embeddings=64, **_SHAPE, **_IDS)
    ).eval()


@cache
def encoder(seed: int = 0) -> BertForMaskedLM:
    """A BERT of width 16 and 2 blocks with random weights."""
    torch.manual_seed(seed)
    size = len(encoder_tokenizer())
    return BertForMaskedLM(BertConfig(vocab_size=size, max_position_embeddings=64, **_SHAPE)).eval()


@cache
def _tokenizer_files(kind: Literal["decoder", "encoder"]) -> Files:
    tokenizer = decoder_tokenizer() if kind == "decoder" else encoder_tokenizer()
    files = _saved(tokenizer)
    if kind == "encoder":
        words = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
        files["vocab.txt"] = "".join(f"{word}\n" for word, _ in words).encode()
    return files


def tokenizer_files(model: PreTrainedModel) -> Files:
    """The files of the model's tokenizer."""
    return dict(_tokenizer_files("encoder" if isinstance(model, BertForMaskedLM) else "decoder"))


def at_step(model: PreTrainedModel, step: int, seed: int = 0) -> PreTrainedModel:
    """The model with noise that grows with the step; the weights of steps 0 and 1 are the model's own, as Pythia's."""
    changed = type(model)(model.config).eval()
    generator = torch.Generator().manual_seed(1_000_003 * seed + step)
    scale = 0.02 * math.log2(max(step, 1))
    state = {
        name: value + scale * torch.randn(value.shape, generator=generator)
        for name, value in model.state_dict().items()
    }
    changed.load_state_dict(state)
    return changed


def weight_files(model: PreTrainedModel, layout: Layout = "safetensors") -> Files:
    """The files of the model's weights and its config.json."""
    if layout == "sharded":
        return _saved(model, max_shard_size=SHARD)
    files = _saved(model)
    if layout in ("bin", "sharded_bin"):
        del files["model.safetensors"]
    if layout in ("bin", "both"):
        files["pytorch_model.bin"] = torch_bytes(model.state_dict())
    if layout == "sharded_bin":
        files |= _sharded_bin(model.state_dict())
    return files


def model_files(model: PreTrainedModel, layout: Layout = "safetensors") -> Files:
    """All files of a repository: weights, config and tokenizer."""
    card = b"---\nlicense: apache-2.0\n---\n\n# A tiny model for tests\n"
    return {"README.md": card, **tokenizer_files(model), **weight_files(model, layout)}


def in_folder(files: Mapping[str, bytes], folder: str) -> Files:
    """The files under a folder of the repository."""
    return {f"{folder}/{path}": data for path, data in files.items()}


def torch_bytes(content: object) -> bytes:
    """What `torch.save` writes."""
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


class _Command:
    """Runs a command of the shell when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


def bin_with_code(model: PreTrainedModel, marker: Path, *, zipped: bool = True) -> bytes:
    """A pytorch_model.bin that makes the file `marker` when it is unpickled; `zipped` as today, or a bare pickle."""
    state = {**model.state_dict(), "gift": _Command(f"touch '{marker}'")}
    return torch_bytes(state) if zipped else pickle.dumps({"gift": state["gift"]}, protocol=2)


@dataclass(frozen=True)
class Run:
    """A training run to publish: a branch for every step, and what is wrong with some of them.

    Steps are named as in `steps`; a fault names the steps that have it.
    """

    steps: tuple[int, ...] = STEPS
    layout: Layout = "safetensors"
    main: int | None = (
        None  # the step whose weights main has (default: the last), or -1 for weights of its own
    )
    same_as: Mapping[int, int] = field(default_factory=dict)  # a step, and the one whose weights it has
    tags: Collection[int] = ()  # steps with a tag instead of a branch
    weightless: Collection[int] = ()  # steps without files of weights
    missing_shard: Collection[int] = ()  # steps whose last shard is missing
    with_code: Mapping[int, Path] = field(
        default_factory=dict
    )  # steps whose .bin makes a file when unpickled
    name: str = "step{}"
    seed: int = 0


def publish(
    hub: HubStore, repo: str, run: Run | None = None, model: PreTrainedModel | None = None
) -> dict[str, str]:
    """Publish a training run as Pythia's are; return the sha of each revision by its name, main included."""
    run, model = run or Run(), model or decoder(run.seed if run else 0)
    shas = {}
    for step in run.steps:
        name, files = run.name.format(step), _files_of(run, model, step)
        branch, tag = (None, name) if step in run.tags else (name, None)
        shas[name] = hub.commit(repo, files, branch, tag)
    last = run.steps[-1] if run.main is None else run.main
    files = model_files(at_step(model, 3, run.seed), run.layout) if last < 0 else _files_of(run, model, last)
    return {**shas, "main": hub.commit(repo, files, "main")}


def publish_both(
    hub: HubStore, repo: str, steps: Mapping[int, tuple[int, int]], *, main: bool = True
) -> None:
    """Publish branches with weights in both formats: step → the steps of its safetensors and of its .bin.

    Unless told otherwise, `main` then has the files of the last of them.
    """
    for step, (of_safetensors, of_bin) in steps.items():
        files = model_files(at_step(decoder(), of_safetensors))
        files["pytorch_model.bin"] = torch_bytes(at_step(decoder(), of_bin).state_dict())
        hub.commit(repo, files, f"step{step}")
    if main:
        hub.commit(repo, files, "main")


def publish_folders(hub: HubStore, repo: str, steps: Iterable[int] = STEPS, folder: str = "step{}") -> str:
    """Publish a run whose steps are folders of one revision, with the last one's files at the top; return its sha."""
    models = {step: at_step(decoder(), step) for step in steps}
    files = model_files(list(models.values())[-1])
    for step, model in models.items():
        files |= in_folder(model_files(model), folder.format(step))
    return hub.commit(repo, files)


def _files_of(run: Run, model: PreTrainedModel, step: int) -> Files:
    changed = at_step(model, run.same_as.get(step, step), run.seed)
    files = model_files(changed, run.layout)
    weights = sorted(path for path in files if path.endswith((".safetensors", ".bin")))
    if step in run.with_code:
        files["pytorch_model.bin"] = bin_with_code(changed, run.with_code[step])
    if step in run.missing_shard:
        del files[weights[-1]]
    if step in run.weightless:
        weights += [path for path in files if path.endswith(".index.json")]
        files = {path: data for path, data in files.items() if path not in weights}
    return files


def _saved(thing: PreTrainedModel | PreTrainedTokenizerFast, **options: object) -> Files:
    with tempfile.TemporaryDirectory() as folder:
        thing.save_pretrained(folder, **options)
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def _sharded_bin(state: Mapping[str, torch.Tensor]) -> Files:
    """Two shards and their index."""
    names = sorted(state)
    shards = {f"pytorch_model-0000{i}-of-00002.bin": names[i - 1 :: 2] for i in (1, 2)}
    size = sum(value.numel() * value.element_size() for value in state.values())
    index = {"metadata": {"total_size": size}, "weight_map": {n: s for s, ns in shards.items() for n in ns}}
    files = {shard: torch_bytes({name: state[name].clone() for name in ns}) for shard, ns in shards.items()}
    return {**files, "pytorch_model.bin.index.json": json.dumps(index, indent=2).encode()}
