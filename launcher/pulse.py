"""Signs of life of one process and its reports, sent from a thread of its own; on request its threads' stacks and its collectives.

They go to the supervisor, the reports also to the node's exporter.

A process whose supervisor cannot be reached any more ends itself: it may be on a node that was cut off, while the run
goes on elsewhere and writes to the same directory.
"""

import contextlib
import faulthandler
import json
import os
import select
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping

from launcher.collectives import own_collectives
from launcher.exporters.node_process import NodeExporter, ReportSender
from launcher.job_env import find_host
from robustbert.config import MonitoringConfig
from robustbert.progress import Progress

ADDRESS_VARIABLE = "ROBUSTBERT_SUPERVISOR"  # host:port of the supervisor, set for every process of a job
TOKEN_VARIABLE = "ROBUSTBERT_JOB"  # the job's mark: who does not know it is not listened to
PERIOD_S = 1.0
CONNECT_TIMEOUT_S = 5.0
STACKS = b"stacks\n"
LOST_SUPERVISOR = 76  # exit code


class Pulse:
    """Beats from `start` to the end of the process; without a supervisor's address it does nothing."""

    def __init__(self, rank: int, progress: Progress, environ: Mapping[str, str], on_lost: Callable[[str], None]):
        """on_lost: called with the reason before the process ends itself."""
        self._rank = rank
        self._progress = progress
        self._address = environ.get(ADDRESS_VARIABLE)
        self._token = environ.get(TOKEN_VARIABLE, "")
        self._host = find_host(environ)
        self._on_lost = on_lost
        self._connection: socket.socket | None = None
        self._sent_report: dict | None = None  # over this connection
        self._sender = ReportSender(rank, self._token, self._host)
        self._has_left = False
        self._sending = threading.Lock()
        self._exporter: NodeExporter | None = None  # the node's, where this process keeps it
        self.silence_timeout_s = 120.0  # the configuration's, once it is read

    def start(self) -> None:
        if self._address:
            threading.Thread(target=self._run, name="pulse", daemon=True).start()

    def start_exporter(self, config: MonitoringConfig) -> None:
        """Keep the node's exporter from now on; where there is no supervisor nobody would find it."""
        if self._address and sys.platform == "linux":
            self._exporter = NodeExporter(config, self._token, self._host)
            self._exporter.start()

    def say_goodbye(self) -> None:
        """Tell that the process ends by itself, well or not; who goes without it was killed or cut off. It beats no more."""
        self._has_left = True
        with contextlib.suppress(OSError, AttributeError):
            self._send(self._connection, {"goodbye": True})

    def _run(self) -> None:
        last_contact = time.monotonic()
        while not self._has_left:
            try:
                with self._connect() as connection:
                    self._connection = connection
                    while not self._has_left:
                        self._beat(connection)
                        last_contact = time.monotonic()
                        self._answer(connection)
            except OSError as error:
                silent_s = time.monotonic() - last_contact
                if silent_s > self.silence_timeout_s:
                    self._on_lost(f"the supervisor at {self._address} has been out of reach for {silent_s:.0f} s ({error})")
                    os._exit(LOST_SUPERVISOR)
                time.sleep(PERIOD_S)

    def _connect(self) -> socket.socket:
        host, _, port = self._address.rpartition(":")
        connection = socket.create_connection((host, int(port)), CONNECT_TIMEOUT_S)
        # Unanswered data counts as a lost connection soon, not after the system's quarter of an hour.
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            timeout_ms = int(1000 * max(2 * PERIOD_S, self.silence_timeout_s / 2))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout_ms)
        hello = {"rank": self._rank, "host": self._host, "machine": socket.gethostname(), "pid": os.getpid(), "token": self._token}
        self._send(connection, hello)
        self._sent_report = None
        return connection

    def _beat(self, connection: socket.socket) -> None:
        progress = self._progress
        beat = {"step": progress.step, "phase": progress.phase, "count": progress.count, "age_s": round(progress.age_s, 3)}
        if self._exporter is not None:
            beat["exporter_port"] = self._exporter.port
        report = progress.newest_report
        if report is not None:
            self._sender.send(report)  # again and again: an exporter that was started again has nothing yet
            if report is not self._sent_report:
                beat["report"] = report
        self._send(connection, beat)
        self._sent_report = report

    def _answer(self, connection: socket.socket) -> None:
        """Until the next beat, do what the supervisor asks for."""
        readable, _, _ = select.select([connection], [], [], PERIOD_S)
        if not readable:
            return
        request = connection.recv(4096)
        if not request:
            raise ConnectionError("the supervisor has closed the connection")
        if STACKS in request:
            self._send(connection, {"stacks": own_stacks(), "main_thread": threading.main_thread().ident})
            # After the stacks and apart from the beats: torch may take the interpreter's lock along into a driver that hangs.
            threading.Thread(target=self._send_collectives, args=[connection], name="collectives", daemon=True).start()

    def _send_collectives(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            self._send(connection, {"collectives": own_collectives()})

    def _send(self, connection: socket.socket, message: dict) -> None:
        data = json.dumps(message).encode() + b"\n"
        with self._sending:
            connection.sendall(data)


def own_stacks() -> str:
    """The Python stacks of every thread of this process, each one's innermost call first."""
    with tempfile.TemporaryFile() as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return file.read().decode(errors="replace")
