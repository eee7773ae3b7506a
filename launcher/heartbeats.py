"""The supervisor's ear: one connection from each process of the job, its last sign of life and how far it has got."""

import contextlib
import json
import resource
import selectors
import socket
import threading
import time
from dataclasses import dataclass, replace

from launcher.pulse import STACKS

_LONGEST_MESSAGE = 16 * 2**20  # bytes; a process' stacks are far below


@dataclass(frozen=True)
class RankPulse:
    """What is known of a process. Times are this process' time.monotonic()."""

    rank: int
    host: str  # as the scheduler calls it
    pid: int
    heard_at: float
    progress_at: float  # when it last got further
    step: int | None = None  # None: training has not begun
    phase: str = "starting"
    count: int = 0  # of marks passed
    is_connected: bool = True
    has_left: bool = False  # it said goodbye
    lost_at: float | None = None  # when its connection ended
    machine: str = ""  # what its host calls itself
    report: dict | None = None  # its newest logged step, see robustbert/train/metrics.py
    exporter_port: int | None = None  # of its node's exporter, where this process keeps it


class Heartbeats:
    """Listens until `close`; everything can be asked from another thread."""

    def __init__(self, token: str, bind_address: str = "127.0.0.1"):
        """token: the job's mark, which every process of it knows. bind_address: empty for all of this host's."""
        _allow_many_connections()
        self._token = token
        self._server = socket.create_server((bind_address, 0), backlog=2048)
        self.port = self._server.getsockname()[1]
        self._lock = threading.Lock()
        self._pulses: dict[int, RankPulse] = {}
        self._stacks: dict[int, dict] = {}
        self._connections: dict[int, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._server.setblocking(False)
        self._selector.register(self._server, selectors.EVENT_READ, None)
        self._is_closed = False
        self._thread = threading.Thread(target=self._listen, name="heartbeats", daemon=True)
        self._thread.start()

    def pulses(self) -> dict[int, RankPulse]:
        """By rank, of all processes that have ever said hello."""
        with self._lock:
            return dict(self._pulses)

    def pulses_at_end(self, timeout_s: float) -> dict[int, RankPulse]:
        """After the end of a job: once all connections are closed, or are not within `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while any(pulse.is_connected for pulse in self.pulses().values()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return self.pulses()

    def collect_stacks(self, timeout_s: float) -> dict[int, dict]:
        """Ask every process for its stacks and its collectives; {rank: {"stacks", "main_thread", "collectives"}} of those that answer in time.

        "collectives" (launcher/collectives.py) comes after the stacks: it is None, or missing, where the process cannot tell.
        """
        with self._lock:
            self._stacks = {}
            asked = dict(self._connections)
        for connection in asked.values():
            with contextlib.suppress(OSError):
                connection.send(STACKS)
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with self._lock:
                if sum("collectives" in answer for answer in self._stacks.values()) >= len(asked):
                    break
            time.sleep(0.05)
        with self._lock:
            return {rank: dict(answer) for rank, answer in self._stacks.items()}

    def close(self) -> None:
        self._is_closed = True
        self._thread.join(5)
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()
        self._selector.close()

    def __enter__(self) -> "Heartbeats":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def _listen(self) -> None:
        while not self._is_closed:
            for key, _ in self._selector.select(timeout=0.2):
                if key.data is None:
                    with contextlib.suppress(OSError):
                        connection, _ = self._server.accept()
                        connection.setblocking(False)
                        self._selector.register(connection, selectors.EVENT_READ, _Reader(connection))
                else:
                    self._read(key.data)

    def _read(self, reader: "_Reader") -> None:
        """Take what a connection has sent; whoever does not talk as our processes do is not listened to any more."""
        try:
            for message in reader.messages():
                self._take(reader, message, time.monotonic())
        except (OSError, ValueError, KeyError, TypeError):  # closed, or a stranger
            self._forget(reader)

    def _take(self, reader: "_Reader", message: dict, now: float) -> None:
        if reader.rank is None:
            if message.get("token") != self._token:
                raise ValueError("not of this job")
            self._greet(reader, message, now)
        elif "goodbye" in message:
            with self._lock:
                self._pulses[reader.rank] = replace(self._pulses[reader.rank], has_left=True)
        elif "stacks" in message:
            with self._lock:
                self._stacks[reader.rank] = message
        elif "collectives" in message:
            with self._lock:
                if reader.rank in self._stacks:  # otherwise of an earlier request
                    self._stacks[reader.rank] |= message
        else:
            self._note(reader.rank, message, now)

    def _greet(self, reader: "_Reader", hello: dict, now: float) -> None:
        rank, host, pid = hello["rank"], hello["host"], hello["pid"]
        with self._lock:
            former = self._pulses.get(rank)
            if former is not None and former.pid == pid:  # the same process, connected again
                self._pulses[rank] = replace(former, heard_at=now, is_connected=True, lost_at=None)
            else:
                self._pulses[rank] = RankPulse(rank, host, pid, now, now, machine=hello.get("machine", ""))
            self._connections[rank] = reader.connection
        reader.rank = rank

    def _note(self, rank: int, beat: dict, now: float) -> None:
        with self._lock:
            former = self._pulses[rank]
            progress_at = now - beat["age_s"] if beat["count"] != former.count else former.progress_at
            self._pulses[rank] = replace(
                former,
                heard_at=now,
                progress_at=progress_at,
                step=beat["step"],
                phase=beat["phase"],
                count=beat["count"],
                report=beat.get("report", former.report),
                exporter_port=beat.get("exporter_port"),
            )

    def _forget(self, reader: "_Reader") -> None:
        self._selector.unregister(reader.connection)
        reader.connection.close()
        with self._lock:
            if reader.rank is not None and self._connections.get(reader.rank) is reader.connection:
                del self._connections[reader.rank]
                former = self._pulses[reader.rank]
                self._pulses[reader.rank] = replace(former, is_connected=False, lost_at=time.monotonic())


class _Reader:
    """The lines of one connection."""

    def __init__(self, connection: socket.socket):
        self.connection = connection
        self.rank: int | None = None
        self._rest = b""

    def messages(self) -> list[dict]:
        """What has come; ConnectionError at the end, ValueError where it is no message."""
        try:
            data = self.connection.recv(2**20)
        except BlockingIOError:
            return []
        if not data:
            raise ConnectionError("closed")
        *lines, self._rest = (self._rest + data).split(b"\n")
        messages = [json.loads(line) for line in lines]
        if len(self._rest) > _LONGEST_MESSAGE or not all(isinstance(message, dict) for message in messages):
            raise ValueError("no messages of ours")
        return messages


def _allow_many_connections() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard != resource.RLIM_INFINITY else max(soft, 65536), hard))
