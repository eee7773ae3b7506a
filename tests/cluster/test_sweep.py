"""Sweeps over a real Slurm's job array, and over several hosts."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.cluster.conftest import launcher
from tests.faults.hosts import Hosts, why_not_here
from tests.faults.lab import ROOT

FEW_STEPS = ("train.steps=3", "optim.warmup_steps=1", "checkpoint.interval=3")
pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(200)]


@pytest.fixture
def hosts(tmp_path):
    if reason := why_not_here():
        pytest.skip(reason)
    hosts = Hosts(["n1", "n2", "n3"], tmp_path)
    yield hosts
    hosts.close()


def make(folder, **commands):
    members = [{"name": name, "command": ["sh", "-c", text]} for name, text in commands.items()]
    (folder / "sweep.json").write_text(json.dumps({"title": "a sweep", "folder": str(folder), "members": members}))
    return folder


def done(folder, name):
    return json.loads((folder / "members" / name / "done.json").read_text())


def sweep(folder, *words):
    command = [sys.executable, "-m", "launcher", "sweep", str(folder), *words]
    return subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120)


def wait_until(condition, timeout_s=60):
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return value


def test_an_array_runs_each_member_on_its_node_and_again_only_what_failed(cluster, tmp_path):
    note = "echo $SLURM_ARRAY_TASK_ID >> ran; "
    folder = make(tmp_path, a=f"{note} echo on $SLURMD_NODENAME", b=f"{note} test -e mended || exit 3", c=note, d=f"{note} test -e mended")
    dry = sweep(folder, "--scheduler", "slurm", "--parallel", "2", "--dry-run", "cluster.partition=main")
    assert "sbatch --array=0-3%2 --parsable" in dry.stdout and "--partition=main" in dry.stdout, dry
    assert not (folder / "members").exists()
    first = sweep(folder, "--scheduler", "slurm", "--parallel", "2")
    assert first.returncode == 1 and "b: failed, exit code 3" in first.stdout and "2 of 4 members are done, 2 failed: b d" in first.stdout, first
    assert "on node" in (folder / "members/a/log.txt").read_text()
    assert done(folder, "b")["exit_code"] == 3
    (folder / "mended").touch()
    assert "--array=1,3" in sweep(folder, "--scheduler", "slurm", "--dry-run").stdout
    second = sweep(folder, "--scheduler", "slurm")
    assert second.returncode == 0 and "all 4 members are done" in second.stdout, second
    assert sorted((folder / "ran").read_text().split()) == ["0", "1", "1", "2", "3", "3"]


def test_a_detached_array_is_shown_joined_and_cancelled(cluster, tmp_path):
    folder = make(tmp_path, a="echo x >> ran; test -e go && exit 0; sleep 90", b="true")
    started = sweep(folder, "--scheduler", "slurm", "--parallel", "1", "--detach")
    assert started.returncode == 0 and "2 members are in the queue as job" in started.stdout, started
    wait_until(lambda: (folder / "ran").exists())
    table = sweep(folder, "--status").stdout
    assert "running" in table and "queued: PENDING (JobArrayTaskLimit)" in table
    command = [sys.executable, "-m", "launcher", "sweep", str(folder), "--scheduler", "slurm"]
    joined = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True)
    try:
        assert "is in the queue already" in joined.stdout.readline()
        assert "told to stop" in sweep(folder, "--cancel").stdout
        output, _ = joined.communicate(timeout=60)
    finally:
        joined.kill()
    assert joined.returncode == 1 and "a: stopped (cancelled by the user)" in output
    wait_until(lambda: not cluster.run("squeue", "-h").strip())
    (folder / "go").touch()
    assert sweep(folder, "--scheduler", "slurm").returncode == 0


def test_runs_over_an_array_have_their_own_nodes_and_are_known_as_runs(cluster, lab):
    words = ("--over", "run.seed=[1,2]", "--scheduler", "slurm", "cluster.nodes=2", "cluster.processes_per_node=1", *FEW_STEPS)
    ended = launcher(lab, "sweep", str(lab.config_file), "run.name=grid", *words)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    shown = launcher(lab, "status").stdout
    for seed in (1, 2):
        assert f"grid-seed{seed}" in shown
        log = (lab.folder / "runs" / f"grid-seed{seed}" / "logs" / "mpirun.log").read_text()
        assert "plm slurm" in log and "--host node1:1,node2:1" in log
        events = [json.loads(line) for line in (lab.folder / f"runs/grid-seed{seed}/events.jsonl").read_text().splitlines()]
        assert [e["num_processes"] for e in events if e["event"] == "started"] == [2]
        assert events[-1]["event"] == "finished" and any(e["event"] == "queued" and "_" in e["job"] for e in events)


def test_hosts_share_the_members_and_one_that_is_not_reached_is_left_out(hosts, tmp_path):
    hosts.cut_off("n3")
    folder = tmp_path / "s"
    folder.mkdir()
    make(folder, **{f"m{number}": "hostname; sleep 0.5" for number in range(6)}, slow="echo $$ > pid; test -e go || exec sleep 90")
    over = ("--scheduler", "mpi", "cluster.hosts=[n1,n2,n3]", f"cluster.remote_shell={hosts.shell}")
    command = [sys.executable, "-m", "launcher", "sweep", str(folder), *over]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        wait_until(lambda: all((folder / "members" / f"m{number}" / "done.json").exists() for number in range(6)))
        pid = int(wait_until(lambda: (folder / "pid").exists() and (folder / "pid").read_text()))
        os.kill(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130 and "n3 gave no record, it is left out: ssh: connect to host n3: No route to host" in output, output
    assert {done(folder, f"m{number}")["host"] for number in range(6)} == {"n1", "n2"}
    assert done(folder, "slow")["stopped"] and not os.path.exists(f"/proc/{pid}"), "Ctrl-C reaches a member on its host"
    (folder / "go").touch()
    again = sweep(folder, *over)
    assert again.returncode == 0 and "all 7 members are done" in again.stdout, again
