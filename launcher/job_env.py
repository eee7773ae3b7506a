"""The environment: the one place of the launcher that reads it, and what a job's processes get to see of it."""

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from launcher.processes import JOB_MARK


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


ATTEMPT_VARIABLE = "ROBUSTBERT_ATTEMPT"  # the number of the job among those of its supervision, from 1 on
# What a job's processes get unless the user has set one of these, or an older name of the same: (variables, older names).
_DEFAULTS = (
    ({"PYTORCH_ALLOC_CONF": "expandable_segments:True"}, ("PYTORCH_CUDA_ALLOC_CONF",)),
    # Collectives that launcher/collectives.py can look back on. torch 2.9 keeps none by default, 2.11 and later do; the older name
    # works in all of them, with a warning in every process' log.
    ({"TORCH_FR_BUFFER_SIZE": "2000"}, ("TORCH_NCCL_TRACE_BUFFER_SIZE",)),
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
    environ: Mapping[str, str], num_processes: int, num_cores: int, python_path: str, in_allocation: bool = False, attempt: int = 1
) -> dict[str, str]:
    """The environment for the processes of a job, `num_processes` of them on this machine.

    Drops what a surrounding job left (in_allocation: but Slurm's own, which mpirun starts its daemons by), gives each process its share of the cores unless the user has set
    OMP_NUM_THREADS, lets the processes import what this one imports (python_path: folders, os.pathsep between), and sets _DEFAULTS.
    """
    kept = {
        name: value
        for name, value in environ.items()
        if (in_allocation and name.startswith("SLURM_"))
        or not (name.startswith(_FOREIGN_JOB_PREFIXES) or name in _FOREIGN_JOB_NAMES)
    }
    kept.setdefault("OMP_NUM_THREADS", str(max(1, num_cores // num_processes)))
    kept["PYTHONPATH"] = python_path
    kept[ATTEMPT_VARIABLE] = str(attempt)
    for variables, older_names in _DEFAULTS:
        if not any(name in kept for name in (*variables, *older_names)):
            kept |= variables
    return kept


def find_attempt(environ: Mapping[str, str]) -> int:
    """Which attempt of its supervision this process belongs to; 1 where nothing tells."""
    return _first(environ, (ATTEMPT_VARIABLE,)) or 1


def find_job_mark(environ: Mapping[str, str]) -> str | None:
    """The mark of the supervision that this process belongs to; None where it was started by hand."""
    return environ.get(JOB_MARK)


def shares_gpus(environ: Mapping[str, str]) -> bool:
    """Whether the user has told NCCL to let several processes use one GPU (NCCL 2.30 and later)."""
    return environ.get("NCCL_MULTI_RANK_GPU_ENABLE") == "1"


def count_gpus(environ: Mapping[str, str], devices: Path = Path("/dev"), list_gpus: Callable[[], str] | None = None) -> int:
    """The GPUs of this machine that torch would see, without importing it; 0 where it is torch's CPU build.

    CUDA_VISIBLE_DEVICES counts as CUDA reads it: up to the first number that is no GPU. list_gpus: the output of `nvidia-smi -L`, asked for
    where `devices` holds none (as under WSL).
    """
    if _torch_version().endswith("+cpu"):
        return 0
    present = sum(bool(re.fullmatch(r"nvidia\d+", path.name)) for path in devices.glob("nvidia[0-9]*"))
    if not present:
        present = len(re.findall(r"^GPU \d+:", (list_gpus or _nvidia_smi)(), re.MULTILINE))
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None or not present:
        return present
    names = [name.strip() for name in visible.split(",")]
    are_gpus = [int(name) < present if name.isdigit() else name.startswith(("GPU-", "MIG-")) for name in names]
    chosen = names[: [*are_gpus, False].index(False)]
    return len(chosen) if len(set(chosen)) == len(chosen) else 0  # CUDA takes none where one is named twice


def _torch_version() -> str:
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        return ""


def _nvidia_smi() -> str:
    program = shutil.which("nvidia-smi")
    try:
        return subprocess.run([program, "-L"], capture_output=True, text=True, timeout=20).stdout if program else ""
    except (OSError, subprocess.TimeoutExpired):
        return ""


def find_array_task(environ: Mapping[str, str]) -> int | None:
    """This task's number in its Slurm job array; None outside of one."""
    return _first(environ, ("SLURM_ARRAY_TASK_ID",))


def num_own_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _first(environ: Mapping[str, str], names: tuple[str, ...]) -> int | None:
    return next((int(environ[name]) for name in names if name in environ), None)
