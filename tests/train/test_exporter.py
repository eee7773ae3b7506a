"""The exporter: what is logged is what Prometheus reads, and a port in use does not matter to training."""

import socket
import urllib.request

from robustbert.job import Job
from robustbert.run_directory import RunDirectory
from tests.train.small_run import make_run, train


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_prometheus_reads_the_last_logged_step_and_counts_events(tmp_path):
    from robustbert.config import MonitoringConfig
    from robustbert.train.exporter import _GAUGES, Exporter

    port = free_port()
    run = RunDirectory(tmp_path / "mine")
    run.path.mkdir()
    run.append_event("rolled_back", step=3)
    exporter = Exporter(MonitoringConfig(prometheus_port=port), run)
    exporter.show({"step": 6})
    run.append_event("rolled_back", step=9)
    run.append_event("checkpoint_saved", step=10, seconds=2.5, stalled_s=0.125, bytes=1000)
    exporter.show(dict.fromkeys(_GAUGES, 2.5) | {"mfu": None, "step": 7})
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
    exporter.close()
    assert 'robustbert_step{run="mine"} 7.0' in text and 'robustbert_loss_nats{run="mine"} 2.5' in text
    assert 'robustbert_events_total{event="rolled_back",run="mine"} 2.0' in text
    assert 'robustbert_checkpoint_stall_seconds{run="mine"} 0.125' in text
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_port_in_use_does_not_stop_training(tmp_path, capfd):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        overrides = ("train.steps=6", f"monitoring.prometheus_port={taken.getsockname()[1]}")
        config, run = make_run(tmp_path, "run", overrides)
        assert train(Job(), config, run) == "finished"
    assert "training goes on" in capfd.readouterr().err
