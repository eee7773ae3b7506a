"""A real run in all kinds of trouble, watched by a real Prometheus: every alert fires, every panel has data.

One run of four processes goes through everything; tests/monitoring/scaled.py says how time is made to pass faster.
"""

import contextlib
import json
import os
import shutil
import signal
import time
import urllib.request
from collections import defaultdict

import psutil
import pytest

from launcher.job_env import find_rank
from launcher.monitor import Server, started
from launcher.processes import job_processes
from launcher.supervisor_record import read_supervisor
from robustbert.config import load_config
from tests.faults.lab import FaultLab
from tests.monitoring.scaled import FastPrometheus, alertmanager_server
from tests.monitoring.shipped import alerts, panel_queries, substituted

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.faults, pytest.mark.timeout(900)]
FIRST_PORT = 9700
ALERT_TIMEOUT_S = 180  # much more than it takes: other tests may share the machine
# fp16 whose loss scale begins at its minimum; a straggler is one soon; two hosts, both of them this machine.
OVERRIDES = (
    *("precision=fp16", "optim.initial_loss_scale=1.0", "optim.min_loss_scale=1.0", "optim.lr=1e-3"),
    *("train.steps=100000", "train.log_interval=1", "checkpoint.interval=10", "train.eval_interval=25", "train.eval_sequences=16"),
    *(f"monitoring.prometheus_port={FIRST_PORT}", "monitoring.straggler_after_s=1", "monitoring.collectives_interval=1"),
    *("cluster.processes_per_node=4", "cluster.scheduler=mpi", "fault_tolerance.max_node_failures=1"),
    *("fault_tolerance.hang_timeout_s=900", "fault_tolerance.startup_timeout_s=900"),
)


class MoodyLab(FaultLab):
    """Runs whose mood can be changed."""

    launch_module = "tests.monitoring.launch"


class Watched:
    """The run, its Prometheus, and what has been seen of its alerts."""

    def __init__(self, run, prometheus: FastPrometheus, alertmanager: Server | None):
        self.run, self.prometheus, self.alertmanager = run, prometheus, alertmanager
        self.fired: dict[str, set[str]] = defaultdict(set)

    def be(self, **mood) -> None:
        draft = self.run.run.path / "mood.draft"
        draft.write_text(json.dumps(mood))
        draft.replace(self.run.run.path / "mood.json")

    def wait_until(self, what: str, condition, timeout_s: float = ALERT_TIMEOUT_S) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"{what}: not within {timeout_s} s; fired: {self.fired}\n{self.run.story()[-6000:]}"
            for name, summaries in self.prometheus.firing().items():
                self.fired[name] |= summaries
            time.sleep(0.3)

    def wait_for_alerts(self, *names: str) -> None:
        self.wait_until(f"alerts {names}", lambda: {f"Robustbert{name}" for name in names} <= set(self.fired))

    def wait_for_rank(self, name: str, rank: int) -> None:
        """On a busy machine another rank may be slow as well; what counts is that this one is named."""
        self.wait_until(f"alert {name} names rank {rank}", lambda: any(f"rank {rank} " in text for text in self.fired[f"Robustbert{name}"]))

    def told(self) -> set[str]:
        """The alerts that the Alertmanager has heard of and that go on."""
        with urllib.request.urlopen(f"{self.alertmanager.url}/api/v2/alerts", timeout=30) as answer:
            return {alert["labels"]["alertname"] for alert in json.load(answer)}

    def processes(self, text: str) -> list[psutil.Process]:
        mark = read_supervisor(self.run.run).job_mark
        return [process for process in job_processes(mark) if text in " ".join(process.cmdline())]

    def worker(self, rank: int) -> psutil.Process:
        workers = [process for process in self.processes("moody_worker") if "mpirun" not in process.name() and "prte" not in process.name()]
        return next(process for process in workers if find_rank(process.environ()).rank == rank)


@pytest.fixture
def watched(tmp_path):
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed (Debian: apt install prometheus)")
    shell = tmp_path / "shell"
    shell.write_text('#!/bin/sh\nshift\nexec sh -c "$*"\n')  # in place of ssh: both hosts are this machine
    shell.chmod(0o755)
    lab = MoodyLab(tmp_path)
    alertmanager = alertmanager_server(tmp_path / "alertmanager") if shutil.which("prometheus-alertmanager") else None
    prometheus = FastPrometheus(tmp_path / "prometheus", tmp_path / "runs", alertmanager)
    corpus = load_config(lab.config_file).data.train[0].path
    own = (f"cluster.hosts=[{os.uname().nodename},localhost]", f"cluster.remote_shell={shell}", f"data.valid=[{{path: {corpus}}}]")
    try:
        with started(prometheus.server), started(alertmanager) if alertmanager else contextlib.nullcontext():
            yield Watched(lab.submit("moody", None, *OVERRIDES, *own), prometheus, alertmanager)
    finally:
        lab.close()


def test_every_alert_fires_and_every_panel_has_data(watched):
    prometheus, since = watched.prometheus, time.time()
    watched.run.wait_for("started", timeout_s=240)
    watched.wait_until("ten seconds of undisturbed training", lambda: prometheus.values("count_over_time(robustbert_step[20s]) > 10"))
    for name in ("LossNotFinite", "LossSpike", "CheckpointFailing", "NodesLost"):
        assert f"Robustbert{name}" not in watched.fired, "nothing of this is wrong yet"

    watched.be(data_wait_s=0.3, slow={"2": 0.4})
    watched.wait_for_alerts("DataStarvation", "ThroughputDown", "Straggler", "LossScaleAtMinimum")
    watched.wait_for_rank("Straggler", 2)

    watched.be(loss=5.0)
    watched.wait_for_alerts("LossSpike")

    watched.be(disk="full")
    watched.wait_for_alerts("CheckpointFailing", "CheckpointStale")

    watched.be(loss_once="nan", id=1, step_s=2.5)
    watched.wait_for_alerts("LossNotFinite")
    watched.be()
    assert watched.run.wait_for("rolled_back")["reason"] == "the loss is nan"

    node_exporter = watched.processes("launcher.exporters.node")[0]
    node_exporter.kill()
    watched.wait_for_alerts("ExporterDown")

    stopped = watched.worker(3)
    stopped.suspend()
    watched.wait_for_alerts("RankMissing", "TrainingStalled")
    watched.wait_for_rank("RankMissing", 3)

    if watched.alertmanager:  # Debian's prometheus-alertmanager; without it the alerts are looked at in Prometheus only
        watched.wait_until("the Alertmanager is told", lambda: "RobustbertRankMissing" in watched.told())
    empty = [(dashboard, title, expr) for dashboard, title, expr in panel_queries() if not prometheus.has_had(substituted(expr, "moody"), since)]
    assert not empty, empty

    watched.worker(1).kill()  # and with it its node is left out
    watched.wait_for_alerts("NodesLost", "GoodputLow")

    os.kill(read_supervisor(watched.run.run).pid, signal.SIGKILL)
    watched.wait_until("the supervisor's exporter is missed", lambda: prometheus.has_had(
        'ALERTS{alertname="RobustbertExporterDown", role="supervisor", alertstate="firing"} and on (instance) up == 0', since))  # fmt: skip

    assert {alert["alert"] for alert in alerts()} == set(watched.fired)
    for name, summaries in watched.fired.items():
        for summary in summaries:
            assert "moody" in summary and "{{" not in summary and "error" not in summary, (name, summary)
