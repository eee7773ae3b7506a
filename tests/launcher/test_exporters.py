"""The exporters: what they show, where they are found, and that nothing of them can harm a run."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request

import psutil
import pytest

from launcher.exporters.node import NO_PLACE, RankReport
from launcher.exporters.node_process import NodeExporter, ReportSender
from launcher.exporters.run_figures import RunFigures
from launcher.exporters.server import NUM_PORTS, NoFreePort, serve, target_address
from launcher.heartbeats import RankPulse
from launcher.watcher import Watcher
from robustbert.config import load_config
from robustbert.run_directory import RunDirectory

PARTS = {"data_wait": 0.1, "forward_backward": 1.0, "collectives": 0.5, "optimizer": 0.2, "other": 0.2}
REPORT = {"time": 5.0, "step": 7, "stage": 0, "own_s": 1.5, "parts": PARTS, "memory": {"host": 1000}}


def free_ports(number: int) -> int:
    """The first of `number` neighbouring free ports."""
    for first in range(21000, 60000, 2 * number):
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for port in range(first, first + number):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return first
    raise AssertionError("no free ports")


def scrape(port: int) -> dict[str, float]:
    """Series -> value."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if not line.startswith("#")}


def wait_for(condition, timeout_s: float = 30):
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return value


@pytest.fixture
def run(tmp_path):
    run = RunDirectory(tmp_path / "mine")
    run.path.mkdir()
    return run


def config_of(run: RunDirectory, **monitoring):
    (run.path.parent / "mine.yaml").write_text(
        "model: {preset: roberta-base}\ndata: {tokenizer: x, train: [{path: x}]}\ncluster: {processes_per_node: 2}\n"
        "optim: {warmup_steps: 2}\n"
        f"train: {{steps: 50, global_batch_size: 8, micro_batch_size: 2}}\nmonitoring: {json.dumps(monitoring)}\n"
    )
    return load_config(run.path.parent / "mine.yaml")


class Heard:
    """Stands for Heartbeats: what was heard."""

    def __init__(self, *pulses: RankPulse):
        self._pulses = {pulse.rank: pulse for pulse in pulses}

    def pulses(self) -> dict[int, RankPulse]:
        return self._pulses


def test_the_run_exporter_shows_what_is_logged_heard_and_counted(run):
    port = free_ports(1)
    run.append_event("submitted")
    run.append_event("started", step=0, layout={"tensor": 1, "pipeline": 1, "data": 2, "sequence": False})
    run.append_event("rolled_back", step=3, to_step=0)
    line = {"time": time.time(), "step": 6, "loss": 2.5, "loss_scale": 8.0, "mfu": None, "tflops": 0.5, "tokens": 100}
    run.append_metrics(line | {"corpus_samples": {"books": 40}})
    run.append_event("checkpoint_saved", step=6, seconds=2.5, stalled_s=0.125, bytes=1000)
    heard = line | {"time": time.time() + 1, "step": 7, "tokens": 120, "corpus_samples": {"books": 48}}
    watcher = Watcher(run, config_of(run, prometheus_port=port, straggler_after_s=0), num_left_out=lambda: 3)
    watcher.start()
    try:
        slow = REPORT | {"own_s": 4.5}
        pulses = [
            RankPulse(0, "n0", 1, time.monotonic(), 0.0, report=REPORT | {"metrics": heard}, exporter_port=1234),
            RankPulse(1, "n0", 2, time.monotonic() - 60, 0.0, report=slow),
        ]
        watcher.attend(Heard(*pulses), ["n0"])
        series = scrape(port)
        targets = json.loads((run.path.parent / ".prometheus" / "mine.json").read_text())
        watcher.attend(None, [])
        between = scrape(port)
    finally:
        watcher.close()
    assert not list((run.path.parent / ".prometheus").iterdir())
    assert series["robustbert_step"] == 7, "as heard: the disk may be full"
    assert series["robustbert_tokens_total"] == 120 and series['robustbert_corpus_samples_total{corpus="books"}'] == 48
    assert series["robustbert_flops_per_second"] == 5e11 and "robustbert_model_flops_utilization" not in series
    assert series['robustbert_events_total{event="rolled_back"}'] == series["robustbert_rollbacks_total"] == 1
    assert series["robustbert_checkpoint_stall_seconds"] == 0.125 and series["robustbert_planned_steps"] == 50
    assert series['robustbert_run_state{state="running"}'] == 1 and series['robustbert_run_state{state="queued"}'] == 0
    assert series['robustbert_rank_up{rank="0"}'] == 1 and series['robustbert_rank_up{rank="1"}'] == 0
    assert abs(series['robustbert_rank_heartbeat_timestamp_seconds{rank="1"}'] - (time.time() - 60)) < 10
    assert series["robustbert_processes"] == 2 and series["robustbert_nodes_left_out"] == 3
    assert series["robustbert_slowest_rank"] == 1 and series["robustbert_slowest_rank_ratio"] == 3
    assert series['robustbert_straggler{host="n0",rank="1"}'] == 3
    (about,) = [name for name in series if name.startswith("robustbert_run_info")]
    assert about == 'robustbert_run_info{layout="tensor 1 x pipeline 1 x data 2",precision="fp32",scheduler="local"}'
    assert {(t["targets"][0], t["labels"]["role"]) for t in targets} == {
        (f"127.0.0.1:{port}", "supervisor"),
        ("127.0.0.1:1234", "node"),
    }
    assert all(t["labels"]["run"] == "mine" for t in targets) and targets[1]["labels"]["node"] == "n0"
    assert not any("rank" in name for name in between), "between two jobs nobody is missing"
    assert [event["event"] for event in run.events()][-2:] == ["straggler", "straggler_over"]


def test_a_rank_that_never_came_has_a_heartbeat_of_zero(run):
    watcher = Watcher(run, config_of(run, prometheus_port=None))
    watcher.attend(Heard(RankPulse(0, "n0", 1, time.monotonic(), 0.0)), ["n0"])
    families = {family.name: family for family in watcher.collect()}
    values = {sample.labels["rank"]: sample.value for sample in families["robustbert_rank_heartbeat_timestamp_seconds"].samples}
    assert values["1"] == 0 and values["0"] > 1e9


def test_no_counter_falls_when_training_goes_back_and_a_new_supervisor_counts_the_same(run):
    figures, seen = RunFigures(run), []
    run.append_event("submitted")
    for step, tokens in [(1, 10), (2, 20), (3, 30), (2, 20), (3, 32), (4, 40)]:
        run.append_metrics({"time": time.time(), "step": step, "tokens": tokens, "skipped_steps": step})
        figures.update()
        seen.append((figures.tokens.total, figures.skipped_steps.total))
    assert [tokens for tokens, _ in seen] == [10, 20, 30, 30, 42, 50] and seen == sorted(seen)
    again = RunFigures(run)
    again.update()
    assert (again.tokens.total, again.skipped_steps.total) == seen[-1]


def test_a_run_that_was_stopping_has_stopped_at_the_end(run):
    figures = RunFigures(run)
    for event, state in [("submitted", "preparing"), ("started", "running"), ("stopping", "stopping"), ("preempted", "stopping")]:
        run.append_event(event, step=3)
        figures.update()
        assert figures.state == state
    figures.end()
    assert figures.state == "stopped" and figures.run_seconds(time.time() + 100)["waiting"] < 50


def test_what_fails_costs_one_line_and_not_the_run(run, capfd):
    watcher = Watcher(run, config_of(run, prometheus_port=None))

    class Broken:
        def pulses(self):
            raise RuntimeError("broken on demand")

    watcher.attend(Broken(), ["n0"])
    for _ in range(3):
        watcher._next_tick = 0
        watcher.tick()
    assert capfd.readouterr().err.count("the run goes on") == 1


def test_a_gateway_that_is_away_costs_one_line(run, capfd):
    watcher = Watcher(run, config_of(run, prometheus_port=free_ports(1), push_gateway=f"http://127.0.0.1:{free_ports(1)}"))
    watcher.start()
    watcher.close()
    assert len(re.findall("could not be pushed", capfd.readouterr().err)) == 1


def test_a_port_that_is_taken_is_passed_over_and_without_any_the_run_goes_on(run, capfd):
    first = free_ports(NUM_PORTS)
    with contextlib.ExitStack() as stack:
        stack.enter_context(socket.create_server(("127.0.0.1", first)))
        server, _ = serve(lambda: [], first, "127.0.0.1")
        assert server.server_port == first + 1
        server.shutdown()
        server.server_close()
        for port in range(first + 1, first + NUM_PORTS):
            stack.enter_context(socket.create_server(("127.0.0.1", port)))
        with pytest.raises(NoFreePort, match="training goes on"):
            serve(lambda: [], first, "127.0.0.1")
        watcher = Watcher(run, config_of(run, prometheus_port=first))
        watcher.start()
        watcher.tick()
        watcher.close()
        command = NodeExporter(config_of(run, prometheus_port=first).monitoring, "mark", "n0")._command
        assert subprocess.run(command, timeout=60).returncode == NO_PLACE
    assert capfd.readouterr().err.count("training goes on") == 2


def test_targets_lead_to_this_machine_or_to_the_host():
    assert target_address(9400, "127.0.0.1", "n7") == "127.0.0.1:9400"
    assert target_address(9400, "", "n7") == target_address(9400, "0.0.0.0", "n7") == "n7:9400"


@pytest.mark.parametrize("change", [{"rank": "x"}, {"step": None}, {"parts": [1]}, {"memory": {"host": "much"}}, {"own_s": True}])
def test_a_report_of_another_form_is_refused(change):
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        RankReport.parse(json.dumps({"rank": 0} | REPORT | change).encode())


@pytest.mark.skipif(sys.platform != "linux", reason="node exporters need Linux' abstract sockets")
def test_a_node_exporter_serves_its_ranks_comes_back_when_killed_and_ends_with_its_worker(tmp_path):
    """A process in a worker's place keeps the exporter; two ranks send to it."""
    mark, port = f"test{os.getpid()}", free_ports(2)
    worker = (
        "import time\nfrom launcher.exporters import node_process\nfrom robustbert.config import MonitoringConfig\n"
        "node_process.RESTART_PAUSE_S = 0.1\n"
        f"exporter = node_process.NodeExporter(MonitoringConfig(prometheus_port={port}), {mark!r}, 'n0')\n"
        "started_at = time.monotonic()\nexporter.start()\nprint(time.monotonic() - started_at, flush=True)\n"
        "while True:\n    print(exporter.port, flush=True)\n    time.sleep(0.1)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", worker], stdout=subprocess.PIPE, text=True)
    try:
        assert float(process.stdout.readline()) < 1.0, "training does not wait for it"
        wait_for(lambda: process.stdout.readline().strip() == str(port))
        senders = [ReportSender(rank, mark, "n0") for rank in (0, 1)]
        senders[0]._socket.sendto(b"no report", senders[0]._address)
        for sender in senders:
            sender.send(REPORT)
        series = wait_for(lambda: series if len(series := scrape(port)) == 2 * 9 else None)
        assert series['robustbert_rank_step_part_seconds{part="collectives",rank="1"}'] == 0.5
        assert series['robustbert_rank_memory_bytes{kind="host",rank="0"}'] == 1000
        assert series['robustbert_rank_step{rank="0"}'] == 7
        (exporter,) = psutil.Process(process.pid).children()
        assert not any("libtorch" in mapped.path for mapped in exporter.memory_maps())
        exporter.kill()
        for sender in senders:
            sender.send(REPORT)  # nobody listens
        wait_for(lambda: process.stdout.readline().strip() == "None")
        wait_for(lambda: process.stdout.readline().strip() == str(port))
        (exporter,) = psutil.Process(process.pid).children()
    finally:
        process.kill()
        process.wait()
    psutil.wait_procs([exporter], timeout=10)
    assert not exporter.is_running() or exporter.status() == psutil.STATUS_ZOMBIE
