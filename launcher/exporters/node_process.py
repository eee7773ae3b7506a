"""The node's exporter as its first worker sees it: started in the background, started again when it ends, never waited for."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time

from launcher.exporters.node import NO_PLACE, socket_name
from robustbert.config import MonitoringConfig
from robustbert.json_lines import say_error

RESTART_PAUSE_S = 5.0


class NodeExporter:
    """The process; `port` is None while it is not there."""

    def __init__(self, config: MonitoringConfig, job_mark: str, host: str):
        self.port: int | None = None
        self._command = [sys.executable, "-m", "launcher.exporters.node", "--job", job_mark, "--host", host]
        self._command += ["--port", str(config.prometheus_port), "--bind", config.bind_address, "--parent", str(os.getpid())]

    def start(self) -> None:
        """Returns at once. The thread stays: the kernel ends the exporter with the thread that started it."""
        threading.Thread(target=self._keep, name="node exporter", daemon=True).start()

    def _keep(self) -> None:
        while True:
            try:
                process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    start_new_session=True,  # mpirun passes signals on to a rank's whole process group
                )
            except OSError as error:  # no memory, no process left for it
                say_error(f"the node's exporter cannot be started ({error}); training goes on")
            else:
                with process.stdout as output:
                    first_line = output.readline()
                    self.port = int(first_line) if first_line.strip().isdigit() else None
                    exit_code = process.wait()
                self.port = None
                if exit_code == NO_PLACE:  # it has said so
                    return
                say_error(f"the node's exporter ended with exit code {exit_code}; it is started again in {RESTART_PAUSE_S:g} s")
            time.sleep(RESTART_PAUSE_S)


class ReportSender:
    """Sends a rank's reports to its node's exporter; they are dropped where none listens."""

    def __init__(self, rank: int, job_mark: str, host: str):
        self._rank = rank
        self._address = socket_name(job_mark, host)
        self._socket = None
        if sys.platform == "linux":  # abstract names are Linux'
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)

    def send(self, report: dict) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.sendto(json.dumps({"rank": self._rank} | report).encode(), self._address)
