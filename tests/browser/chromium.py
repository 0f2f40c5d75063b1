"""The system's Chromium, which the tests drive; where it is missing, apt-get brings it to those who may install."""

from __future__ import annotations

import os
import shutil
import subprocess

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
INSTALL = (
    "apt-get",
    "install",
    "--option",
    "DPkg::Lock::Timeout=300",  # the tests of SLURM install, too
    "--yes",  # with what it recommends: fonts
    "chromium",
)
# Neither a profile of someone nor a service of the browser's maker has a part in a test.
FLAGS = (
    "--no-sandbox",  # of root
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


class CannotStart(RuntimeError):
    """Why there is no Chromium here."""


def find_chromium() -> str:
    """Return the path of the system's Chromium, installing it if need be."""
    found = _find()
    if found:
        return found
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise CannotStart("there is no Chromium, and root with apt-get alone could install it")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (INSTALL, ("apt-get", "update"), INSTALL):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if command is INSTALL and done.returncode == 0:
            break
    found = _find()
    if not found:
        raise CannotStart(f"apt-get could not install Chromium: {done.stderr.strip()[-300:]}")
    return found


def _find() -> str | None:
    return next(filter(None, map(shutil.which, PROGRAMS)), None)
