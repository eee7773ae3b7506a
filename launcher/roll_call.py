"""The roll call of a job that no program has started for us: rank 0 listens at MASTER_PORT until all announced ranks have come.

RANK and WORLD_SIZE may be left over from another job. Nothing but the other processes themselves can tell, so they are called before
torch is imported, and for a limited time.
"""

import contextlib
import socket
import time

_POLL_S = 0.2
_HELLO = "robustbert {rank} {world_size}\n"
_GO = b"go\n"


class NobodyCame(ValueError):
    """Not all processes came in time. present: how many were seen, this one among them."""

    def __init__(self, present: int, reason: str):
        super().__init__(reason)
        self.present = present


def call_roll(rank: int, world_size: int, address: str, port: int, timeout_s: float) -> None:
    """Return, on every rank, once all ranks of the job have come; NobodyCame after timeout_s, or if rank 0 cannot listen."""
    deadline = time.monotonic() + timeout_s
    if rank == 0:
        _receive_all(world_size, port, deadline)
    else:
        _report(rank, world_size, address, port, deadline)


def _receive_all(world_size: int, port: int, deadline: float) -> None:
    try:
        server = _listen(port)
    except OSError as error:
        raise NobodyCame(1, f"rank 0 cannot listen at MASTER_PORT={port} ({error.strerror}): another job's rank 0 may do so") from None
    with contextlib.ExitStack() as stack:
        stack.enter_context(server)
        server.settimeout(_POLL_S)
        present: dict[int, socket.socket] = {}
        while len(present) < world_size - 1:
            if time.monotonic() > deadline:
                raise NobodyCame(1 + len(present), f"no other came to MASTER_PORT={port}")
            with contextlib.suppress(TimeoutError):
                peer = stack.enter_context(server.accept()[0])
                if (rank := _read_hello(peer, world_size)) is not None:
                    present[rank] = peer
        for peer in present.values():
            peer.sendall(_GO)
            with contextlib.suppress(OSError):
                peer.recv(1)  # the others close first: no connection of ours keeps the port


def _listen(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def _read_hello(peer: socket.socket, world_size: int) -> int | None:
    """The rank of a process of this job; None for anybody else."""
    peer.settimeout(2)
    try:
        word, rank, size = peer.makefile("rb").readline(100).decode().split()
        is_ours = word == "robustbert" and int(size) == world_size and 0 < int(rank) < world_size
    except (OSError, ValueError):
        return None
    return int(rank) if is_ours else None


def _report(rank: int, world_size: int, address: str, port: int, deadline: float) -> None:
    reason = "it did not answer"
    while (left_s := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection((address, port), timeout=min(2.0, left_s)) as server:
                server.sendall(_HELLO.format(rank=rank, world_size=world_size).encode())
                server.settimeout(max(0.1, deadline - time.monotonic()))
                if server.recv(len(_GO)) == _GO:
                    return
        except OSError as error:
            reason = error.strerror or str(error)
        time.sleep(_POLL_S)
    raise NobodyCame(1, f"rank 0 at {address}:{port}: {reason}")
