"""The wheel in bare environments, with NumPy and SciPy alone: the oldest that it admits, and the newest there are."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
sys.path.append(str(REPOSITORY / "envs"))

from release import absolute, stage  # noqa: E402

PIP = ("-m", "pip", "--quiet", "--disable-pip-version-check")
OLDEST = [re.sub(">=", "==", one) for one in ("numpy>=1.26", "scipy>=1.13")]
GEOMETRY = [f"test_{name}.py" for name in ("angular", "checks", "neighbors", "nulls", "resample", "scalars")]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    stage(source, "https://example.org/lmshape")
    command = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", built, source]
    subprocess.run([sys.executable, *PIP, *map(str, command)], check=True)
    return next(built.glob("*.whl"))


# The newest are about those of the lock, with which all tests run: they are for who publishes.
ENDS = ["oldest", "newest"] if "LMSHAPE_RELEASE" in os.environ else ["oldest"]


@pytest.fixture(scope="module", params=ENDS)
def python(request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the wheel and what it says that it needs; skipped without an index."""
    folder = tmp_path_factory.mktemp(request.param)
    venv.create(folder, with_pip=True, symlinks=True)
    pins = OLDEST if request.param == "oldest" else []
    python = folder / "bin/python"
    run = subprocess.run(
        [python, *PIP, "install", wheel, "pytest", "hypothesis", *pins], capture_output=True, text=True
    )
    if run.returncode:
        pytest.skip(f"no package index here: {run.stderr.splitlines()[-1]}")
    return python


def test_the_geometry_passes_its_tests(python: Path, tmp_path: Path) -> None:
    for name in GEOMETRY:
        shutil.copy(REPOSITORY / "tests/unit" / name, tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = slow\n")
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", *GEOMETRY]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-3000:]


def test_the_command_says_what_it_lacks(python: Path, tmp_path: Path) -> None:
    command = [python.parent / "lmshape", "profile", "model", "text.txt"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "is not installed, and `lmshape profile` needs it: pip install 'lmshape[models]'" in run.stderr


def test_the_index_has_links_and_classifiers_to_show(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(
            next(name for name in archive.namelist() if name.endswith("METADATA"))
        ).decode()
    assert "Project-URL: Repository, https://example.org/lmshape" in metadata
    assert "Classifier: Intended Audience :: Science/Research" in metadata
    assert not re.search(r"\]\((?!https?:|#)", metadata)
    needed = re.findall(r"^Requires-Dist: ([\w-]+)[^;\n]*$", metadata, re.MULTILINE)
    assert sorted(needed) == ["numpy", "scipy"]


def test_links_of_a_readme_lead_to_the_repository() -> None:
    readme = "![A](docs/a.png) [B](docs/b.md#c) [D](#d) [E](https://example.org)"
    assert absolute(readme, "https://example.org/x", "v1") == (
        "![A](https://example.org/x/raw/v1/docs/a.png) [B](https://example.org/x/blob/v1/docs/b.md#c) "
        "[D](#d) [E](https://example.org)"
    )
