"""Pin what is installed: write envs/lock.txt and, with the same pins, the conda environment."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

FOLDER = Path(__file__).parent
LOCK_HEADER = """\
# Every dependency, pinned: `python envs/lock.py` writes this file from the environment that passed the tests.
# No hashes: PyTorch's builds (CPU, CUDA) share a version and differ in bytes.
"""
CONDA_HEADER = """\
# `snakemake --sdm conda`: the versions of lock.txt, written by `python envs/lock.py`.
channels:
  - conda-forge
  - nodefaults
dependencies:
  - python=3.11
  - pip
  - pip:
"""
NOT_OURS = {"lmshape", "pip"}  # the project itself, and the installer


def pins() -> list[str]:
    """Name and version of every installed distribution, without the local part of a version."""
    installed = {
        d.metadata["Name"].lower().replace("_", "-"): d.version.partition("+")[0]
        for d in importlib.metadata.distributions()
    }
    return [f"{name}=={version}" for name, version in sorted(installed.items()) if name not in NOT_OURS]


def main() -> None:
    """Write both files."""
    lines = pins()
    (FOLDER / "lock.txt").write_text(LOCK_HEADER + "".join(f"{line}\n" for line in lines))
    (FOLDER / "lmshape.yaml").write_text(CONDA_HEADER + "".join(f"      - {line}\n" for line in lines))


if __name__ == "__main__":
    main()
