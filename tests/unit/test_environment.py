"""pyproject.toml, the lock file, the conda environment and the containers say the same."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from itertools import chain
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
    extras = [
        project["optional-dependencies"][name] for name in ("fast", "models", "workflow", "skdim", "dev")
    ]
    every = [*project["dependencies"], *chain.from_iterable(extras)]
    return [one for one in every if not one.startswith("lmshape[")]


@pytest.mark.parametrize("dependency", declared())
def test_the_lock_satisfies_what_is_declared(dependency: str) -> None:
    requirement = Requirement(dependency)
    assert requirement.specifier.contains(locked()[requirement.name]), dependency


def test_the_conda_environment_has_the_versions_of_the_lock() -> None:
    environment = yaml.safe_load((REPOSITORY / "envs/lmshape.yaml").read_text())
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert dict(pin.split("==") for pin in pip) == locked()


def test_the_lock_is_what_these_tests_run_with() -> None:
    installed = {name: importlib.metadata.version(name).partition("+")[0] for name in locked()}
    assert installed == locked(), "install envs/lock.txt, or pin what is installed: make lock"


def python_of_conda() -> str:
    environment = yaml.safe_load((REPOSITORY / "envs/lmshape.yaml").read_text())
    (python,) = [entry for entry in environment["dependencies"] if str(entry).startswith("python=")]
    return python.partition("=")[2]


def test_python_is_the_one_that_is_required() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert Requirement(f"python{project['requires-python']}").specifier.contains(python_of_conda())


CONTAINERS = {name: (REPOSITORY / "envs" / name).read_text() for name in ("Dockerfile", "lmshape.def")}


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_container_has_the_python_of_the_conda_environment(container: str) -> None:
    (base,) = re.findall(r"^from:? +(\S+)$", CONTAINERS[container], re.MULTILINE | re.IGNORECASE)
    assert base == f"python:{python_of_conda()}-slim"


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_container_installs_the_lock_and_the_project_and_names_no_version_itself(container: str) -> None:
    text = CONTAINERS[container]
    lock, project = (line.split() for line in re.findall(r"^.*pip install.*$", text, re.MULTILINE))
    assert lock[-2:] == ["--requirement", "envs/lock.txt"]
    assert project[-2:] == ["--editable", "."]
    assert {"--no-deps", "--no-build-isolation"} <= set(project)
    assert not re.search(r"[=<>~]=", text)


def copied(text: str) -> set[str]:
    """Names in the repository that a recipe copies."""
    of_docker = [word for line in re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE) for word in line.split()]
    return {*of_docker, *re.findall(r"^ +(\S+) /opt/lmshape/", text, re.MULTILINE)} - {"envs/lock.txt"}


def test_the_containers_hold_the_same_files_and_these_are_enough() -> None:
    docker, apptainer = map(copied, CONTAINERS.values())
    assert docker == apptainer
    assert all((REPOSITORY / name).exists() for name in docker)
    assert {"Snakefile", "workflow", "config", "data", "profiles", "envs", "pyproject.toml"} <= docker
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert project["readme"] in docker


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_container_runs_snakemake_on_the_snakefile_that_it_holds(container: str) -> None:
    command = CONTAINERS[container].replace('", "', " ")
    assert "snakemake --snakefile /opt/lmshape/Snakefile" in command
