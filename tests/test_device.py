"""Where a process computes: what CUDA is told before it starts, what is refused, how a failed process leaves. Without a GPU."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from launcher.error_record import ErrorRecord
from robustbert.device import (
    Device,
    DeviceError,
    check_architecture,
    check_precision,
    repeatable,
    set_cuda_defaults,
    wait_for_memory,
)
from robustbert.job import Job
from tests.train.small_run import make_run, train

CUDA_12_8 = ["sm_70", "sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]
CUDA_13 = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_110", "sm_120", "compute_120"]


@pytest.mark.parametrize(
    ("capability", "architectures"),
    [
        ((7, 0), CUDA_12_8),
        ((8, 9), CUDA_13),  # sm_86 runs there
        ((9, 0), CUDA_13),
        ((12, 1), CUDA_13),
        ((13, 0), CUDA_13),  # by PTX
        ((9, 0), ["sm_90a"]),
        ((7, 0), []),  # a build that does not tell
    ],
)
def test_gpus_that_torch_is_built_for(capability, architectures):
    check_architecture("GPU", capability, architectures, "2.11.0")


@pytest.mark.parametrize(
    ("capability", "architectures", "way_out"),
    [
        ((7, 0), CUDA_13, "torch 2.9 or 2.10 for CUDA 12.6 or 12.8"),
        ((6, 1), CUDA_12_8, "use another GPU"),
        ((13, 0), CUDA_12_8, "install a newer torch"),
        ((9, 1), ["sm_90a"], "install a newer torch"),
        ((8, 0), ["sm_75", "sm_86"], "install a newer torch"),
    ],
)
def test_gpus_that_torch_is_not_built_for_are_refused_in_one_line(capability, architectures, way_out):
    with pytest.raises(DeviceError, match=way_out) as raised:
        check_architecture("Tesla V100", capability, architectures, "2.13.0+cu130")
    assert "Tesla V100" in str(raised.value) and "\n" not in str(raised.value)


def test_bf16_is_refused_where_it_would_be_emulated():
    with pytest.raises(DeviceError, match="V100 has 7.0; use precision: fp16"):
        check_precision("V100", (7, 0), "bf16")
    with pytest.raises(DeviceError):
        check_precision("T4", (7, 5), "bf16")
    for capability, precision in (((8, 0), "bf16"), ((7, 0), "fp16"), ((7, 0), "fp32")):
        check_precision("GPU", capability, precision)


class FakeCuda:
    """torch.cuda with two V100s; notes what is asked of it and which variables were set by then."""

    def __init__(self, monkeypatch, capability=(7, 0), architectures=CUDA_12_8):
        self.calls: list[str] = []
        self.at_first: dict[str, str] = {}
        answers = {
            "is_available": True,
            "device_count": 2,
            "set_device": None,
            "get_device_name": "Tesla V100",
            "get_device_capability": capability,
            "get_arch_list": architectures,
            "mem_get_info": (95, 100),
        }
        for name, value in answers.items():
            monkeypatch.setattr(torch.cuda, name, lambda *arguments, name=name, value=value: self._answer(name, value, *arguments))

    def _answer(self, name, value, *arguments):
        self.at_first = self.at_first or dict(os.environ)
        self.calls.append(" ".join([name, *map(str, arguments)]))
        return value


@pytest.fixture
def no_settings(monkeypatch):
    for name in ("CUDA_DEVICE_MAX_CONNECTIONS", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)


def test_cudas_variables_are_set_before_it_is_asked_for_anything(monkeypatch, no_settings):
    cuda = FakeCuda(monkeypatch)
    device = Device.detect(Job(local_rank=3), "fp16")
    assert device == Device(torch.device("cuda", 1), "nccl") and "set_device cuda:1" in cuda.calls
    assert cuda.at_first["CUDA_DEVICE_MAX_CONNECTIONS"] == "1"
    assert cuda.at_first["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"
    assert "mem_get_info" not in cuda.calls, "only after a failed attempt"
    Device.detect(Job(attempt=2), "fp16")
    assert "mem_get_info" in cuda.calls


def test_detect_refuses_what_the_gpu_cannot_do(monkeypatch, no_settings):
    FakeCuda(monkeypatch)
    with pytest.raises(DeviceError, match="fp16"):
        Device.detect(Job(), "bf16")
    FakeCuda(monkeypatch, architectures=CUDA_13)
    with pytest.raises(DeviceError, match="torch 2.9 or 2.10"):
        Device.detect(Job())


@pytest.mark.parametrize("name", ["PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"])
def test_what_the_user_has_set_stays(name):
    environ = {name: "backend:native", "CUDA_DEVICE_MAX_CONNECTIONS": "8"}
    set_cuda_defaults(environ)
    assert environ == {name: "backend:native", "CUDA_DEVICE_MAX_CONNECTIONS": "8"}


class Memory:
    """A GPU whose free bytes follow a list, one value a poll of half a second."""

    def __init__(self, *free):
        self.free, self.time, self.said = list(free), 0.0, []

    def wait(self, **options):
        wait_for_memory(self.info, say=self.said.append, sleep=self.sleep, now=lambda: self.time, **options)
        return self.time

    def info(self):
        return (self.free.pop(0) if len(self.free) > 1 else self.free[0]) * 2**30, 80 * 2**30

    def sleep(self, seconds):
        self.time += seconds


def test_memory_of_a_killed_process_is_waited_for():
    memory = Memory(3, 3, 3, 40, 79)
    assert memory.wait() == 2.0
    assert memory.said == ["waited 2.0 s for the GPU memory of the former attempt: 79.0 of 80.0 GiB are free"]
    memory = Memory(78)
    assert memory.wait() == 0.0 and not memory.said


def test_memory_that_somebody_keeps_is_not_waited_for():
    assert Memory(3, 20, 40).wait() == 4.0, "3 s after the last growth"
    assert Memory(*range(100)).wait(timeout_s=10) == 10.0, "growth without end has one"


def test_repeatable_refuses_what_adds_in_an_order_of_its_own_and_puts_all_back(monkeypatch):
    import torch._inductor.config as inductor

    def put():
        torch.zeros(4).put_(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]))

    def settings():
        return (
            torch.are_deterministic_algorithms_enabled(),
            torch.backends.cudnn.benchmark,
            torch.utils.deterministic.fill_uninitialized_memory,
            os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
            inductor.deterministic,
        )

    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    before = settings()
    with pytest.raises(ZeroDivisionError), repeatable(True):
        assert settings() == (True, False, False, ":4096:8", True)
        with pytest.raises(RuntimeError, match="deterministic"):
            put()
        raise ZeroDivisionError
    assert settings() == before
    with repeatable(False):
        assert settings() == before
        put()
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    with repeatable(True):
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


def test_a_deterministic_run_is_the_same_on_the_cpu(tmp_path):
    seen = {}
    for name, wanted in (("plain", "false"), ("deterministic", "true")):
        config, run = make_run(tmp_path, name, (f"train.deterministic={wanted}", "train.steps=6", "model.dropout=0.1"))
        assert train(Job(), config, run) == "finished"
        seen[name] = [(line["step"], line["loss"], line["grad_norm"]) for line in run.metrics()]
    assert seen["plain"] == seen["deterministic"] and len(seen["plain"]) == 6


def test_a_deterministic_run_is_computed_so(tmp_path, monkeypatch):
    from robustbert.train import pretrain

    seen = []
    original = pretrain.train_step
    monkeypatch.setattr(pretrain, "train_step", lambda *a: seen.append(torch.are_deterministic_algorithms_enabled()) or original(*a))
    config, run = make_run(tmp_path, "run", ("train.deterministic=true", "train.steps=2", "optim.warmup_steps=1"))
    train(Job(), config, run)
    assert seen == [True, True] and not torch.are_deterministic_algorithms_enabled()


# A process whose communication would wait for the others when it is taken down, as NCCL's does; what fails is in its second step.
FAILING = """
import sys, time
import torch
from launcher import worker
from robustbert.device import Device
from robustbert.train import pretrain

join = torch.distributed.init_process_group
torch.distributed.init_process_group = lambda backend, **options: join("gloo", **options)
torch.distributed.destroy_process_group = lambda *group: time.sleep(600)
Device.detect = staticmethod(lambda job, precision="fp32": Device(torch.device("cpu"), sys.argv[2]))
train_step, steps = pretrain.train_step, []

def fail_in_the_second(*arguments):
    steps.append(1)
    if len(steps) == 2:
        raise ArithmeticError("the second step")
    return train_step(*arguments)

pretrain.train_step = fail_in_the_second
worker.main([sys.argv[1]])
"""


@pytest.mark.slow
def test_under_nccl_an_error_is_told_at_once_though_the_others_are_not_done(tmp_path):
    config, run = make_run(tmp_path, "run", ("train.steps=6", "checkpoint.interval=1", "data.num_workers=2"))
    root = Path(__file__).resolve().parents[1]
    environ = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    record = run.rank_error(0)

    def start(backend):
        return subprocess.Popen([sys.executable, "-c", FAILING, str(run.path), backend], env=environ)

    process = start("nccl")
    assert process.wait(120) == 1
    assert ErrorRecord.read(record).message == "ArithmeticError: the second step"
    record.unlink()
    process = start("gloo")  # whose end waits for nobody: it is taken down, and here that lasts
    try:
        log = run.rank_log(0)
        deadline = time.monotonic() + 120
        while log.read_text().count("=== rank 0") < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(8)
        assert process.poll() is None and not record.exists(), "otherwise the test shows nothing"
    finally:
        process.kill()
        process.wait()
