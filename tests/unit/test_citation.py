"""CITATION.cff is valid and names what is true; changelog, version and the site's requirements agree."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import tomllib
from pathlib import Path

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement

from lmshape import __version__

REPOSITORY = Path(__file__).parents[2]
TOOLS = REPOSITORY / ".docs"
CITATION = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
CHANGELOG = (REPOSITORY / "CHANGELOG.md").read_text()


def pins(file: str) -> dict[str, str]:
    lines = (REPOSITORY / file).read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_the_citation_file_is_valid() -> None:
    schema = TOOLS / "cffconvert/schemas/1.2.0/schema.json"
    if not schema.is_file() and "CI" not in os.environ:
        pytest.skip("the schema is not installed: make docs")
    jsonschema.validate(CITATION, json.loads(schema.read_text()))


def test_the_citation_names_this_version_the_license_and_the_article() -> None:
    assert CITATION["version"] == __version__
    assert CITATION["license"] == PROJECT["license"]
    (article,) = CITATION["references"]
    assert [author["family-names"] for author in article["authors"]][0] == "Razzhigaev"
    assert article["identifiers"] == [{"type": "other", "value": "arXiv:2311.05928"}]
    assert "arXiv 2311.05928" in (REPOSITORY / "README.md").read_text()


def test_what_to_cite_is_what_the_citation_file_says() -> None:
    (bibtex,) = re.findall(r"```bibtex\n(.*?)```", (REPOSITORY / "docs/citing.md").read_text(), re.DOTALL)
    text = re.sub(r" +=", " =", " ".join(bibtex.split()))
    (article,) = CITATION["references"]
    names = " and ".join(f"{one['family-names']}, {one['given-names']}" for one in article["authors"])
    for said in (
        f"title = {{{article['title']}}}",
        f"author = {{{names}}}",
        f"booktitle = {{{article['collection-title']}}}",
        f"pages = {{{article['start']}--{article['end']}}}",
        f"year = {{{article['year']}}}",
        article["identifiers"][0]["value"],
        f"title = {{{CITATION['title']}}}",
        f"author = {{{{{CITATION['authors'][0]['name']}}}}}",
        f"version = {{{CITATION['version']}}}",
    ):
        assert said in text, said


def test_the_license_is_the_one_that_is_named() -> None:
    assert PROJECT["license"] == "Apache-2.0"
    assert "Apache License\n                           Version 2.0" in (REPOSITORY / "LICENSE").read_text()


def test_the_changelog_has_this_version_and_known_headings() -> None:
    versions = re.findall(r"^## \[([^\]]+)\](?: - (\d{4}-\d\d-\d\d))?$", CHANGELOG, re.MULTILINE)
    assert versions[0] == ("Unreleased", "")
    assert __version__ in dict(versions)
    assert all(date for version, date in versions if version != "Unreleased")
    known = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.*)$", CHANGELOG, re.MULTILINE)) <= known


@pytest.mark.parametrize("dependency", PROJECT["optional-dependencies"]["docs"])
def test_the_site_is_built_with_what_is_declared(dependency: str) -> None:
    requirement = Requirement(dependency)
    assert requirement.specifier.contains(pins("docs/requirements.txt")[requirement.name]), dependency


def test_the_site_brings_nothing_that_the_lock_has_already() -> None:
    assert not pins("docs/requirements.txt").keys() & pins("envs/lock.txt").keys()


@pytest.mark.parametrize("name", pins("docs/requirements.txt"))
def test_what_is_pinned_for_the_site_is_installed(name: str) -> None:
    if not TOOLS.is_dir() and "CI" not in os.environ:
        pytest.skip("the site's generator is not installed: make docs")
    found = {
        one.metadata["Name"].lower().replace("_", "-"): one.version
        for one in importlib.metadata.distributions(path=[str(TOOLS)])
    }
    assert found[name] == pins("docs/requirements.txt")[name]
