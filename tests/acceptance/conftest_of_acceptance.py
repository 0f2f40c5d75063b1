"""The study first-look on real trained weights, downloaded from a loopback hub: one decoder and one encoder."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
sys.path += [str(REPOSITORY), str(REPOSITORY / "tests/hub")]

from benchmarks import PEERS  # noqa: E402
from benchmarks.assets import DECODER, ENCODER, checkpoint, verified  # noqa: E402
from hub_process import HubProcess  # noqa: E402
from warm_python import run_python  # noqa: E402

from lmshape.errors import InputError  # noqa: E402

TOKEN = "hf_thisTokenMustNeverAppearAnywhere"
FIRST_LOOK = REPOSITORY / "config/studies/first-look.yaml"
ROWS_PER_DRAW = 512
CHANGES = {  # to the study as it is published: less text, and activations that the tests read
    "figures": ["anisotropy_by_layer", "sinks"],
    "sampling": {"window": 256, "draws": 2, "rows_per_draw": ROWS_PER_DRAW, "seed": 0},
    "keep_activations": True,
}


@dataclass(frozen=True)
class Finished:
    """A study that has run, what Snakemake said, and what the hub was asked."""

    folder: Path
    output: str
    downloaded: dict[str, int]


@pytest.fixture(scope="session")
def real_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """A hub with both models, the decoder behind a gate; skipped where the package index did not give them."""
    try:
        decoder, encoder = checkpoint(DECODER), verified(PEERS / ENCODER.weights, ENCODER).parent
    except InputError as error:
        pytest.skip(f"no real weights here: {error}")
    hub = HubProcess(tmp_path_factory.mktemp("hub"))
    hub.commit("HuggingFaceTB/SmolLM2-135M", decoder)
    hub.commit("sentence-transformers/all-MiniLM-L6-v2", encoder)
    hub.gate("HuggingFaceTB/SmolLM2-135M", TOKEN)
    yield hub
    hub.stop()


@pytest.fixture(scope="session")
def finished(real_hub: HubProcess, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Run the study once, to its page."""
    folder = tmp_path_factory.mktemp("acceptance")
    config = yaml.safe_load(FIRST_LOOK.read_text()) | CHANGES
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    command = ["-m", "snakemake", "--snakefile", REPOSITORY / "Snakefile", "--cores", "2"]
    command += ["--directory", folder, "--configfile", folder / "config.yaml"]
    home = {"HF_ENDPOINT": real_hub.endpoint, "HF_HOME": str(folder / "home"), "HF_TOKEN": TOKEN}
    run = run_python(*map(str, command), cwd=folder, env={**os.environ, **home})
    assert run.returncode == 0, run.stdout
    return Finished(folder, run.stdout, dict(real_hub.bytes_served))
