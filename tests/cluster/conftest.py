"""One Slurm cluster and one folder of prepared data for all tests that need them."""

import os
import subprocess
import sys

import pytest

from tests.cluster.slurm import SlurmCluster, why_not_here
from tests.faults.lab import ROOT, FaultLab


@pytest.fixture(scope="session")
def started_cluster(tmp_path_factory):
    if reason := why_not_here():
        pytest.skip(reason)
    cluster = SlurmCluster(tmp_path_factory.mktemp("slurm"), 3)
    yield cluster
    cluster.close()


@pytest.fixture
def cluster(started_cluster, monkeypatch):
    """Three nodes, and Slurm's commands talk to them."""
    for name, value in started_cluster.environ.items():
        monkeypatch.setenv(name, value)
    return started_cluster


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    lab = FaultLab(tmp_path_factory.mktemp("lab"))
    yield lab
    lab.close()


def launcher(lab, *words, **environment):
    """Run the launcher in the laboratory's folder, its workers those that break on demand."""
    environ = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment
    command = [sys.executable, "-m", "tests.faults.launch", *words]
    return subprocess.run(command, cwd=lab.folder, env=environ, capture_output=True, text=True, timeout=120)
