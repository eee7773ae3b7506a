"""The one place of the launcher that reads the variables by which a process learns its rank."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class RankEnv:
    """What the environment tells; local_rank is None where the starter does not say."""

    rank: int = 0
    world_size: int = 1
    local_rank: int | None = None
    starter: str | None = None  # whose variables were found; None: the process was started alone


# (starter, rank, world size, local rank), the innermost starter first: inside an sbatch script mpirun's variables
# stand beside Slurm's, which are those of the batch script. Where several names are given the first present counts.
_STARTERS = (
    ("torchrun", ("RANK",), ("WORLD_SIZE",), ("LOCAL_RANK",)),
    ("openmpi", ("OMPI_COMM_WORLD_RANK",), ("OMPI_COMM_WORLD_SIZE",), ("OMPI_COMM_WORLD_LOCAL_RANK",)),
    ("pmi", ("PMI_RANK",), ("PMI_SIZE",), ("MPI_LOCALRANKID", "PMI_LOCAL_RANK")),
    ("slurm", ("SLURM_PROCID",), ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"), ("SLURM_LOCALID",)),
    ("env", ("RANK",), ("WORLD_SIZE",), ("LOCAL_RANK",)),
)

# Variables of a job around this one. A local run that inherits them would be taken for a part of that job.
_FOREIGN_JOB_PREFIXES = (
    "SLURM_",
    "PBS_",
    "LSB_",
    "PMI_",
    "OMPI_COMM_",
    "OMPI_UNIVERSE_",
    "OMPI_WORLD_",
    "TORCHELASTIC_",
)
_FOREIGN_JOB_PREFIXES += ("PMIX_NAMESPACE", "PMIX_RANK", "PMIX_SERVER_", "PMIX_SECURITY_", "PMIX_GDS_", "PRTE_LAUNCHED")
_FOREIGN_JOB_NAMES = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "MPI_LOCALRANKID",
)


def find_rank(environ: Mapping[str, str]) -> RankEnv:
    """This process' rank as torchrun, Open MPI, MPICH (PMI), Slurm or plain RANK/WORLD_SIZE tell it.

    A starter counts only with both its rank and its size. Without any: one process, rank 0.
    """
    for starter, ranks, sizes, local_ranks in _STARTERS:
        if starter == "torchrun" and "TORCHELASTIC_RUN_ID" not in environ:
            continue
        rank, size = _first(environ, ranks), _first(environ, sizes)
        if rank is not None and size is not None:
            return RankEnv(rank, size, _first(environ, local_ranks), starter)
    return RankEnv()


def find_host(environ: Mapping[str, str]) -> str:
    """This node's name as the scheduler uses it, otherwise as the machine calls itself."""
    return environ.get("SLURMD_NODENAME") or socket.gethostname()


def find_master(environ: Mapping[str, str]) -> tuple[str, int] | None:
    """The meeting point (address, port) where the starter has already chosen one, as torchrun does."""
    if "MASTER_ADDR" in environ and "MASTER_PORT" in environ:
        return environ["MASTER_ADDR"], int(environ["MASTER_PORT"])
    return None


def rank_environment(
    environ: Mapping[str, str], num_processes: int, num_cores: int, python_path: str, in_allocation: bool = False
) -> dict[str, str]:
    """The environment for the processes of a job, `num_processes` of them on this machine.

    Drops what a surrounding job left (in_allocation: but Slurm's own, which mpirun starts its daemons by), gives each process its share of the cores unless the user has set
    OMP_NUM_THREADS, and lets the processes import what this one imports (python_path: folders, os.pathsep between).
    """
    kept = {
        name: value
        for name, value in environ.items()
        if (in_allocation and name.startswith("SLURM_"))
        or not (name.startswith(_FOREIGN_JOB_PREFIXES) or name in _FOREIGN_JOB_NAMES)
    }
    kept.setdefault("OMP_NUM_THREADS", str(max(1, num_cores // num_processes)))
    kept["PYTHONPATH"] = python_path
    return kept


def find_array_task(environ: Mapping[str, str]) -> int | None:
    """This task's number in its Slurm job array; None outside of one."""
    return _first(environ, ("SLURM_ARRAY_TASK_ID",))


def num_own_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _first(environ: Mapping[str, str], names: tuple[str, ...]) -> int | None:
    return next((int(environ[name]) for name in names if name in environ), None)
