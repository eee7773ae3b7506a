"""The commands and scripts for clusters: pure, quoted, complete."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.schedulers import mpi, slurm
from robustbert.config import ConfigError, load_config
from tests.launcher.conftest import CONFIG

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def make_config(tmp_path):
    def make(**keys):
        (tmp_path / "text.txt").write_text("text")
        (tmp_path / "small.yaml").write_text(CONFIG)
        keys = {"cluster.nodes": 2, "train.global_batch_size": 16} | keys
        return load_config(tmp_path / "small.yaml", [f"{key}={value}" for key, value in keys.items()])

    return make


def test_sbatch_gets_every_option_as_one_argument(make_config):
    config = make_config(
        **{
            "run.name": "'a b; touch x $(touch y)'",
            **{"cluster.partition": "gpu", "cluster.account": "nlp", "cluster.gpus_per_node": 8, "cluster.spare_nodes": 1},
            **{"cluster.time_limit": "'2-00:00:00'", "cluster.exclude": "[n7, n9]", "cluster.sbatch_options": "[--constraint=v100]"},
        }
    )
    command = slurm.build_submission(config, Path("/runs/a b; touch x"), Path("/home/me"))
    assert command[0] == "sbatch" and command[-1] == "/runs/a b; touch x/job.sh"
    for option in (
        *("--job-name=a b; touch x $(touch y)", "--nodes=3", "--ntasks-per-node=2", "--gpus-per-node=8", "--partition=gpu"),
        *("--account=nlp", "--time=2-00:00:00", "--exclude=n7,n9", "--signal=B:USR1@180", "--constraint=v100", "--requeue"),
        *("--no-kill", "--chdir=/home/me", "--open-mode=append"),
    ):
        assert option in command, option


def test_what_is_not_given_is_left_to_slurm(make_config):
    command = slurm.build_submission(make_config(**{"cluster.requeue": "false"}), Path("/r"), Path("/"))
    assert not any(word.startswith(("--partition", "--account", "--time", "--signal", "--gpus", "--no-kill")) for word in command)
    assert "--no-requeue" in command


@pytest.mark.parametrize("code", [0, 1, 130])
def test_the_script_ends_as_the_supervisor_does(code, tmp_path):
    script = tmp_path / "job.sh"
    script.write_text(slurm.build_script(["sh", "-c", f"exit {code}"], "/a b:/c; touch x"))
    done = subprocess.run(["bash", script], cwd=tmp_path, capture_output=True, text=True, timeout=20)
    assert done.returncode == code and not done.stderr and not (tmp_path / "x").exists()


def test_the_script_passes_notices_on_and_requeues_what_has_saved(tmp_path):
    (tmp_path / "scontrol").write_text(f"#!/bin/sh\necho \"$@\" > {tmp_path}/asked\n(sleep 0.5; kill -TERM $PPID) > /dev/null &\n")
    (tmp_path / "scontrol").chmod(0o755)
    supervisor = ["sh", "-c", "trap 'sleep 0.3; exit 75' USR1; touch ready; while :; do sleep 0.05; done"]
    (tmp_path / "job.sh").write_text(slurm.build_script(supervisor, "/x"))
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "77"}
    process = subprocess.Popen(["bash", "job.sh"], cwd=tmp_path, env=environ, stdout=subprocess.PIPE, text=True)
    import signal
    import time

    while not (tmp_path / "ready").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGUSR1)
    output, _ = process.communicate(timeout=20)
    # Ended by Slurm (here: its stand-in), never by itself.
    assert process.returncode == -signal.SIGTERM and "goes back to the queue" in output
    assert (tmp_path / "asked").read_text() == "requeue 77\n"


def test_nodes_of_an_allocation_are_those_that_slurm_gives(make_config, monkeypatch, tmp_path):
    config = make_config(**{"cluster.spare_nodes": 1})
    monkeypatch.delenv("SLURM_JOB_NODELIST", raising=False)
    assert slurm.node_names(config.cluster) == ["NODE1", "NODE2", "NODE3"]
    (tmp_path / "scontrol").write_text("#!/bin/sh\nprintf 'dgx07\\ndgx08\\ndgx11\\n'\n")
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "dgx[07-08,11]")
    assert slurm.node_names(config.cluster) == ["dgx07", "dgx08", "dgx11"]


@pytest.mark.parametrize("scheduler", [mpi, slurm])
def test_mpirun_starts_so_many_on_each_node(scheduler, make_config):
    config = make_config(**{"cluster.processes_per_node": 4, "cluster.hosts": "[n1, n2, n3]"})
    command = scheduler.build_command(config.cluster, Path("/runs/a b"), "/usr/bin/python", "/opt/mpirun", "launcher.worker", ["n1", "n3"])
    assert command[command.index("--host") + 1] == "n1:4,n3:4" and command[command.index("-n") + 1] == "8"
    assert command[command.index("--map-by") + 1] == "ppr:4:node:OVERSUBSCRIBE"
    assert command[-4:] == ["/usr/bin/python", "-m", "launcher.worker", "/runs/a b"]
    for variable in ("ROBUSTBERT_JOB", "ROBUSTBERT_SUPERVISOR", "PYTHONPATH"):
        assert variable in command
    assert ("plm_ssh_agent" in command) == (scheduler is mpi) and ("oob_tcp_keepalive_time" in command) == (scheduler is mpi)


def test_a_command_on_a_node_is_quoted_for_its_shell(make_config):
    words = [shlex.quote(word) for word in ("python", "-m", "launcher.health", "/runs/a b; touch x")]
    assert mpi.remote_command(make_config().cluster, "n1", words)[:2] == ["ssh", "n1"]
    command = slurm.remote_command(make_config().cluster, "n1", words)
    assert command[-1] == "python -m launcher.health '/runs/a b; touch x'" and "--nodelist=n1" in command


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("cluster.hosts", "['n1 -o x']", "is no name or address"),
        ("cluster.hosts", "['-oProxyCommand=x']", "is no name or address"),
        ("cluster.hosts", "[n1, n1]", "names a host twice"),
        ("cluster.time_limit", "'1 day'", "is not written as Slurm does"),
        ("cluster.sbatch_options", "['; rm x']", "is no option of sbatch"),
        ("run.name", '"a\\nb"', "no control characters"),
    ],
)
def test_hostile_or_mistyped_values_are_refused(key, value, message, make_config):
    with pytest.raises(ConfigError, match=message):
        make_config(**{key: value})


@pytest.mark.parametrize("hosts", ["[n1]", "[n1, n2]"])
def test_hosts_that_cannot_be_reached_end_a_run_with_one_line_that_names_them(hosts, tmp_path):
    shell = tmp_path / "shell"
    shell.write_text("#!/bin/sh\necho \"ssh: connect to host $1 port 22: No route to host\" >&2\nexit 255\n")
    shell.chmod(0o755)
    (tmp_path / "text.txt").write_text("A sentence of the corpus.\n\n\nAnother document.\n")
    (tmp_path / "run.yaml").write_text(
        "model: {num_layers: 2, hidden_size: 32, ffn_hidden_size: 64, num_attention_heads: 2}\n"
        "data: {tokenizer: {train: {vocab_size: 262}}, train: [{text: text.txt}], sequence_length: 64}\n"
        f"cluster: {{scheduler: mpi, hosts: {hosts}, remote_shell: {shell}}}\n"
        "train: {global_batch_size: 64, micro_batch_size: 8, steps: 4}\noptim: {warmup_steps: 1}\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "launcher", "submit", "run.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, env=environment)
    (line,) = (line for line in (done.stdout + done.stderr).splitlines() if line.startswith("failed:"))
    assert done.returncode == 1
    assert all(f"{host}: not reached: ssh: connect to host {host}" in line for host in hosts.strip("[]").split(", "))
