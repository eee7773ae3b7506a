"""MPICH: its process manager Hydra, and the command line by which it starts a job's processes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAME = "mpiexec.hydra"


def hydra_command(
    starter: str, nodes: list[str], per_node: int, worker: list[str], launch_options: tuple[str, ...] = ()
) -> list[str]:
    """mpiexec.hydra with `per_node` processes on each node; the environment goes along as a whole. Needs no shell."""
    hosts = ",".join(f"{node}:{per_node}" for node in nodes)
    return [starter, *launch_options, "-hosts", hosts, "-ppn", str(per_node), "-n", str(per_node * len(nodes)), *worker]


def find_hydra() -> str | None:
    """MPICH's mpiexec.hydra on PATH or beside this Python; None where there is none that runs."""
    candidates = (shutil.which(NAME), str(Path(sys.executable).parent / NAME))
    return next((path for path in candidates if path and os.access(path, os.X_OK) and _is_hydra(path)), None)


def is_hydra(starter: str) -> bool:
    """Whether a starter that was found is Hydra's."""
    return Path(starter).name == NAME


def _is_hydra(path: str) -> bool:
    try:
        return "HYDRA" in subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        return False
