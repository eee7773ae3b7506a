"""`launcher monitor`: a Prometheus of its own for a folder of runs; one clear line where it cannot be."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from launcher.cli import main

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def prometheus():
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed (Debian: apt install prometheus)")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_without_prometheus_one_line_says_where_to_get_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["monitor", "--dir", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "apt install prometheus" in error and error.count("\n") == 1


def test_a_folder_that_is_not_there_is_named(tmp_path, capsys):
    assert main(["monitor", "--dir", str(tmp_path / "nowhere")]) == 2
    assert "is no folder" in capsys.readouterr().err


def test_a_port_that_is_taken_is_refused_with_the_way_out(tmp_path, prometheus, capsys):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert main(["monitor", "--dir", str(tmp_path), "--port", str(port)]) == 2
    assert f"--port {port + 1}" in capsys.readouterr().err
    assert not (tmp_path / ".prometheus").exists()


def test_a_dry_run_shows_everything_and_changes_nothing(tmp_path, prometheus, capsys):
    assert main(["monitor", "--dir", str(tmp_path), "--dry-run", "--alertmanager", "127.0.0.1:9093"]) == 0
    shown = capsys.readouterr().out
    assert f"{tmp_path}/.prometheus/*.json" in shown and "--web.listen-address=127.0.0.1:9090" in shown and "127.0.0.1:9093" in shown
    assert not list(tmp_path.iterdir())


def test_grafana_is_provisioned_where_it_is_installed(tmp_path, prometheus, monkeypatch, capsys):
    program = tmp_path / "bin" / "grafana-server"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr("launcher.monitor._GRAFANA_HOMES", (str(tmp_path),))
    assert main(["monitor", "--dir", str(tmp_path), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert f"GF_PATHS_PROVISIONING={ROOT}/monitoring/grafana/provisioning" in shown and str(program) in shown
    assert "GF_SERVER_HTTP_ADDR=127.0.0.1" in shown


@pytest.mark.slow
@pytest.mark.cluster
def test_it_serves_the_runs_of_a_folder_until_it_is_interrupted(tmp_path, prometheus):
    port = free_port()
    targets = tmp_path / ".prometheus" / "some.json"
    targets.parent.mkdir()
    targets.write_text(json.dumps([{"targets": [f"127.0.0.1:{free_port()}"], "labels": {"run": "some", "node": "n", "role": "supervisor"}}]))
    process = subprocess.Popen(
        [sys.executable, "-m", "launcher", "monitor", "--dir", str(tmp_path), "--port", str(port)],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        words = process.stdout.readline()
        assert f"http://127.0.0.1:{port}" in words, process.stderr.read()
        deadline = time.monotonic() + 60
        found = []
        while not found and time.monotonic() < deadline:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/targets", timeout=10) as answer:
                found = json.load(answer)["data"]["activeTargets"]
            time.sleep(0.2)
        assert [target["labels"]["run"] for target in found] == ["some"]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/rules", timeout=10) as answer:
            assert len(json.load(answer)["data"]["groups"]) == 5
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", port), 1)
    finally:
        process.kill()


@pytest.mark.slow
def test_an_installed_package_brings_all_that_monitor_and_report_need(tmp_path, prometheus):
    installed, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    elsewhere.mkdir()
    source = tmp_path / "source"  # a build leaves folders beside setup.py
    kept_out = shutil.ignore_patterns(".git", "node_modules", "runs", "build", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source, ignore=kept_out)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", installed, source]
    subprocess.run([*map(str, pip)], check=True, capture_output=True, text=True, timeout=120)

    def run(*words) -> str:
        environment = os.environ | {"PYTHONPATH": str(installed)}
        return subprocess.run([*map(str, words)], cwd=elsewhere, env=environment, check=True, capture_output=True, text=True, timeout=60).stdout

    shown = run(sys.executable, "-m", "launcher", "monitor", "--dir", elsewhere, "--dry-run")
    config = elsewhere / "prometheus.yml"
    config.write_text(shown.partition(f"\n{shutil.which('prometheus')} ")[0])
    assert str(installed / "monitoring" / "rules") in config.read_text()
    assert "2 rule files found" in run("promtool", "check", "config", config)
    assets = "from launcher.report.page import _asset; print(len(_asset('page.css')), len(_asset('page.js')), len(_asset('page.html')))"
    assert all(int(size) > 100 for size in run(sys.executable, "-c", assets).split())
    dashboards = installed / "monitoring" / "grafana" / "dashboards"
    assert sorted(path.name for path in dashboards.iterdir()) == ["robustbert_fleet.json", "robustbert_run.json"]
    assert len(list((installed / "monitoring" / "grafana" / "provisioning").rglob("*.yaml"))) == 2
