"""MPICH starts a job's processes: a run, stopped by a notice, resumed to its end. ROBUSTBERT_MPICH: the folder that has its bin/ and lib/."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launcher.schedulers import local, mpi, mpich, open_mpi
from robustbert.config import load_config
from robustbert.run_directory import RunDirectory
from tests.faults.hosts import Hosts
from tests.faults.hosts import why_not_here as hosts_not_here

ROOT = Path(__file__).resolve().parents[2]
FOLDER = os.environ.get("ROBUSTBERT_MPICH")
RUN = (
    "run: {name: mpich}\n"
    "model: {num_layers: 2, hidden_size: 32, ffn_hidden_size: 64, num_attention_heads: 2}\n"
    "data: {tokenizer: {train: {vocab_size: 262}}, train: [{text: text.txt}], sequence_length: 64}\n"
    "cluster: {processes_per_node: 2}\noptim: {warmup_steps: 1}\n"
    "train: {global_batch_size: 64, micro_batch_size: 8, steps: 100000, log_interval: 2}\n"
)


@pytest.fixture
def config(tmp_path):
    (tmp_path / "text.txt").write_text("A sentence of the corpus.\n\n\nAnother document.\n")
    (tmp_path / "run.yaml").write_text(RUN)
    return load_config(tmp_path / "run.yaml", ["cluster.remote_shell=my ssh", "cluster.hosts=[n1, n2]", "cluster.nodes=2"])


def test_hydras_commands_are_whole_and_need_no_shell(config):
    command = mpi.build_command(config.cluster, Path("/runs/a b; c"), "python3", "/opt/bin/mpiexec.hydra", "worker", ["n1", "n2"])
    by_ssh = ["-launcher", "ssh", "-launcher-exec", "my ssh"]
    assert command[:5] == ["/opt/bin/mpiexec.hydra", *by_ssh]
    assert command[5:] == ["-hosts", "n1:2,n2:2", "-ppn", "2", "-n", "4", "python3", "-m", "worker", "/runs/a b; c"]
    assert "--host" in mpi.build_command(config.cluster, Path("/runs/a"), "python3", "/opt/bin/mpirun", "worker", ["n1", "n2"])


@pytest.mark.parametrize(("library", "is_taken"), [("MPICH Version: 5.0.2", True), ("Open MPI v5.0.11", False)])
def test_of_two_mpis_the_one_counts_whose_library_mpi4py_loads(tmp_path, monkeypatch, library, is_taken):
    for name, words in (("mpirun", "mpirun (Open MPI) 5.0.11"), (mpich.NAME, "HYDRA build details: Version: 5.0.2")):
        (tmp_path / name).write_text(f"#!/bin/sh\necho '{words}'\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(open_mpi, "_mpi4py_library", lambda: library)
    assert mpich.is_hydra(local.find_starter()) == is_taken


@pytest.fixture
def environment():
    """That in which mpi4py loads MPICH and its programs come first."""
    if FOLDER is None:
        pytest.skip("no MPICH: pip install --ignore-installed --prefix FOLDER mpich, and ROBUSTBERT_MPICH=FOLDER")
    folder = Path(FOLDER)
    return os.environ | {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "MPI4PY_LIBMPI": str(folder / "lib" / "libmpi.so.12"),
        "LD_LIBRARY_PATH": str(folder / "lib"),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_run_under_mpich_saves_at_a_notice_and_goes_on(config, environment, tmp_path):
    def launcher(*words):
        command = [sys.executable, "-m", "launcher", *words]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)

    assert launcher("submit", "run.yaml", "--detach").returncode == 0
    run = RunDirectory(tmp_path / "runs" / "mpich")
    deadline = time.monotonic() + 60
    while not (run.path / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    stopped = launcher("cancel", "runs/mpich")
    preempted = [event for event in run.events() if event["event"] == "preempted"]
    assert len(preempted) == 1, stopped.stdout + stopped.stderr
    steps = preempted[0]["step"] + 5
    done = launcher("resume", "runs/mpich", f"train.steps={steps}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [event["step"] for event in run.events() if event["event"] == "finished"] == [steps]
    assert "mpiexec.hydra" in (run.path / "logs" / "mpirun.log").read_text()


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_run_under_mpich_spans_hosts_and_outlives_the_loss_of_one(config, environment, tmp_path):
    if reason := hosts_not_here():
        pytest.skip(reason)
    hosts = Hosts(["head", "n1", "n2", "n3"], tmp_path)
    cluster = ("cluster.scheduler=mpi", "cluster.nodes=2", "cluster.processes_per_node=1", "cluster.hosts=[n1,n2,n3]")
    more = (f"cluster.remote_shell={hosts.shell}", "train.steps=40", "checkpoint.interval=5", "fault_tolerance.silence_timeout_s=20")
    run = RunDirectory(tmp_path / "runs" / "mpich")
    try:
        command = [*hosts.on("head"), sys.executable, "-m", "launcher", "submit", "run.yaml", *cluster, *more]
        with open(tmp_path / "output", "wb") as output:
            process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=output, stderr=output)
        wait_for(run, "checkpoint_saved", process)
        hosts.kill("n2")
        assert process.wait(timeout=250) == 0, (tmp_path / "output").read_text()
    finally:
        hosts.close()
    events = run.events()
    assert [(e["num_processes"], e["step"] > 0) for e in events if e["event"] == "started"] == [(2, False), (2, True)]
    lost = [(e.get("hosts") or [e.get("host")]) for e in events if e["event"] in ("rank_lost", "hang")]  # Hydra may not notice
    assert lost == [["n2"]] and events[-1]["event"] == "finished"
    starts = [line for line in (run.path / "logs" / "mpirun.log").read_text().splitlines() if line.startswith("===")]
    assert ["-hosts n1:1,n2:1" in starts[0], "-hosts n1:1,n3:1" in starts[-1]] == [True, True]


def wait_for(run, name, process):
    deadline = time.monotonic() + 90
    while not any(event["event"] == name for event in run.events()):
        assert time.monotonic() < deadline and process.poll() is None, run.events()
        time.sleep(0.1)
