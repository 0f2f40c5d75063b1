"""Weights in two formats, of which one is another step's: the sound one is found in the listing, and is what comes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from downloads import Bring, assert_right
from hub_models import at_step, decoder, publish_both
from loopback_hub import LoopbackHub
from runs import ENTRY, STEPS, locked, verdicts

from lmshape.hub.lock import LockedCheckpoint
from lmshape.models.network import load_model

pytestmark = pytest.mark.usefixtures("quick")

FINAL = STEPS[-1]


def formats(checkpoints: tuple[LockedCheckpoint, ...]) -> dict[int, str]:
    return {one.step: one.weights[0].format for one in checkpoints}


@pytest.fixture
def as_pythia(hub: LoopbackHub) -> None:
    """Early branches serve the safetensors of main, as those of pythia-2.8b, and the .bin of their step."""
    publish_both(hub, "tiny/run", {step: (step if step > 4 else FINAL, step) for step in STEPS})


def test_the_bin_is_taken_where_the_safetensors_are_those_of_main(
    hub: LoopbackHub, as_pythia: None, tmp_path: Path, bring: Bring
) -> None:
    lock = locked(tmp_path)
    assert formats(lock.checkpoints) == {step: "bin" if step in (2, 4) else "safetensors" for step in STEPS}
    assert verdicts(lock) == {step: "same_as_main" if step < 2 else "ok" for step in STEPS}  # 0 equals 1
    assert "not taken: safetensors (same_as_main" in lock.named("step4").note
    hub.clear_log()
    folder = bring(lock.named("step4"))
    assert_right(folder, lock.named("step4"))
    assert not hub.asked(r"\.safetensors")
    network = load_model(folder, kind="decoder", dtype="float32", device=torch.device("cpu"))
    expected = at_step(decoder(), 4).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in network.model.state_dict().items())


def test_no_request_is_made_for_it(hub: LoopbackHub, as_pythia: None, tmp_path: Path) -> None:
    locked(tmp_path)
    assert len(hub.asked("/tree/")) == len(STEPS) + 1
    assert not hub.asked(r"resolve/.*\.(bin|safetensors)")


@pytest.mark.parametrize("chosen", ["bin", "safetensors"])
def test_an_entry_may_name_its_format(as_pythia: None, tmp_path: Path, chosen: str) -> None:
    lock = locked(tmp_path, {**ENTRY, "weights": chosen})
    assert set(formats(lock.checkpoints).values()) == {chosen}
    wrong = {"bin": {}, "safetensors": dict.fromkeys((2, 4), "same_as_main")}[chosen]
    assert {step: verdicts(lock)[step] for step in STEPS[2:]} == {**dict.fromkeys(STEPS[2:], "ok"), **wrong}


def test_a_later_lock_takes_the_sound_format_and_counts_the_weights_as_others(
    hub: LoopbackHub, as_pythia: None, tmp_path: Path
) -> None:
    lock = locked(tmp_path)
    publish_both(hub, "tiny/run", {8: (FINAL, 8)}, main=False)
    after = locked(tmp_path, update=True)
    assert (formats(lock.checkpoints)[8], formats(after.checkpoints)[8]) == ("safetensors", "bin")
    assert {one.step: one.revised for one in after.checkpoints if one.revised} == {8: 1}
