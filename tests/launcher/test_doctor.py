"""launcher doctor: what it measures, whom it names, what it says where it cannot ask."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from launcher.doctor.job import find_reason, measure_all_reduce
from launcher.doctor.judgement import Answer, judge
from launcher.doctor.remote import ask_node, clock_difference
from launcher.plan import with_vocabulary
from launcher.schedulers import mpi, slurm
from robustbert.config import ClusterConfig, ConfigError, dump_names, load_config, load_names
from robustbert.device import Device
from robustbert.diagnosis import measures
from robustbert.diagnosis.space import checkpoint_bytes, find_lack_of_space
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


def test_a_slow_gpu_is_named_where_there_is_only_one_node():
    devices = [{"matmul_flops_per_s": rate, "memory_bytes_per_s": 50.0} for rate in (100.0, 99.0, 60.0, 98.0)]
    slow = report(60.0) | {"devices": devices}
    (verdict,) = judge([Answer("n0", slow)], 0.8)
    assert verdict.reasons == ("slow: matrix products at 60% of the usual rate (GPU 2)",)


def test_a_clock_counts_as_wrong_only_beyond_what_is_uncertain():
    late = Answer("n0", report(), clock_difference_s=8.0, clock_uncertainty_s=4.0)
    assert judge([late], 0.8)[0].is_fit
    assert not judge([replace(late, clock_uncertainty_s=0.1)], 0.8)[0].is_fit


@pytest.mark.parametrize("ahead_s", [0.0, 100.0, -3.0])
def test_the_clocks_difference_lies_within_its_uncertainty(ahead_s):
    # Asked at 10; written there at 12 and 20, came here 0.5 s later.
    difference, uncertainty = clock_difference(10.0, [(12.5, 12.0 + ahead_s), (20.5, 20.0 + ahead_s)])
    assert abs(difference - ahead_s) <= uncertainty == pytest.approx(1.25)


class DecaysTwice(FusedAdam):
    """An Adam that is wrong by little."""

    def step(self, closure=None, **options):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.mul_(1 - group["lr"] * group["weight_decay"])
        super().step(closure, **options)


def test_an_optimizer_that_gives_other_weights_is_found():
    device = Device.detect(Job())
    assert measures.optimizers_differ_by(torch.optim.AdamW, FusedAdam, device) < 1e-4
    assert measures.judge_optimizer("FusedAdam", torch.optim.AdamW, FusedAdam, device)["fault"] is None
    for wrong in (DecaysTwice, torch.optim.Adam):  # the latter decays through the gradient
        assert "other weights" in measures.judge_optimizer("FusedAdam", wrong, FusedAdam, device)["fault"], wrong


def test_a_checkpoints_size_is_that_of_the_parameters(run_file):
    config = with_vocabulary(load_config(run_file))
    from robustbert.plan.simulation import simulate_positions

    (position,) = simulate_positions(config, 1)
    assert checkpoint_bytes(config.model) == pytest.approx(12 * position.num_parameters, rel=0.01)
    assert find_lack_of_space(config, checkpoint_bytes(config.model)) is None
    assert "a checkpoint takes about" in find_lack_of_space(config, checkpoint_bytes(config.model) - 1)


def test_gpus_that_are_not_there_are_told():
    gpu, cpu = Device(torch.device("cuda", 0), "nccl"), Device(torch.device("cpu"), "gloo")
    assert measures.find_lack_of_devices([cpu], ClusterConfig(processes_per_node=4)) is None
    assert "0 GPUs are seen" in measures.find_lack_of_devices([cpu], ClusterConfig(gpus_per_node=1))
    assert "would share one" in measures.find_lack_of_devices([gpu], ClusterConfig(processes_per_node=2))
    assert measures.find_lack_of_devices([gpu, gpu], ClusterConfig(processes_per_node=2, gpus_per_node=2)) is None


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
    (device,) = node["report"]["devices"]
    assert device["matmul_flops_per_s"] == node["report"]["rates"]["matmul_flops_per_s"] and device["memory_bytes"] > 1e8
    assert abs(node["clock_difference_s"]) <= node["clock_uncertainty_s"] + 0.01, "its own clock"
    assert node["report"]["versions"]["torch"].startswith(torch.__version__.partition("+")[0])
    assert found["all_reduce"]["processes"] == 2 and found["all_reduce"]["backend"] == "gloo"
    assert all(rate > 1e6 for rate in found["all_reduce"]["bytes_per_s_of_mib"].values())
    assert not (run_file.parent / "runs").exists()


def make_shell(folder, text):
    """A stand-in for ssh; text: what it does with the host, $1, and the command, $*."""
    shell = folder / "shell"
    shell.write_text(f"#!/bin/sh\nhost=$1; shift\n{text}\n")
    shell.chmod(0o755)
    return f"cluster.remote_shell={shell}"


def test_relative_paths_mean_the_folder_of_the_command_on_every_host(run_file):
    shell = make_shell(run_file.parent, 'cd / && exec sh -c "$*"')
    words = ("cluster.hosts=[n1]", "cluster.processes_per_node=1", shell)
    done = doctor("run.yaml", "--scheduler", "mpi", *words, "--megabytes", "1", cwd=run_file.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("n1 "))
    assert line.endswith(" fit") and "one process has nothing to reduce" in done.stdout


def test_a_node_without_the_data_is_unfit_and_earlier_exclusions_stay(run_file):
    (run_file.parent / "text.txt").unlink()
    shell = make_shell(run_file.parent, 'exec sh -c "$*"')
    words = ("cluster.hosts=[n1, n7]", "cluster.exclude=[n7]", shell, "--megabytes", "1", "--exclude-file", "unfit.yaml")
    (run_file.parent / "unfit.yaml").write_text("[n3]\n")
    done = doctor("run.yaml", "--scheduler", "mpi", *words, cwd=run_file.parent)
    assert done.returncode == 1 and "the data cannot be read" in done.stdout and "'cluster.exclude=[n7, n1]'" in done.stdout
    names = (run_file.parent / "unfit.yaml").read_text()
    assert names == "[n3, n7, n1]\n"
    left_out = load_config(run_file, [f"cluster.exclude={names}"]).cluster.exclude
    assert left_out == ("n3", "n7", "n1"), "the file's text is an override's value"


def test_this_machine_cannot_be_left_out(run_file):
    (run_file.parent / "text.txt").unlink()
    done = doctor("run.yaml", "--megabytes", "1", cwd=run_file.parent)
    assert done.returncode == 1 and "the data cannot be read" in done.stdout and "cluster.exclude" not in done.stdout


ANSWERS_ONCE = "echo '{\"clock\": 0}'"


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("echo 'ssh: no route' >&2; exit 255", "not reached: ssh: no route"),
        (f"{ANSWERS_ONCE}; echo 'MemoryError' >&2; exit 1", "its check failed: MemoryError"),
        (f"{ANSWERS_ONCE}; echo 'while measuring the disk' >&2; sleep 20", "no answer within 1 s: while measuring the disk"),
        ("sleep 20 & sleep 20", "no answer within 1 s"),  # a child of it holds the pipe
        ("exit 3", "not reached: exit code 3"),
    ],
)
def test_what_gives_no_answer_is_one_line_in_time(program, message):
    started = time.monotonic()
    answer = ask_node("n1", ["sh", "-c", program], 1)
    assert answer.report is None and answer.error == message and time.monotonic() - started < 5


def test_a_program_that_is_not_there_is_told():
    assert ask_node("n1", ["/no/such/shell"], 1).error.startswith("not reached: ")


def test_an_unreachable_host_is_one_line_with_its_name(run_file, tmp_path):
    shell = make_shell(tmp_path, 'echo "ssh: connect to host $host port 22: No route to host" >&2; exit 255')
    words = ["cluster.hosts=[n1]", shell, "--exclude-file", "unfit.yaml"]
    done = doctor("run.yaml", "--scheduler", "mpi", *words, cwd=run_file.parent)
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("n1 "))
    assert done.returncode == 1 and "No route to host" in line and done.stderr == ""
    assert (run_file.parent / "unfit.yaml").read_text() == "[n1]\n"


LISTENER = """--------------------------------------------------------------------------
The PMIx server's listener thread failed to start. We cannot
continue.
--------------------------------------------------------------------------
"""


def test_why_a_job_failed_is_its_process_own_words_before_mpiruns():
    assert find_reason(LISTENER) == "The PMIx server's listener thread failed to start. We cannot continue."
    assert find_reason(f"Traceback:\n  File x\ntorch.DistStoreError: timed out\n{LISTENER}") == "torch.DistStoreError: timed out"
    assert find_reason("") == ""


class FakeScheduler:
    """Starts a shell command in place of the job."""

    def __init__(self, program):
        self.program = program

    def build_command(self, config, folder, *arguments):
        return ["sh", "-c", f"cd {folder} && {{ {self.program} ; }}"]


def test_a_start_that_fails_is_tried_once_more_and_told(run_file, tmp_path):
    config = load_config(run_file)
    once = "[ -e tried ] && echo '{\"processes\": 2}' > all_reduce.json; touch tried; echo broken >&2"
    found = measure_all_reduce(config, FakeScheduler(once), "", [], tmp_path)
    assert found == {"processes": 2, "first_failure": "failed: broken"}
    never = FakeScheduler("rm -f all_reduce.json; echo x >> starts; echo broken >&2")
    assert measure_all_reduce(config, never, "", [], tmp_path) == "failed: broken"
    assert (tmp_path / "starts").read_text() == "x\nx\n"


def test_names_are_a_list_each_once_and_another_file_is_refused(tmp_path):
    file = tmp_path / "unfit.yaml"
    assert load_names(file) == []
    file.write_text(dump_names(["n3", "n3", "7"]))
    assert load_names(file) == ["n3", "7"]
    file.write_text("thesis: x\n")
    with pytest.raises(ConfigError, match="YAML list of names"):
        load_names(file)


def test_outside_an_allocation_the_line_that_gets_one_is_told(run_file, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_NODELIST", raising=False)
    assert not slurm.is_inside_allocation()
    config = load_config(run_file, ["cluster.spare_nodes=1", "cluster.partition=gpu", "cluster.sbatch_options=[--constraint=v100]"])
    line = slurm.allocation_command(config, ["launcher", "doctor", "a b.yaml"])
    options = "--job-name=run --nodes=2 --ntasks-per-node=2 --partition=gpu --constraint=v100"
    assert line.startswith(f"salloc {options} launcher doctor 'a b.yaml' (or sbatch {options} --wrap ")


def test_excluded_hosts_are_not_used(run_file):
    config = load_config(run_file, ["cluster.scheduler=mpi", "cluster.hosts=[n1, n2, n3]", "cluster.exclude=[n2]"])
    assert mpi.node_names(config.cluster) == ["n1", "n3"]
