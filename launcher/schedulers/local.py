"""Runs a job on this machine: mpirun (of Open MPI or MPICH) starts its processes."""

from pathlib import Path

from launcher.schedulers.mpich import hydra_command, is_hydra
from launcher.schedulers.open_mpi import find_starter, mpirun_command
from robustbert.config import ClusterConfig, ConfigError

__all__ = ["build_command", "check", "find_starter", "node_names"]


def check(cluster: ClusterConfig) -> None:
    """ConfigError where the job does not fit on one machine."""
    if cluster.nodes != 1:
        raise ConfigError(
            f"cluster.nodes ({cluster.nodes}): the scheduler `local` runs on this machine only; "
            f"use cluster.nodes=1 cluster.processes_per_node={cluster.num_processes}"
        )


def node_names(cluster: ClusterConfig) -> list[str]:
    """This machine."""
    return ["localhost"]


def build_command(
    cluster: ClusterConfig, run_path: Path, python: str, starter: str, worker: str, nodes: list[str]
) -> list[str]:
    """The command that starts every process of the job; pure, its arguments need no shell."""
    program = [python, "-m", worker, str(run_path)]
    if is_hydra(starter):
        return hydra_command(starter, nodes, cluster.num_processes, program, ("-launcher", "fork"))
    # Its search for fabrics takes a second; on one machine none is needed.
    return mpirun_command(
        starter, nodes, cluster.num_processes, program, ("--mca", "btl", "^ofi")
    )
