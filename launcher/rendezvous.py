"""Where the processes of a job meet: rank 0 chooses an address and a port, MPI carries them to the others."""

import os
import socket
from collections.abc import Mapping

from launcher.job_env import find_master, find_rank
from robustbert.job import Job


class RendezvousError(ValueError):
    """The processes cannot meet because of how the machine is set up; the message names the way out."""


def find_job(environ: Mapping[str, str] = os.environ) -> Job:
    """This process' place in its job.

    MPI is set up and shut down again in here: training talks over NCCL or gloo, and a process that has left MPI
    cannot hang in its shutdown. mpirun still notices when such a process fails or is killed.
    """
    env = find_rank(environ)
    if env.world_size == 1:
        return Job()
    master = find_master(environ)
    if env.starter == "torchrun" or (env.starter == "env" and master):
        address, port = master
        return Job(env.rank, env.world_size, env.local_rank or 0, address, port)
    return _meet_through_mpi(env.world_size)


def _meet_through_mpi(world_size: int) -> Job:
    import mpi4py

    mpi4py.rc.initialize = False
    mpi4py.rc.finalize = False
    from mpi4py import MPI

    MPI.Init_thread(MPI.THREAD_SINGLE)
    world = MPI.COMM_WORLD
    if world.size != world_size:
        library = " ".join(MPI.Get_library_version().split())[:60]
        MPI.Finalize()
        raise RendezvousError(
            f"mpirun started {world_size} processes, the MPI library of mpi4py sees {world.size}: they are of two "
            f"installations ({library}); put the mpirun of that one first in PATH"
        )
    node = world.Split_type(MPI.COMM_TYPE_SHARED)
    local_rank, one_host = node.rank, node.size == world.size
    node.Free()
    meeting_point = (_own_address(one_host), _free_port()) if world.rank == 0 else None
    address, port = world.bcast(meeting_point, root=0)
    rank = world.rank
    MPI.Finalize()
    return Job(rank, world_size, local_rank, address, port)


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
