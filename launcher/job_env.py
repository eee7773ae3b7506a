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


class JobEnvError(ValueError):
    """The variables of a starter contradict each other or are no numbers; the message names them and the way out."""


@dataclass(frozen=True)
class RankEnv:
    """What the environment announces; local_rank is None if the starter does not say.

    world_size is None if the starter numbers its processes without saying how many there are (PMIx).
    """

    rank: int = 0
    world_size: int | None = 1
    local_rank: int | None = None
    starter: str | None = None  # whose variables were found; None: the process was started alone
    names: tuple[str, ...] = ()  # of the variables that rank and size come from

    @property
    def is_job(self) -> bool:
        """Whether other processes are announced."""
        return self.world_size != 1

    def described(self, environ: Mapping[str, str]) -> str:
        """The variables as they are set, for a message."""
        return ", ".join(f"{name}={environ[name]}" for name in self.names)


# (starter, rank, world size, local rank), the innermost starter first: inside an sbatch script mpirun's variables stand beside
# Slurm's, which are those of the batch script. Of several names the first present counts.
_STARTERS = (
    ("torchrun", ("RANK",), ("WORLD_SIZE",), ("LOCAL_RANK",)),
    ("openmpi", ("OMPI_COMM_WORLD_RANK",), ("OMPI_COMM_WORLD_SIZE",), ("OMPI_COMM_WORLD_LOCAL_RANK",)),
    ("pmi", ("PMI_RANK",), ("PMI_SIZE",), ("MPI_LOCALRANKID", "PMI_LOCAL_RANK")),
    ("slurm", ("SLURM_PROCID",), ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"), ("SLURM_LOCALID",)),
    ("env", ("RANK",), ("WORLD_SIZE",), ("LOCAL_RANK",)),
    ("batch", ("SLURM_PROCID",), ("SLURM_NTASKS",), ("SLURM_LOCALID",)),
    ("pmix", ("PMIX_RANK",), (), ()),
)
_RANK_NAMES = {name for _, *groups in _STARTERS for group in groups for name in group} | {"SLURM_NPROCS"}
# What else has to be there for a starter to count. Slurm sets SLURM_PROCID=0 and the job's SLURM_NTASKS in a batch script too, of which
# there is one process; only srun's tasks, and an interactive shell that salloc starts by srun, have a step (seen with Slurm 22.05).
_NEEDED = {"torchrun": ("TORCHELASTIC_RUN_ID",), "slurm": ("SLURM_STEP_ID",), "pmix": ("PMIX_NAMESPACE",)}

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
    """This process' rank as torchrun, Open MPI, MPICH (PMI), Slurm, plain RANK/WORLD_SIZE or PMIx announce it.

    A starter counts only with both its rank and its size (PMIx has no size). Without any: one process, rank 0. Whether the announced
    processes are there, launcher/rendezvous.py finds out. JobEnvError: no numbers, or srun and RANK/WORLD_SIZE contradict each other.
    """
    found = {}
    for starter, *names in _STARTERS:
        if all(environ.get(name) for name in _NEEDED.get(starter, ())) and (place := _read_place(environ, starter, *names)):
            found[starter] = place
    for starter in ("torchrun", "openmpi", "pmi"):
        if starter in found:
            return found[starter]
    step, plain = found.get("slurm"), found.get("env")
    if step:
        found.pop("batch", None)
        plain = plain if find_master(environ) else None
    if step and step.is_job and plain and plain.is_job and (step.rank, step.world_size) != (plain.rank, plain.world_size):
        raise JobEnvError(
            f"srun announces task {step.rank} of {step.world_size}, and {plain.described(environ)}: set both alike, or "
            "unset RANK WORLD_SIZE"
        )
    for place in (plain, step, found.get("batch"), found.get("pmix")):
        if place and place.is_job:
            return place
    return step or plain or found.get("batch") or RankEnv()


def _read_place(environ: Mapping[str, str], starter: str, ranks: tuple, sizes: tuple, local_ranks: tuple) -> RankEnv | None:
    names = [next((name for name in group if environ.get(name)), None) for group in (ranks, sizes, local_ranks)]
    if names[0] is None or (sizes and names[1] is None):
        return None
    rank, size, local_rank = (None if name is None else _number(environ, name) for name in names)
    if size is not None and rank >= size:
        raise JobEnvError(f"{names[0]}={rank} is no rank of {names[1]}={size} processes; unset {names[0]} {names[1]} to run one process")
    return RankEnv(rank, size, local_rank, starter, tuple(name for name in names[:2] if name))


def _number(environ: Mapping[str, str], name: str) -> int:
    text = environ[name].strip()
    if not text.isdecimal():
        raise JobEnvError(f"{name}={environ[name]} is no whole number; unset {name} if this is no job")
    return int(text)


def find_host(environ: Mapping[str, str]) -> str:
    """This node's name as the scheduler uses it, otherwise as the machine calls itself."""
    return environ.get("SLURMD_NODENAME") or socket.gethostname()


def find_master(environ: Mapping[str, str]) -> tuple[str, int] | None:
    """The meeting point (address, port) if the starter has already chosen one, as torchrun does."""
    if environ.get("MASTER_ADDR") and environ.get("MASTER_PORT"):
        port = _number(environ, "MASTER_PORT")
        if not 0 < port < 1 << 16:
            raise JobEnvError(f"MASTER_PORT={port} is no port; it lies from 1 to 65535")
        return environ["MASTER_ADDR"], port
    return None


def has_agent_store(environ: Mapping[str, str]) -> bool:
    """Whether torchrun's agent keeps a key-value store at the meeting point: it does so before it starts a process (torch 2.9 to 2.13)."""
    return environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def find_pmi_descriptor(environ: Mapping[str, str]) -> int | None:
    """The open file over which MPICH's process manager talks to this process; None if it uses none."""
    return _number(environ, "PMI_FD") if environ.get("PMI_FD") else None


def find_pmix_servers(environ: Mapping[str, str]) -> list[tuple[str, int]] | None:
    """Where the daemon of PMIx listens that started this process, for instance `prterun-n1-7@0.1;tcp4://10.0.0.5:40729`.

    None if no daemon of PMIx is named, or in another form than PMIx 3 to 5 write.
    """
    if not environ.get("PMIX_NAMESPACE"):
        return None
    uris = [value for name, value in environ.items() if name.startswith("PMIX_SERVER_URI")]
    found = [re.fullmatch(r"[^;]*;tcp[46]?://\[?([^\]]+?)\]?:(\d+)", uri.strip()) for uri in uris]
    return None if None in found else sorted({(match[1], int(match[2])) for match in found})


def find_restart(environ: Mapping[str, str]) -> int:
    """How often torchrun has restarted its processes; its store keeps what the former ones wrote."""
    return _first(environ, ("TORCHELASTIC_RESTART_COUNT",)) or 0


def without_ranks(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for a process that is no part of the job around this one, and stays in its Slurm allocation."""
    return {
        name: value
        for name, value in environ.items()
        if name not in _RANK_NAMES and (name.startswith("SLURM_") or not _is_of_a_job(name))
    }


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
        if (in_allocation and name.startswith("SLURM_")) or not _is_of_a_job(name)
    }
    kept.setdefault("OMP_NUM_THREADS", str(max(1, num_cores // num_processes)))
    kept["PYTHONPATH"] = python_path
    kept[ATTEMPT_VARIABLE] = str(attempt)
    for variables, older_names in _DEFAULTS:
        if not any(name in kept for name in (*variables, *older_names)):
            kept |= variables
    return kept


def _is_of_a_job(name: str) -> bool:
    return name.startswith(_FOREIGN_JOB_PREFIXES) or name in _FOREIGN_JOB_NAMES


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


def find_array(environ: Mapping[str, str]) -> tuple[int, int, int, int, int] | None:
    """This task's number in its Slurm job array, and the array's first and last number, step and count; None outside of one."""
    names = [f"SLURM_ARRAY_TASK_{name}" for name in ("ID", "MIN", "MAX", "STEP", "COUNT")]
    if not environ.get(names[0]):
        return None
    if missing := [name for name in names if not environ.get(name)]:
        raise JobEnvError(f"{names[0]}={environ[names[0]]} stands without {missing[0]}; unset {names[0]} outside of a job array")
    return tuple(_number(environ, name) for name in names)


def has_terminal(environ: Mapping[str, str]) -> bool:
    """Whether srun --pty started this: a shell that carries the rank of its task, whatever it runs."""
    return bool(environ.get("SLURM_PTY_PORT"))


def num_own_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _first(environ: Mapping[str, str], names: tuple[str, ...]) -> int | None:
    return next((int(environ[name]) for name in names if name in environ), None)
