"""What the SLURM profile says is looked over before anything is submitted."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from lmshape.errors import InputError
from lmshape.jobs.machine import check_profile

SETTINGS = {"slurm_account": "lab", "slurm_partition": "cpu", "gpu_partition": "gpu"}


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands of SLURM that answer as SLURM does, before all others on the path."""
    for name, words in {"sinfo": "cpu\ngpu\ncpu\n", "sacctmgr": "lab\ndefault\nlab\n"}.items():
        command = tmp_path / name
        command.write_text(f"#!/bin/sh\nprintf '{words}'\n")
        command.chmod(command.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gpu_partition": "none"},
        {"slurm_account": "LAB"},
        {"slurm_partition": "cpu, gpu"},
        {"gpu_partition": None},
        {"slurm_account": "lab, default"},
        {"slurm_partition": "'cpu'"},
    ],
)
def test_what_there_is_passes(slurm: Path, changes: dict) -> None:
    check_profile({**SETTINGS, **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"slurm_account": "labb"},
            ["`slurm_account` is labb", "Nearest: lab", "profiles/slurm/config.yaml"],
        ),
        ({"slurm_partition": "cpus"}, ["`slurm_partition` is cpus", "Nearest: cpu", "sinfo"]),
        ({"gpu_partition": "a100"}, ["`gpu_partition` is a100", "Valid: cpu, gpu"]),
        ({"slurm_partition": "cpu,long"}, ["`slurm_partition` is long"]),
        ({"slurm_partition": "all"}, ["which Snakemake reads as Python", "slurm_partition: \"'all'\""]),
        ({"slurm_account": "CHANGE_ME"}, ["`slurm_account` is CHANGE_ME", "sacctmgr --noheader"]),
    ],
)
def test_what_there_is_not_is_refused(slurm: Path, changes: dict, words: list[str]) -> None:
    with pytest.raises(InputError) as error:
        check_profile({**SETTINGS, **changes})
    for word in words:
        assert word in str(error.value)


def test_without_slurm_nothing_is_said_but_what_is_not_filled_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    check_profile(SETTINGS)
    with pytest.raises(InputError, match="CHANGE_ME"):
        check_profile({**SETTINGS, "gpu_partition": "CHANGE_ME"})


def test_a_slurm_that_answers_nothing_is_no_reason_to_refuse(slurm: Path) -> None:
    (slurm / "sacctmgr").write_text("#!/bin/sh\nexit 1\n")
    (slurm / "sinfo").write_text("#!/bin/sh\nexit 0\n")
    check_profile({**SETTINGS, "slurm_account": "anything", "slurm_partition": "whatever"})
