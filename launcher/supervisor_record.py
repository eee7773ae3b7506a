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


@contextlib.contextmanager
def hold_lock(run: Supervised, refusal: str | None = None) -> Iterator[None]:
    """Be the only one that changes or supervises the run; RunIsSupervised (with the words `refusal`) at once where another one is.

    The lock ends with the process that holds it.
    """
    descriptor = os.open(run.path / "supervisor.lock", os.O_RDWR | os.O_CREAT, 0o666)  # not inherited by children
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            words = refusal or f"run {run.path.name!r} is already running; watch it: launcher logs {run.path} --follow"
            raise RunIsSupervised(words) from None
        yield
    finally:
        os.close(descriptor)


def _record_file(run: Supervised) -> Path:
    return run.path / "supervisor.json"
