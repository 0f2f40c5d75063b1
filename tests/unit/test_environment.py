"""pyproject.toml, the lock file and the conda environment say the same."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).parents[2]


def locked() -> dict[str, str]:
    lines = (REPOSITORY / "envs/lock.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def declared() -> list[str]:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    return [*project["dependencies"], *project["optional-dependencies"]["dev"]]


@pytest.mark.parametrize("dependency", declared())
def test_the_lock_satisfies_what_is_declared(dependency: str) -> None:
    requirement = Requirement(dependency)
    assert requirement.specifier.contains(locked()[requirement.name]), dependency


def test_the_conda_environment_has_the_versions_of_the_lock() -> None:
    environment = yaml.safe_load((REPOSITORY / "envs/lmshape.yaml").read_text())
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert dict(pin.split("==") for pin in pip) == locked()


def test_python_is_the_one_that_is_required() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    environment = yaml.safe_load((REPOSITORY / "envs/lmshape.yaml").read_text())
    (python,) = [entry for entry in environment["dependencies"] if str(entry).startswith("python=")]
    assert Requirement(f"python{project['requires-python']}").specifier.contains(python.partition("=")[2])
