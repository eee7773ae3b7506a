"""launcher doctor: what it measures, whom it names, what it says where it cannot ask."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from launcher.doctor.command import merge_exclusions
from launcher.doctor.judgement import Answer, judge
from launcher.schedulers import mpi
from robustbert.config import load_config
from robustbert.device import Device
from robustbert.diagnosis import measures
from robustbert.job import Job
from robustbert.optim.fused_adam import FusedAdam

ROOT = Path(__file__).resolve().parents[2]


def report(matmul=100.0, torch_version="2.13", faults=()):
    rates = {"matmul_flops_per_s": matmul, "memory_bytes_per_s": 50.0, "disk_bytes_per_s": 20.0}
    return {"rates": rates, "versions": {"torch": torch_version}, "faults": list(faults), "free_bytes": {}, "clock": 0.0}


def test_a_slow_node_is_named_and_the_others_are_fit():
    answers = [Answer(f"n{i}", report(matmul)) for i, matmul in enumerate((100, 97, 70, 104))]
    verdicts = judge(answers, slow_below=0.8)
    assert [verdict.node for verdict in verdicts if not verdict.is_fit] == ["n2"]
    assert "matrix products at 71%" in verdicts[2].reasons[0]
    assert all(verdict.is_fit for verdict in judge(answers, slow_below=0.6))


def test_other_versions_a_wrong_clock_faults_and_silence_are_reasons():
    answers = [
        Answer("n0", report()),
        Answer("n1", report()),
        Answer("n2", report(torch_version="2.9")),
        Answer("n3", report(), clock_difference_s=-60.0),
        Answer("n4", report(faults=["the data cannot be read: x"])),
        Answer("n5", None, "no answer within 180 s"),
    ]
    reasons = [" ".join(verdict.reasons) for verdict in judge(answers, 0.8)]
    assert reasons[:2] == ["", ""]
    assert reasons[2] == "torch 2.9, the others have 2.13"
    assert "-60 s" in reasons[3] and "cannot be read" in reasons[4] and "no answer" in reasons[5]


class DecaysTwice(FusedAdam):
    """An Adam that is wrong by little."""

    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.mul_(1 - group["lr"] * group["weight_decay"])
        super().step(closure)


def test_an_optimizer_that_gives_other_weights_is_found():
    device = Device.detect(Job())
    assert measures.optimizers_differ_by(torch.optim.AdamW, FusedAdam, device) < 1e-4
    assert measures.optimizers_differ_by(DecaysTwice, FusedAdam, device) > 1e-3


def doctor(*words, cwd):
    command = [sys.executable, "-m", "launcher", "doctor", *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, env=environment)


@pytest.fixture
def run_file(tmp_path):
    (tmp_path / "text.txt").write_text("A sentence of the corpus.\n\n\nAnother document.\n")
    (tmp_path / "run.yaml").write_text(
        "model: {num_layers: 2, hidden_size: 32, ffn_hidden_size: 64, num_attention_heads: 2}\n"
        "data: {tokenizer: {train: {vocab_size: 300}}, train: [{text: text.txt}], sequence_length: 64}\n"
        "cluster: {processes_per_node: 2}\ntrain: {global_batch_size: 64, micro_batch_size: 8}\n"
    )
    return tmp_path / "run.yaml"


def test_this_machine_is_measured_and_nothing_is_left(run_file):
    done = doctor("run.yaml", "--json", "--megabytes", "8", cwd=run_file.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    (node,) = found["nodes"]
    assert node["node"] == "localhost" and node["reasons"] == []
    assert all(1e6 < rate < 1e15 for rate in node["report"]["rates"].values())
    assert node["report"]["versions"]["torch"].startswith(torch.__version__.partition("+")[0])
    assert found["all_reduce"]["processes"] == 2 and found["all_reduce"]["backend"] == "gloo"
    assert all(rate > 1e6 for rate in found["all_reduce"]["bytes_per_s_of_mib"].values())
    assert not (run_file.parent / "runs").exists()


def test_a_node_without_the_data_is_unfit(run_file):
    (run_file.parent / "text.txt").unlink()
    done = doctor("run.yaml", "--megabytes", "1", cwd=run_file.parent)
    assert done.returncode == 1 and "the data cannot be read" in done.stdout and "cluster.exclude=[localhost]" in done.stdout


def test_an_unreachable_host_is_one_line_with_its_name(run_file, tmp_path):
    shell = tmp_path / "shell"
    shell.write_text("#!/bin/sh\necho \"ssh: connect to host $1 port 22: No route to host\" >&2\nexit 255\n")
    shell.chmod(0o755)
    words = ["cluster.hosts=[n1]", f"cluster.remote_shell={shell}", "--exclude-file", "slow.txt"]
    done = doctor("run.yaml", "--scheduler", "mpi", *words, cwd=run_file.parent)
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("n1 "))
    assert done.returncode == 1 and "No route to host" in line and done.stderr == ""
    assert (run_file.parent / "slow.txt").read_text() == "n1\n"


def test_exclusions_are_added_to_those_there(tmp_path):
    merge_exclusions(tmp_path / "slow.txt", ["n3"])
    merge_exclusions(tmp_path / "slow.txt", ["n3", "n7"])
    assert (tmp_path / "slow.txt").read_text() == "n3\nn7\n"


def test_excluded_hosts_are_not_used(run_file):
    config = load_config(run_file, ["cluster.scheduler=mpi", "cluster.hosts=[n1, n2, n3]", "cluster.exclude=[n2]"])
    assert mpi.node_names(config) == ["n1", "n3"]
