"""Monitoring of real runs under faults: a slow rank is named, and nothing that breaks in monitoring is felt by training."""

import contextlib
import json
import os
import shutil
import subprocess

import psutil
import pytest

from launcher.control import describe
from launcher.run_status import read_status
from tests.faults.test_disk_full import small_disk  # noqa: F401
from tests.launcher.test_exporters import free_ports, scrape, wait_for

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(280)]


def monitored(**options) -> list[str]:
    """The overrides that switch the exporters on."""
    options = {"prometheus_port": free_ports(3), "collectives_interval": 1} | options
    return [f"monitoring.{key}={value}" for key, value in options.items()]


def targets_of(run) -> dict[str, int]:
    """The ports that Prometheus finds, by role."""
    file = run.run.path.parent / ".prometheus" / f"{run.run.path.name}.json"
    groups = json.loads(file.read_text()) if file.exists() else []
    return {group["labels"]["role"]: int(group["targets"][0].rpartition(":")[2]) for group in groups}


def exporter_of(run) -> psutil.Process:
    """The node's exporter."""
    mark = json.loads((run.run.path / "supervisor.json").read_text())["job_mark"]
    return next(p for p in psutil.process_iter(["cmdline"]) if {"launcher.exporters.node", mark} <= set(p.info["cmdline"] or ()))


def test_a_slow_rank_is_named_until_it_keeps_up_and_a_killed_exporter_comes_back(lab, undisturbed):
    overrides = monitored(straggler_after_s=1)
    fault = {"slow_rank": 1, "slow_s": 0.9, "slow_until": 9}  # for eight of the supervisor's looks, one a second
    run = lab.submit("straggler", fault, *overrides, "train.steps=12", "checkpoint.interval=2")
    straggler = run.wait_for("straggler")
    ports = wait_for(lambda: ports if len(ports := targets_of(run)) == 2 else None)
    assert scrape(ports["supervisor"])['robustbert_straggler{host="%s",rank="1"}' % straggler["host"]] > 1.3
    exporter_of(run).kill()
    assert "slow        rank 1 on" in describe(read_status(run.run))
    assert run.finish() == 0, run.story()
    assert straggler["rank"] == 1 and straggler["ratio"] > 1.3 and straggler["part"] == "forward_backward"
    assert straggler["own_s"] > 0.9 and straggler["median_s"] < straggler["own_s"]
    over = run.events("straggler_over")
    assert over and over[0]["rank"] == 1
    assert run.final_weights() == undisturbed.final_weights()
    assert targets_of(run) == {}, "nothing is left to be scraped"
    assert "it is started again" in run.run.rank_log(0).read_text()


def test_on_a_full_disk_the_figures_stay_alive(lab, small_disk):  # noqa: F811
    overrides = monitored()
    overrides += [f"run.dir={small_disk}", "train.steps=40", "checkpoint.interval=40"]
    run = lab.submit("full", {"slow_s": 0.2}, *overrides, folder=small_disk)
    run.wait_for("started")
    wait_for(run.run.metrics)
    ballast = small_disk / "ballast"
    with open(ballast, "wb") as file, contextlib.suppress(OSError):
        while True:
            os.write(file.fileno(), bytes(65536))

    def is_ahead_of_the_file() -> bool:
        return scrape(targets_of(run)["supervisor"])["robustbert_step"] > run.run.metrics()[-1]["step"] + 2

    wait_for(is_ahead_of_the_file)  # some lines still fit into the file's last page
    ballast.unlink()
    assert run.finish() == 0, run.story()
    assert run.run.metrics()[-1]["step"] == 40


@pytest.mark.cluster
def test_the_last_state_is_pushed_to_a_gateway(lab, tmp_path):
    program = shutil.which("prometheus-pushgateway")
    if program is None:
        pytest.skip("prometheus-pushgateway is not installed (Debian: prometheus-pushgateway)")
    where = f"127.0.0.1:{free_ports(1)}"
    gateway = subprocess.Popen([program, f"--web.listen-address={where}"], stderr=subprocess.DEVNULL)
    try:
        overrides = monitored(push_gateway=f"http://{where}")
        run = lab.submit("pushed", None, *overrides, "train.steps=4", "optim.warmup_steps=1")
        assert run.finish() == 0, run.story()
        pushed = scrape(int(where.rpartition(":")[2]))
    finally:
        gateway.kill()
        gateway.wait()
    labels = 'instance="",job="robustbert",run="pushed"'
    assert pushed["robustbert_step{%s}" % labels] == 4
    assert pushed['robustbert_run_state{instance="",job="robustbert",run="pushed",state="finished"}'] == 1
