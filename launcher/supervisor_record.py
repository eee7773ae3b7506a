"""Which process supervises a run, a sweep or its member: supervisor.json in its folder says who, a lock on supervisor.lock makes it the only one."""

import contextlib
import fcntl
import json
import os
import socket
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from launcher.processes import identity, kill_job

# A supervisor on another host is taken for alive while its record is younger than this.
HEARTBEAT_S = 10.0
SILENT_AFTER_S = 90.0


class RunIsSupervised(ValueError):
    """Another supervisor holds the run."""


class Supervised(Protocol):
    """Anything with a folder of its own: a RunDirectory, a Sweep, its Member."""

    @property
    def path(self) -> Path: ...


@dataclass(frozen=True)
class SupervisorRecord:
    """The supervisor, and the mark of all processes that it starts."""

    pid: int
    host: str
    identity: str | None
    job_mark: str

    @classmethod
    def of_this_process(cls) -> "SupervisorRecord":
        return cls(os.getpid(), socket.gethostname(), identity(os.getpid()), uuid.uuid4().hex)

    def write(self, run: Supervised) -> None:
        path = _record_file(run)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")
        draft.replace(path)

    @property
    def is_on_this_host(self) -> bool:
        return self.host == socket.gethostname()

    @property
    def runs_here(self) -> bool:
        """Whether this very process, not another one under its pid, runs on this host."""
        return self.is_on_this_host and self.identity is not None and identity(self.pid) == self.identity

    def kill_leftover_job(self) -> int:
        """End what is left of the job after its supervisor was killed; returns how many processes that were."""
        return kill_job(self.job_mark) if self.is_on_this_host else 0


def read_supervisor(run: Supervised) -> SupervisorRecord | None:
    """The last supervisor of the run, alive or not; None where there was none."""
    try:
        return SupervisorRecord(**json.loads(_record_file(run).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def is_supervised(run: Supervised) -> bool:
    """Whether a supervisor of the run is alive: here by its process, on another host by its heartbeat."""
    record = read_supervisor(run)
    if record is None:
        return False
    return record.runs_here if record.is_on_this_host else heartbeat_age_s(run) < SILENT_AFTER_S


def beat(run: Supervised) -> None:
    """Show other hosts that the supervisor lives, at most once in HEARTBEAT_S."""
    with contextlib.suppress(OSError):
        if heartbeat_age_s(run) > HEARTBEAT_S:
            os.utime(_record_file(run))


def heartbeat_age_s(run: Supervised) -> float:
    return time.time() - _record_file(run).stat().st_mtime


class RunLock:
    """The lock of a run, held until it is released, or until the last process that has it ends."""

    def __init__(self, descriptor: int):
        self.descriptor = descriptor

    def release(self) -> None:
        """A process that the descriptor was handed to keeps the lock."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


@contextlib.contextmanager
def hold_lock(run: Supervised, refusal: str | None = None, patience_s: float = 0.0, descriptor: int | None = None) -> Iterator[RunLock]:
    """Be the only one that changes or supervises the run; RunIsSupervised (with the words `refusal`) where another one is.

    patience_s: how long to wait for it. descriptor: of the lock that the process which started this one held and handed over.
    """
    if descriptor is None or not os.path.samestat(os.fstat(descriptor), os.stat(_lock_file(run))):
        descriptor = os.open(_lock_file(run), os.O_RDWR | os.O_CREAT, 0o666)
    os.set_inheritable(descriptor, False)
    lock = RunLock(descriptor)
    try:
        deadline = time.monotonic() + patience_s
        while not _has_taken(descriptor):
            if time.monotonic() >= deadline:
                words = refusal or f"run {run.path.name!r} is already running; watch it: launcher logs {run.path} --follow"
                raise RunIsSupervised(words)
            time.sleep(0.05)
        yield lock
    finally:
        lock.release()


def _has_taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a lock that was handed over is taken already: this succeeds
    except BlockingIOError:
        return False
    return True


def _lock_file(run: Supervised) -> Path:
    return run.path / "supervisor.lock"


def _record_file(run: Supervised) -> Path:
    return run.path / "supervisor.json"
