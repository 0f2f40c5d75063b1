"""One cluster for all tests of this folder, and one study that ran without it, to compare with."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from .cluster import CannotStart, Cluster
from .study import TABLES, SlurmStudy, copy_pretrained, make_study, start_here, write_profile

sys.path.append(str(Path(__file__).parents[1] / "hub"))  # the loopback hub


@pytest.fixture(scope="session")
def starting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Future[Cluster]]:
    """The cluster as it comes up, which leaves time for other things, until the end of the session."""
    if os.geteuid() != 0:
        pytest.skip("SLURM tests skipped: the daemons of a cluster need root")
    if not (shutil.which("slurmctld") or shutil.which("apt-get")):
        pytest.skip("SLURM tests skipped: neither SLURM nor apt-get, which could install it, is here")
    cluster = Cluster(tmp_path_factory.mktemp("slurm") / "cluster")
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(cluster.start)
    cluster.stop()


@pytest.fixture(scope="session")
def running_cluster(starting: Future[Cluster]) -> Cluster:
    """The cluster, once it runs."""
    try:
        return starting.result()
    except CannotStart as error:
        pytest.skip(f"SLURM tests skipped: {error}")


@pytest.fixture
def cluster(running_cluster: Cluster) -> Iterator[Cluster]:
    """The cluster, whole and without jobs before the test and after it."""
    yield running_cluster
    running_cluster.clear()


@pytest.fixture(scope="session")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_profile(tmp_path_factory.mktemp("profile") / "slurm")


@pytest.fixture(scope="session")
def local(starting: Future[Cluster], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study's folder after a run without the cluster; tests must leave it as it is."""
    path = tmp_path_factory.mktemp("local") / "study"
    make_study(path)
    start_here(path, TABLES).succeed()
    return path


@pytest.fixture
def pretrained(cluster: Cluster, profile: Path, local: Path, tmp_path: Path) -> SlurmStudy:
    """The study with its models and tokens; all that a cluster has to do is still to be done."""
    copy_pretrained(local, tmp_path / "study")
    return SlurmStudy(tmp_path / "study", cluster, profile)
