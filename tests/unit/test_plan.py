"""What a study will take: floating-point operations and bytes against counts of the real thing, downloads, disk."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from extraction import extracted
from hub_locks import ENTRY, checkpoint, lock_of, whole
from tiny_models import ARCHITECTURES, BLOCKS, CELL, VOCABULARY, WIDTH, make_tokens
from tokenizers import Tokenizer
from tokenizers.models import BPE
from torch.utils.flop_counter import FlopCounterMode

from lmshape.hub.lock import write_lock
from lmshape.jobs.plan import (
    describe_activations,
    describe_plan,
    describe_spelling,
    disk_peak,
    plan_of,
)
from lmshape.progress import size_text
from lmshape.schema import Yaml
from lmshape.site import Site, stored_bytes
from lmshape.store.activations import ActivationWriter
from lmshape.study.costs import activation_bytes, forward_flops
from lmshape.study.models import Model
from lmshape.study.study import Study, load_study

pytestmark = pytest.mark.slow

SHAPE = {"hidden_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 1000}
NETWORKS = {
    "gpt_neox": ("GPTNeoXForCausalLM", {**SHAPE, "intermediate_size": 4 * 96}),
    "llama": ("LlamaForCausalLM", {**SHAPE, "intermediate_size": 8 * 96 // 3}),  # three matrices for two
    "bert": ("BertForMaskedLM", {**SHAPE, "intermediate_size": 4 * 96}),
}


def model_of(kind: str = "decoder", *, blocks: int = 4, width: int = 96) -> Model:
    return Model(
        name="m",
        kind=kind,
        architecture="",
        folder=Path(),
        tokenizer=Path(),
        blocks=blocks,
        width=width,
        vocabulary=1000,
        context=None,
        parameters=None,
        pretraining=None,
        checkpoints={},
    )


def counted_flops(architecture: str, *, sequences: int, window: int) -> int:
    """Operations of all matrix products of a pass, as torch counts them."""
    network, config = NETWORKS[architecture]
    network = getattr(transformers, network)
    model = network(network.config_class(**config, attn_implementation="eager")).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(sequences, window, dtype=torch.long))
    return counter.get_total_flops()


@pytest.mark.parametrize("architecture", NETWORKS)
@pytest.mark.parametrize("window", [16, 256])
def test_operations_are_those_that_torch_counts(architecture: str, window: int) -> None:
    counted = counted_flops(architecture, sequences=2, window=window)
    every_pair = forward_flops(model_of("encoder"), tokens=2 * window, window=window)
    assert every_pair == pytest.approx(counted, rel=0.05)


@pytest.mark.parametrize("architecture", ["gpt_neox", "llama"])
def test_operations_of_a_decoder(architecture: str) -> None:
    counted = counted_flops(architecture, sequences=4, window=24)
    assert forward_flops(model_of(), tokens=96, window=24) == pytest.approx(counted, rel=0.05)


def test_a_decoder_attends_to_half_of_the_pairs() -> None:
    both = [forward_flops(model_of(kind), tokens=1000, window=500) for kind in ("encoder", "decoder")]
    assert both[0] - both[1] == 1000 * 4 * 4 * 96 * 250


def test_activations_take_what_the_store_takes(tmp_path: Path) -> None:
    tokens = make_tokens([32] * 400)
    ARCHITECTURES["gpt_neox"].build().save_pretrained(tmp_path / "model")
    extracted(tmp_path / "model", tokens, tmp_path)
    stored = (tmp_path / "a.h5").stat().st_size
    model = replace(model_of(blocks=BLOCKS, width=WIDTH), vocabulary=VOCABULARY)
    assert stored <= activation_bytes(model, len(tokens.ids)) <= 1.02 * stored


@pytest.mark.parametrize(
    ("width", "blocks", "sequences"), [(64, 2, 64), (128, 6, 50), (768, 12, 30), (2048, 3, 30)]
)
def test_the_bound_on_a_store_is_narrow_at_any_shape(
    tmp_path: Path, width: int, blocks: int, sequences: int
) -> None:
    """Whole chunks count: 6400 rows of 128 numbers take the disk of 8192."""
    tokens = make_tokens([128] * sequences)
    sites = [Site("embedding", 0), *(Site("block", layer) for layer in range(1, blocks + 1))]
    sites.append(Site("final_norm", blocks))
    rows = np.ones((len(tokens.ids), width), dtype=np.float32)
    known = {"sites": sites, "width": width, "tokens": tokens, "attributes": CELL}
    with ActivationWriter(tmp_path / "a.h5", **known) as writer:
        for site in sites:
            writer.write(site, 0, rows)
        writer.write_nll(0, rows[:, 0])
    stored = (tmp_path / "a.h5").stat().st_size
    bound = stored_bytes(len(rows), width, sites=len(sites), types=0)
    assert stored <= bound <= 1.02 * stored


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A registry of two published runs and one on this machine."""
    unsized = {key: value for key, value in ENTRY.items() if key not in ("steps", "main_step", "revision")}
    models = {
        "run": {**ENTRY, "gigabytes": 0.5},
        "other": {**unsized, "kind": "encoder", "parameters": 1_000_000},
        "unsized": unsized,
        "here": {"kind": "decoder", "folder": "here"},
    }
    (tmp_path / "models.yaml").write_text(json.dumps(models))
    (tmp_path / "data.yaml").write_text(
        json.dumps({"texts": {}, "datasets": {"random": {"order": "random"}, "more": {"order": "random"}}})
    )
    for name in ("checkpoint-0", "checkpoint-9"):
        (tmp_path / "here" / name).mkdir(parents=True)
        facts = {"model_type": "gpt_neox", "num_hidden_layers": 2, "hidden_size": 64, "vocab_size": 1000}
        (tmp_path / "here" / name / "config.json").write_text(json.dumps(facts))
        (tmp_path / "here" / name / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
        (tmp_path / "here" / name / "tokenizer.json").touch()
    return tmp_path


def study_of(root: Path, *models: str, **config: Yaml) -> Study:
    known = {
        "models": list(models),
        "datasets": ["random", "more"],
        "checkpoints": {"log": 5},
        "sampling": {"window": 128, "draws": 2, "rows_per_draw": 1024},
        "registry": {"models": "models.yaml", "datasets": "data.yaml"},
    }
    return load_study({**known, **config}, root)


TOKENS = 2 * 10 * 128


def test_a_run_that_nobody_has_asked_the_hub_for(root: Path) -> None:
    study = study_of(root, "run")
    [plan] = plan_of(study)
    assert (plan.model, plan.checkpoints, plan.cells, plan.tokens) == ("run", 5, 10, 10 * TOKENS)
    assert (plan.download_bytes, plan.checkpoint_bytes) == (2.5e9, 0.5e9)
    model = study.models["run"]
    assert plan.forward_flops == 10 * forward_flops(model, tokens=TOKENS, window=128)
    assert plan.activation_bytes == 10 * activation_bytes(model, TOKENS)


def test_sizes_of_the_lock_go_before_those_of_the_registry(root: Path) -> None:
    files = {step: whole(step, size=1000 + step) for step in (0, 16, 512)}
    locked = [checkpoint(step, files[step]) for step in files]
    write_lock(root / "results/revisions/run.tsv", lock_of(locked))
    [plan] = plan_of(study_of(root, "run"))
    assert (plan.checkpoints, plan.download_bytes, plan.checkpoint_bytes) == (3, 3528, 1512)


def test_two_bytes_a_parameter_where_only_these_are_known_and_two_passes_of_an_encoder(root: Path) -> None:
    study = study_of(root, "other", checkpoints="all")
    [plan] = plan_of(study)
    assert (plan.checkpoints, plan.download_bytes) == (1, 2_000_000)
    assert plan.forward_flops == 2 * 2 * forward_flops(study.models["other"], tokens=TOKENS, window=128)


def test_a_run_on_this_machine_downloads_nothing(root: Path) -> None:
    [plan] = plan_of(study_of(root, "here"))
    assert (plan.checkpoints, plan.download_bytes, plan.checkpoint_bytes) == (2, 0, 0)


def test_the_disk_without_a_bound_and_with_one(root: Path) -> None:
    study = study_of(root, "run", "here")
    plans = plan_of(study)
    assert disk_peak(plans, study) == (2.5e9, "at most, without `disk_budget_gb`; with it, 0.5 GB would do")
    bounded = replace(study, disk_budget_bytes=10**9)
    assert disk_peak(plans, bounded) == (10**9, "`disk_budget_gb`; it must be at least 0.5 GB")
    kept = replace(bounded, keep_weights=True)
    assert disk_peak(plans, kept) == (2.5e9, "all weights, which are kept")
    assert disk_peak([], study) == (0, "at most, without `disk_budget_gb`; with it, 0 GB would do")


def test_activations_that_stay_and_that_pass(root: Path) -> None:
    """Where they pass they take no disk of the study, whose quota bounds downloaded weights alone."""
    study = study_of(root, "run", "here")
    plans = plan_of(study)
    whole = plans[0].activation_bytes + plans[1].activation_bytes
    assert describe_activations(plans, study) == f"{size_text(whole)} that stay in results/"
    passing = replace(study, keep_activations=False)
    model = study.models["run"]
    held = 4 * TOKENS * model.width * (model.blocks + 2)
    assert describe_activations(plans, passing) == (
        f"none stay; while it measures, a job holds up to {size_text(held)} in memory"
    )
    large = replace(passing, sampling=replace(study.sampling, rows_per_draw=10**7))
    of_a_cell = activation_bytes(model, large.sampling.most_tokens)
    assert describe_activations(plan_of(large), large) == (
        f"none stay; while it measures, a job holds up to {size_text(of_a_cell)} in scratch"
    )
    assert disk_peak(plans, passing) == disk_peak(plans, study)
    assert describe_activations([], passing).endswith("up to 0 B")


def test_an_unknown_size_makes_the_whole_unknown_wherever_it_stands(root: Path) -> None:
    for models in (("unsized", "run"), ("run", "unsized")):
        study = study_of(root, *models)
        plans = plan_of(study)
        assert math.isnan(disk_peak(plans, study)[0])
        lines = describe_plan(plans, study, {}).splitlines()
        assert lines[4] == "download   2.50 GB and that of unsized, whose size is unknown"
        assert lines[5].startswith("disk peak  unknown of weights (at most, without")
        assert lines[5].count("with it, unknown would do") == 1


def test_the_plan_as_people_read_it(root: Path) -> None:
    study = study_of(root, "run", "here", keep_activations=False, disk_budget_gb=2)
    assert describe_plan(plan_of(study), study, {"extract": 14, "all": 1}).splitlines() == [
        "model                    checkpoints  cells   download  activations         tokens  forward FLOPs",
        "run                                5     10    2.50 GB       171 MB         25,600          4e+11",
        "here                               2      4        0 B      11.1 MB         10,240        3.7e+09",
        "",
        "download   2.50 GB",
        "disk peak  2.00 GB of weights (`disk_budget_gb`; it must be at least 0.5 GB)",
        "activations none stay; while it measures, a job holds up to 10.5 MB in memory",
        "forward    4e+11 FLOPs: 1 s on a GPU that reaches 100 TFLOP/s",
        "jobs       15 still to run: 14 extract, 1 all",
    ]
    assert describe_plan([], study, {}).splitlines()[-1] == "jobs       0 still to run: none"


def test_a_text_that_does_not_suit_a_tokenizer_is_told(root: Path) -> None:
    letters = Tokenizer(BPE({letter: place for place, letter in enumerate("abc ")}, []))
    letters.save(str(root / "here" / "checkpoint-0" / "tokenizer.json"))
    texts = {"plain": "abc " * 2000, "foreign": ("abc " * 9 + "é1 ") * 2000}
    for name, text in texts.items():
        (root / f"{name}.txt").write_text(text)
    data = {
        "texts": {name: {"path": f"{name}.txt", "license": "none"} for name in texts},
        "datasets": {name: {"text": name} for name in texts} | {"random": {"order": "random"}},
    }
    (root / "data.yaml").write_text(json.dumps(data))
    study = study_of(root, "here", datasets=["plain", "foreign", "random"])
    said = "text       `foreign` does not suit the tokenizer of `here`: 7.5% of its bytes have no token"
    assert describe_spelling(study, root) == said
