"""One model of the hub in one call: by its name, at a revision, in one format."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import hub_models
import pandas as pd
import pytest
from hub_api import SIGNED
from loopback_hub import LoopbackHub

import lmshape
from lmshape.errors import InputError

TEXT = "".join(hub_models.TEXT) * 60
FEW = {"metrics": ("anisotropy", "loss"), "device": "cpu", "window": 32}


@pytest.mark.parametrize("layout", ["both", "bin", "sharded"])
def test_a_name_is_measured_as_its_folder_is(layout: str, hub: LoopbackHub, tmp_path: Path) -> None:
    files = hub_models.model_files(hub_models.decoder(), layout)
    for name, content in files.items():
        path = tmp_path / "model" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    hub.commit("tiny/model", files)
    found = lmshape.profile("tiny/model", TEXT, **FEW)
    pd.testing.assert_frame_equal(found, lmshape.profile(tmp_path / "model", TEXT, **FEW), check_exact=True)
    assert bool(hub.downloads("pytorch_model.bin")) == (layout == "bin")


def test_a_revision_is_named_behind_an_at(hub: LoopbackHub) -> None:
    hub_models.publish(hub, "tiny/run")
    first, last = (lmshape.profile(f"tiny/run@step{step}", TEXT, **FEW) for step in (0, 8))
    assert (first["value"] != last["value"]).all()
    assert set(first["model"]) == {"run"} and set(first["checkpoint"]) == {"step0"}


@pytest.mark.usefixtures("quick")
def test_it_is_as_patient_as_a_study(hub: LoopbackHub, capfd: pytest.CaptureFixture[str]) -> None:
    hub.commit("tiny/model", hub_models.model_files(hub_models.decoder()))
    hub.set(redirect=True, xet=True, address_uses=1)
    hub.fault("/cdn/", "cut", after=20_000, times=1)
    hub.fault("/cdn/", "status", status=403, times=1, skip=1)
    assert len(lmshape.profile("tiny/model", TEXT, **FEW))
    assert not hub.asked("xet|reconstructions")
    hub.set(firewall=True)
    hub.commit("tiny/other", hub_models.model_files(hub_models.decoder(seed=1)))
    with pytest.raises(InputError, match="a firewall or a proxy seems to stand between") as error:
        lmshape.profile("tiny/other", TEXT, **FEW)
    assert SIGNED not in str(error.value) + "".join(capfd.readouterr())


def test_the_hub_library_of_the_user_stays_as_it_was(hub: LoopbackHub) -> None:
    """A notebook goes on with it: a client of its own, patience where a quota is used up, Xet."""
    hub.commit("tiny/model", hub_models.model_files(hub_models.decoder()))
    script = (
        "import httpx2, logging, huggingface_hub as hub, lmshape\n"
        "own = httpx2.Client(follow_redirects=True)\n"
        "hub.set_client_factory(lambda: own)\n"
        "settings = lambda: (own.event_hooks, own.timeout, logging.getLogger('huggingface_hub').level, "
        "hub.constants.HF_HUB_DISABLE_XET)\n"
        "before = settings()\n"
        f"lmshape.profile('tiny/model', {TEXT!r}, **{FEW!r})\n"
        "assert hub.get_session() is own and settings() == before\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("name", ["tiny/absent", "tiny/absent@step1", "not a name"])
def test_a_name_that_the_hub_does_not_know_is_refused(name: str, hub: LoopbackHub) -> None:
    with pytest.raises(InputError, match=f"`{name}` is not a folder here, and the hub did not give it"):
        lmshape.profile(name, TEXT, **FEW)
