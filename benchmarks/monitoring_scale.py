"""A large job's monitoring on one machine: every exporter and every rank's connection is real, the training is made up."""

import contextlib
import json
import random
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from launcher.exporters.node import NodeReports, RankReport
from launcher.exporters.server import serve
from launcher.heartbeats import Heartbeats
from launcher.watcher import Watcher
from robustbert.config import load_config
from robustbert.run_directory import RunDirectory

FIRST_PORT = 24000
MARK = "simulated"


class SimulatedJob:
    """A supervisor's exporter, `num_ranks` connections to it, and one exporter for each `ranks_per_node` of them."""

    def __init__(self, folder: Path, num_ranks: int, ranks_per_node: int):
        self.num_ranks, self._per_node = num_ranks, ranks_per_node
        self.num_nodes = num_ranks // ranks_per_node
        self.run = RunDirectory(folder / "simulated")
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "SimulatedJob":
        self.run.path.mkdir()
        self.run.append_event("submitted")
        self.run.append_event("started", step=0, layout={"tensor": 8, "pipeline": 4, "data": self.num_ranks // 32})
        file = self.run.path.parent / "simulated.yaml"
        file.write_text(
            "model: {preset: roberta-large}\ndata: {tokenizer: x, train: [{path: x}]}\ntrain: {global_batch_size: 8192, micro_batch_size: 1}\n"
            f"cluster: {{nodes: {self.num_nodes}, processes_per_node: {self._per_node}}}\nmonitoring: {{prometheus_port: {FIRST_PORT}}}\n"
        )
        self._heartbeats = self._stack.enter_context(Heartbeats(MARK))
        self._nodes, self._ports = [NodeReports() for _ in range(self.num_nodes)], []
        for number, reports in enumerate(self._nodes):
            server, _ = serve(reports.collect, FIRST_PORT + 100 + number, "127.0.0.1")
            self._stack.callback(server.server_close)
            self._stack.callback(server.shutdown)
            self._ports.append(server.server_port)
        self._connections = []
        for rank in range(self.num_ranks):
            connection = socket.create_connection(("127.0.0.1", self._heartbeats.port))
            self._connections.append(self._stack.enter_context(connection))
            hello = {"rank": rank, "host": self._host(rank), "pid": rank, "token": MARK}
            connection.sendall(json.dumps(hello).encode() + b"\n")
        self.watcher = Watcher(self.run, load_config(file))
        self.watcher.start()
        self._stack.callback(self.watcher.close)
        self.watcher.attend(self._heartbeats, [f"n{number}" for number in range(self.num_nodes)])
        return self

    def __exit__(self, *exception) -> None:
        self._stack.close()

    @property
    def targets_file(self) -> Path:
        return self.run.path.parent / ".prometheus" / "simulated.json"

    def feed_until(self, stop: threading.Event) -> None:
        """A beat and a report of every rank, once a second."""
        step = 0
        while not stop.is_set():
            started_at = time.monotonic()
            step += 1
            for rank, connection in enumerate(self._connections):
                report = _report(rank, step)
                self._nodes[rank // self._per_node].take(RankReport.parse(json.dumps({"rank": rank} | report).encode()))
                if rank == 0:
                    report |= {"metrics": {"time": report["time"], "step": step, "loss": 2.0, "tokens": step * 10**6, "step_time_s": 1.0}}
                beat = {"step": step, "phase": "forward and backward", "count": step, "age_s": 0.1, "report": report}
                port = {"exporter_port": self._ports[rank // self._per_node]} if rank % self._per_node == 0 else {}
                connection.sendall(json.dumps(beat | port).encode() + b"\n")
            self.watcher.tick()
            stop.wait(max(0.0, 1.0 - (time.monotonic() - started_at)))

    def _host(self, rank: int) -> str:
        return f"n{rank // self._per_node}"


@dataclass(frozen=True)
class Scraped:
    """What Prometheus says about its scrapes of the run; seconds are the longest of each kind of target."""

    num_targets: int
    num_failed: float
    num_series: float
    num_dropped: float
    supervisor_s: float
    node_s: float
    supervisor_samples: float

    def as_lines(self) -> list[str]:
        return [
            f"{self.num_targets} targets found through the targets file, scrapes that failed: {self.num_failed:.0f}",
            f"{self.num_series:,.0f} series, {self.supervisor_samples:,.0f} of them the supervisor's; samples dropped: {self.num_dropped:.0f}",
            f"longest scrape: {1000 * self.supervisor_s:.0f} ms of the supervisor, {1000 * self.node_s:.0f} ms of a node",
        ]


def watch_with_prometheus(job: SimulatedJob, folder: Path, interval_s: float, num_scrapes: int) -> Scraped:
    """Let a real Prometheus find and scrape the job's exporters; FileNotFoundError where it is not installed."""
    program = shutil.which("prometheus")
    if program is None:
        raise FileNotFoundError("prometheus is not installed (Debian: prometheus)")
    config = folder / "prometheus.yml"
    config.write_text(
        f"global: {{scrape_interval: {interval_s:g}s, scrape_timeout: {interval_s:g}s}}\nscrape_configs:\n"
        f"  - job_name: robustbert\n    file_sd_configs: [{{files: ['{job.targets_file}'], refresh_interval: 1s}}]\n"
    )
    address = f"127.0.0.1:{FIRST_PORT + 99}"
    arguments = [f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address={address}"]
    with open(folder / "prometheus.log", "w") as log:
        process = subprocess.Popen([program, *arguments], stdout=log, stderr=log)
    try:
        _wait_for_targets(address, 1 + job.num_nodes, process, folder / "prometheus.log")
        time.sleep(interval_s * (num_scrapes + 0.5))
        seen_s = f"{interval_s * (num_scrapes - 1):g}s"
        return Scraped(
            num_targets=int(_query(address, "count(up)")),
            num_failed=_query(address, f"sum(count_over_time(up[{seen_s}])) - sum(sum_over_time(up[{seen_s}]))"),
            num_series=_query(address, 'count({__name__=~"robustbert_.*"})'),
            num_dropped=_query(address, "sum(scrape_samples_scraped) - sum(scrape_samples_post_metric_relabeling)"),
            supervisor_s=_query(address, f'max(max_over_time(scrape_duration_seconds{{role="supervisor"}}[{seen_s}]))'),
            node_s=_query(address, f'max(max_over_time(scrape_duration_seconds{{role="node"}}[{seen_s}]))'),
            supervisor_samples=_query(address, 'sum(scrape_samples_scraped{role="supervisor"})'),
        )
    finally:
        process.terminate()
        process.wait()


def _wait_for_targets(address: str, number: int, process: subprocess.Popen, log: Path, timeout_s: float = 90) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError, IndexError):
            if _query(address, "count(up == 1)") == number:
                return
        time.sleep(0.5)
    raise TimeoutError(f"Prometheus has not found {number} targets within {timeout_s:g} s: {log.read_text()[-2000:]}")


def _query(address: str, expression: str) -> float:
    url = f"http://{address}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
    with urllib.request.urlopen(url, timeout=30) as answer:
        return float(json.load(answer)["data"]["result"][0]["value"][1])


def _report(rank: int, step: int) -> dict:
    own_s = random.uniform(0.9, 1.1)
    parts = {"data_wait": 0.01, "forward_backward": own_s, "collectives": 0.3, "optimizer": 0.1, "other": 0.02}
    memory = {"host": 4e9, "device": 2e10, "device_peak": 3e10}
    stage = rank // 8 % 4
    return {"time": time.time(), "step": step, "stage": stage, "own_s": own_s + 0.13, "parts": parts, "memory": memory}
