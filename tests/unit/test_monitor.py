"""The geometry measured while a model trains: the library's own numbers, and a model that does not notice."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from math import isnan
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_models import ARCHITECTURES
from torch.distributed import fsdp
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from lmshape.errors import InputError
from lmshape.geometry import (
    anisotropy,
    effective_rank,
    intrinsic_dimension,
    mean_cosine,
    participation_ratio,
)
from lmshape.monitor import MONITORED, GeometryMonitor, held_out, monitor_of, shape_of
from lmshape.texts.tokenizer import write_tokenizer
from lmshape.training.recipe import Recipe

IDS = np.random.default_rng(0).integers(0, 60, (8, 32))


@pytest.fixture(scope="module")
def model() -> GPTNeoXForCausalLM:
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64,
        hidden_dropout=0.3, attention_dropout=0.3,
    )  # fmt: skip
    return GPTNeoXForCausalLM(config)


def by_place(monitor: GeometryMonitor, step: int) -> dict[tuple[int, str], float]:
    return {(layer, metric): value for at, layer, metric, value in monitor.rows if at == step}


def test_the_numbers_are_those_of_the_library(model) -> None:
    monitor = GeometryMonitor(IDS, every=10)
    monitor.observe(model, 0)
    found = by_place(monitor, 0)
    assert set(found) == {(layer, metric) for layer in (1, 2, 3) for metric in MONITORED} | {(3, "loss")}
    model.eval()
    with torch.no_grad():
        out = model(torch.as_tensor(IDS), output_hidden_states=True, labels=torch.as_tensor(IDS))
    rows = out.hidden_states[2].reshape(-1, 32).numpy()
    first = np.unique(IDS.ravel(), return_index=True)[1]
    expected = {
        "anisotropy": anisotropy(rows),
        "effective_rank": effective_rank(rows),
        "participation_ratio": participation_ratio(rows),
        "mean_cosine": mean_cosine(rows),
        "id_twonn": intrinsic_dimension(rows),
        "id_twonn_types": intrinsic_dimension(rows[first]),
        "norm_median": np.median(np.linalg.norm(rows.astype(float), axis=1)),
        "activation_max": np.abs(rows).max(),
    }
    for metric, value in expected.items():
        assert found[2, metric] == pytest.approx(value, rel=1e-9), metric
    assert found[3, "loss"] == pytest.approx(float(out.loss), rel=1e-5)


def test_only_steps_that_are_due_and_the_last_are_measured_each_once(model) -> None:
    monitor = GeometryMonitor(IDS, every=4, causal=False)
    for step in range(10):
        monitor.observe(model, step)
    monitor.observe(model, 9, last=True)
    monitor.observe(model, 9, last=True)
    assert [step for step, *_ in monitor.rows][:: 3 * len(MONITORED)] == [0, 4, 8, 9]
    assert len(monitor.rows) == 4 * 3 * len(MONITORED)  # no loss where no next token is predicted


def test_the_model_and_all_random_states_stay_as_they_are(model) -> None:
    model.train()
    hooks = sum(len(module._forward_hooks) for module in model.modules())  # transformers has its own
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(1)
    np.random.seed(1)
    expected = torch.rand(3), np.random.random(3)
    torch.manual_seed(1)
    np.random.seed(1)
    one, two = (GeometryMonitor(IDS, every=1) for _ in range(2))
    one.observe(model, 0)
    assert torch.equal(torch.rand(3), expected[0]) and (np.random.random(3) == expected[1]).all()
    assert model.training and sum(len(module._forward_hooks) for module in model.modules()) == hooks
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    two.observe(model, 0)
    assert one.rows == two.rows  # no dropout


def test_a_part_that_is_at_rest_stays_so(model) -> None:
    model.train()
    frozen = model.gpt_neox.layers[0].eval()
    GeometryMonitor(IDS, every=1).observe(model, 0)
    assert model.training and model.gpt_neox.layers[1].training
    assert not any(module.training for module in frozen.modules())


class Caching(torch.nn.Module):
    """Keeps a tensor of its first pass, as rotary embeddings do."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: torch.Tensor | None = None

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        if self.kept is None:
            self.kept = torch.ones(hidden.shape[-1])
        return hidden * self.kept


def test_a_model_that_was_measured_first_can_be_trained(model) -> None:
    caching = GPTNeoXForCausalLM(model.config)
    caching.gpt_neox.layers[1].mlp = torch.nn.Sequential(caching.gpt_neox.layers[1].mlp, Caching())
    monitor = GeometryMonitor(IDS, every=1)
    monitor.observe(caching, 0)
    ids = torch.as_tensor(IDS)
    caching(input_ids=ids, labels=ids).loss.backward()
    assert caching.gpt_neox.embed_in.weight.grad is not None
    monitor.observe(caching, 1)
    assert len(monitor.rows) == 2 * (3 * len(MONITORED) + 1)


def test_a_diverged_model_leaves_empty_cells(model, tmp_path: Path) -> None:
    broken = GPTNeoXForCausalLM(model.config)
    broken.load_state_dict(model.state_dict())
    with torch.no_grad():
        broken.gpt_neox.layers[1].mlp.dense_4h_to_h.bias.fill_(float("inf"))
    monitor = GeometryMonitor(IDS, every=1)
    monitor.observe(broken, 5)
    found = by_place(monitor, 5)
    assert all(not isnan(found[1, metric]) for metric in MONITORED)
    assert all(isnan(found[layer, metric]) for layer in (2, 3) for metric in MONITORED) and isnan(
        found[3, "loss"]
    )
    monitor.write(tmp_path / "geometry.csv")
    table = pd.read_csv(tmp_path / "geometry.csv")
    assert list(table) == ["step", "layer", "metric", "value"] and len(table) == len(monitor.rows)
    assert table["value"].isna().sum() == 2 * len(MONITORED) + 1


def test_rows_that_are_all_equal_have_no_dimension() -> None:
    found = shape_of(np.ones((80, 4), dtype=np.float32), first_of_type=np.arange(10))
    assert isnan(found["id_twonn"]) and isnan(found["anisotropy"]) and found["norm_median"] == 2.0


@pytest.mark.parametrize(
    ("ids", "every", "message"),
    [
        (np.zeros(100), 1, "`ids` has shape"),
        (np.zeros((2, 20)), 1, "with at least 64 tokens"),
        (IDS, 0, "`every` is 0; it must be at least 1"),
    ],
)
def test_what_cannot_be_watched_is_refused(ids: np.ndarray, every: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        GeometryMonitor(ids, every=every)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (IDS + 60, "token id .* is outside the network's vocabulary of 60"),
        (np.tile(IDS, (1, 3)), "a sequence has 96 tokens, but `gpt_neox` here reads at most 64"),
    ],
)
def test_ids_that_would_end_the_training_on_a_gpu_are_refused(
    ids: np.ndarray, message: str, model: GPTNeoXForCausalLM
) -> None:
    short = GPTNeoXForCausalLM(GPTNeoXConfig(**model.config.to_dict() | {"max_position_embeddings": 64}))
    with pytest.raises(InputError, match=message):
        GeometryMonitor(ids, every=1).observe(short, 0)


@pytest.mark.parametrize("name", ["bert", "gpt_neox without its head"])
def test_what_predicts_no_next_token_has_no_loss_and_says_why(name: str, model: GPTNeoXForCausalLM) -> None:
    """Of the model without its head the hidden state would pass for logits."""
    other = model.gpt_neox if "head" in name else ARCHITECTURES["bert"].build()
    why = "no language-model head" if "head" in name else "no next-token loss: rows change with later tokens"
    monitor = GeometryMonitor(IDS % 60, every=1)
    with pytest.warns(UserWarning, match=why):
        monitor.observe(other, 0)
    monitor.observe(other, 1)
    assert "loss" not in {metric for *_, metric, _ in monitor.rows} and len(monitor.rows) == 2 * 3 * len(
        MONITORED
    )


def test_the_probe_is_taken_from_all_over_the_held_out_text(tmp_path: Path) -> None:
    text = " ".join(f"{number} words of the held-out text." for number in range(600))
    write_tokenizer(text, tmp_path / "tokenizer", vocabulary=300)
    plan = Recipe(
        architecture="gpt_neox", width=16, blocks=1, heads=2, window=16, sequences=1, steps=1, checkpoint_steps=(),
        learning_rate=0.1, probe_every=5, probe_tokens=128,
    )  # fmt: skip
    monitor = monitor_of(text, tmp_path / "tokenizer", plan)
    assert monitor.ids.shape == (8, 16) and monitor.every == 5 and monitor.causal
    assert len({tuple(row) for row in monitor.ids.tolist()}) == 8
    with pytest.raises(InputError, match="Train on a smaller `span`"):
        monitor_of(text[:200], tmp_path / "tokenizer", plan)


@pytest.mark.parametrize(
    ("span", "beside"),
    [
        ((0.0, 0.5), "CC\nDD\n"),
        ((0.25, 0.5), "CC\nDD\n"),
        ((0.25, 1.0), "AA\n"),
        ((0.0, 1.0), ""),
        ((0.25, 0.9999), "AA\n"),
        ((0.0, 0.9999), ""),
    ],
)
def test_what_is_held_out_is_behind_the_span_or_before_it(span: tuple[float, float], beside: str) -> None:
    assert held_out("AA\nBB\nCC\nDD\n", *span) == beside


def test_the_loop_of_the_page_works(model, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/spikes.md").read_text()
    _, code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names = {
        "held_out_ids": IDS,
        "model": model,
        "steps": 150,
        "batches": range(150),
        "update": lambda model, batch: None,
        "path": tmp_path / "geometry.csv",
    }
    exec(code, names)
    assert pd.read_csv(tmp_path / "geometry.csv")["step"].unique().tolist() == [0, 100, 150]


@pytest.mark.parametrize("wrap", ["DataParallel", "torch.compile", "model.compile", "block.compile"])
def test_what_trainers_wrap_gives_the_rows_of_the_plain_model(wrap: str, model, monkeypatch) -> None:
    plain, wrapped = GeometryMonitor(IDS, every=1), GeometryMonitor(IDS, every=1)
    plain.observe(model, 0)
    inner = copy.deepcopy(model)
    calls: list[object] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable:
        calls.append(graph)
        return graph.forward

    other: torch.nn.Module = inner
    if wrap == "DataParallel":
        other = torch.nn.DataParallel(inner)
    elif wrap == "torch.compile":
        other = torch.compile(inner, backend=backend)
    else:
        (inner if wrap == "model.compile" else inner.gpt_neox.layers[1]).compile(backend=backend)
    if wrap != "DataParallel":
        with torch.no_grad():
            other(torch.as_tensor(IDS))
        assert calls
    wrapped.observe(other, 0)
    assert wrapped.rows == plain.rows


class Blocks(torch.nn.Module):
    """A decoder of nobody's library: blocks in `body.h`, logits and a loss."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(60, 16)
        self.body = torch.nn.ModuleDict({"h": torch.nn.ModuleList(torch.nn.Linear(16, 16) for _ in range(2))})
        self.head = torch.nn.Linear(16, 60)

    def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, None]:
        hidden = self.embedding(ids)
        for block in self.body["h"]:
            hidden = block(hidden)
        return self.head(hidden), None


@pytest.mark.parametrize("kind", [torch.nn.ModuleList, torch.nn.Sequential])
def test_a_plain_module_is_measured_by_the_name_of_its_blocks(kind: type[torch.nn.Module]) -> None:
    torch.manual_seed(0)
    model = Blocks()
    if kind is torch.nn.Sequential:
        model.body["h"] = torch.nn.Sequential(*model.body["h"])
    monitor = GeometryMonitor(IDS, every=1, blocks="body.h")
    monitor.observe(model, 0)
    found = by_place(monitor, 0)
    with torch.no_grad():
        hidden = model.body["h"][0](model.embedding(torch.as_tensor(IDS)))
        logits, _ = model(torch.as_tensor(IDS))
    assert found[1, "anisotropy"] == pytest.approx(anisotropy(hidden.reshape(-1, 16).numpy()), rel=1e-9)
    loss = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), torch.as_tensor(IDS)[:, 1:].flatten()
    )
    assert found[2, "loss"] == pytest.approx(float(loss), rel=1e-5)
    with pytest.raises(InputError, match="`Blocks` is neither a transformers model nor a known wrapper"):
        GeometryMonitor(IDS, every=1).observe(model, 0)
    with pytest.raises(InputError, match="`blocks` is `body.x`, no list of modules here. Nearest: body.h"):
        GeometryMonitor(IDS, every=1, blocks="body.x").observe(model, 0)


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeviceMesh]:
    """A process group of this process alone."""
    meeting = tmp_path_factory.mktemp("gloo") / "meeting"
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


def test_a_distributed_model_gives_the_rows_of_the_plain_one(model, one_process: DeviceMesh) -> None:
    plain, wrapped = GeometryMonitor(IDS, every=1), GeometryMonitor(IDS, every=1)
    plain.observe(model, 0)
    wrapped.observe(torch.nn.parallel.DistributedDataParallel(copy.deepcopy(model)), 0)
    assert wrapped.rows == plain.rows


@pytest.mark.parametrize("wrap", ["fully_shard", "FSDP", "FSDP of the blocks"])
@pytest.mark.filterwarnings("ignore:FSDP is switching to use `NO_SHARD`")
def test_weights_that_are_spread_over_processes_are_refused(
    wrap: str, model, one_process: DeviceMesh
) -> None:
    spread = copy.deepcopy(model)
    if wrap == "fully_shard":
        fsdp.fully_shard(spread, mesh=one_process)
    elif wrap == "FSDP":
        spread = fsdp.FullyShardedDataParallel(spread, device_id=torch.device("cpu"))
    else:
        layers = spread.gpt_neox.layers
        layers[0] = fsdp.FullyShardedDataParallel(layers[0], device_id=torch.device("cpu"))
    with pytest.raises(
        InputError, match=r"are spread over processes \(FSDP, ZeRO-3\), .* Measure its checkpoints"
    ):
        GeometryMonitor(IDS, every=1).observe(spread, 0)


def test_weights_that_zero_3_holds_are_refused(model) -> None:
    """A pass in one process would wait for the others for ever. DeepSpeed leaves an empty tensor, with marks."""
    spread = copy.deepcopy(model)
    for parameter in spread.parameters():
        parameter.data, parameter.ds_status = torch.empty(0), "NOT_AVAILABLE"
    with pytest.raises(InputError, match=r"spread over processes \(FSDP, ZeRO-3\)"):
        GeometryMonitor(IDS, every=1).observe(spread, 0)


def test_a_resumed_run_goes_on_in_its_file(model, tmp_path: Path) -> None:
    path, whole = tmp_path / "geometry.csv", GeometryMonitor(IDS, every=2)
    for step in (0, 2, 4, 6):
        whole.observe(model, step)
    first = GeometryMonitor(IDS, every=2)
    first.rows = [
        *whole.rows[: 3 * 25],
        (4, 1, "anisotropy", 9.0),
    ]  # of a step that the resumed run takes again
    first.write(path)
    second = GeometryMonitor(IDS, every=2)
    second.rows = [row for row in whole.rows if row[0] >= 4]
    second.write(path)
    second.write(path)
    whole.write(tmp_path / "whole.csv")
    assert path.read_text().splitlines()[-25:] == (tmp_path / "whole.csv").read_text().splitlines()[-25:]
    assert [row.split(",")[0] for row in path.read_text().splitlines()[1::25]] == ["0", "2", "4", "6"]
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="exists and has other columns than step, layer, metric, value"):
        second.write(tmp_path / "other.csv")
