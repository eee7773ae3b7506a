"""What a supervisor does for monitoring: its exporter, the targets that Prometheus finds, slow ranks, a last push.

Nothing of this may disturb the run: what fails costs a line of the supervisor's log.
"""

import socket
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from launcher.exporters.run_figures import RunFigures
from launcher.exporters.run_metrics import JobView, collect
from launcher.exporters.server import NoFreePort, serve, target_address
from launcher.exporters.targets import TargetsFile
from launcher.heartbeats import Heartbeats
from launcher.stragglers import Stragglers
from robustbert.config import RunConfig
from robustbert.json_lines import say_error
from robustbert.run_directory import RunDirectory

TICK_S = 1.0
PUSH_TIMEOUT_S = 5.0


class Watcher:
    """Of one supervision; start and close it around everything, `attend` each job, `tick` as often as you like."""

    def __init__(self, run: RunDirectory, config: RunConfig, num_left_out: Callable[[], int] = lambda: 0):
        self._run, self._config = run, config
        self._options = config.monitoring
        self._num_left_out = num_left_out
        self._heartbeats: Heartbeats | None = None
        self._nodes: list[str] = []
        self._stragglers = Stragglers(self._options.straggler_factor, self._options.straggler_after_s)
        self._figures = RunFigures(run)
        self._scrape_lock = threading.Lock()
        self._server = self._registry = None
        self._targets = TargetsFile(run)
        self._next_tick = 0.0
        self._has_complained = False

    def start(self) -> None:
        """Open the exporter, where a port is configured and free."""
        if self._options.prometheus_port is None:
            return
        try:
            self._server, self._registry = serve(self.collect, self._options.prometheus_port, self._options.bind_address)
        except NoFreePort as error:
            say_error(str(error))
        self._guarded(self._update_targets)

    def attend(self, heartbeats: Heartbeats | None, nodes: list[str]) -> None:
        """A job begins on these nodes; None: it has ended."""
        for event in self._stragglers.start_over():
            self._run.append_event(**event)
        self._heartbeats, self._nodes = heartbeats, nodes
        self._next_tick = 0.0
        self.tick()

    def tick(self) -> None:
        """Once in TICK_S: look for slow ranks, tell Prometheus of exporters that came or went."""
        if time.monotonic() >= self._next_tick:
            self._next_tick = time.monotonic() + TICK_S
            self._guarded(self._look_for_stragglers)
            self._guarded(self._update_targets)

    def close(self) -> None:
        """Push the last state, then take everything down."""
        if self._registry is not None and self._options.push_gateway is not None:
            self._guarded(self._push)
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
        self._targets.remove()

    def collect(self) -> list:
        """The metric families of this moment. Scrapes come in threads of their own; one is served after the other."""
        with self._scrape_lock:
            job = self._job()
            first = (job.pulses or {}).get(0)
            self._figures.update(first.report.get("metrics") if first and first.report else None)
            return list(collect(self._config, self._figures, job, self._stragglers, time.time()))

    def _job(self) -> JobView:
        heartbeats, nodes = self._heartbeats, self._nodes
        num_processes = (len(nodes) or self._config.cluster.nodes) * self._config.cluster.processes_per_node
        return JobView(num_processes, len(nodes), self._num_left_out(), heartbeats.pulses() if heartbeats else None)

    def _look_for_stragglers(self) -> None:
        if self._heartbeats is not None:
            for event in self._stragglers.update(self._heartbeats.pulses()):
                self._run.append_event(**event)

    def _update_targets(self) -> None:
        if self._server is None:
            return
        pulses = self._heartbeats.pulses() if self._heartbeats else {}
        host, bind = socket.gethostname(), self._options.bind_address
        nodes = {
            pulse.host: target_address(pulse.exporter_port, bind, pulse.host)
            for pulse in pulses.values()
            if pulse.exporter_port is not None and pulse.is_connected
        }
        self._targets.update((host, target_address(self._server.server_port, bind, host)), nodes)

    def _push(self) -> None:
        from prometheus_client import push_to_gateway

        self._figures.end()
        where = self._options.push_gateway
        try:
            push_to_gateway(where, "robustbert", self._registry, {"run": self._run.path.name}, timeout=PUSH_TIMEOUT_S)
        except OSError as error:  # URLError and HTTPError are
            say_error(f"the last metrics could not be pushed to {urlsplit(where).netloc}: {error}")

    def _guarded(self, function: Callable[[], None]) -> None:
        try:
            function()
        except Exception as error:
            if not self._has_complained:
                say_error(f"monitoring fails ({function.__name__.strip('_')}: {type(error).__name__}: {error}); the run goes on")
            self._has_complained = True
