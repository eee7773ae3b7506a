"""What only a GPU can show: the device, losses beside the CPU's, kernels, checkpoints between devices, a run of the launcher."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.gpu.attention_reference import KERNELS, TOLERANCE, compare
from benchmarks.gpu.numerics import ALL_STEPS_TOLERANCE, FIRST_STEP_TOLERANCE, differences
from benchmarks.gpu.session import open_session
from benchmarks.gpu.train_job import TrainSpec, train_in_processes
from robustbert.checkpoint.manifest import committed_checkpoints
from robustbert.device import Device
from robustbert.job import Job
from robustbert.run_directory import RunDirectory
from tests.train.small_run import make_run

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]
ROOT = Path(__file__).resolve().parents[2]
PLAIN = ("model.dropout=0.0", "model.attention_dropout=0.0", "data.valid_fraction=0.1")
STEPS = 20


def spec_of(run: RunDirectory, **changes) -> TrainSpec:
    return dataclasses.replace(TrainSpec(str(run.config_file), [], str(run.path), STEPS), **changes)


def losses_of(spec: TrainSpec, on_cpu: bool = False) -> list[float]:
    return [line["loss"] for line in train_in_processes(spec, 120, on_cpu=on_cpu)]


def copied(run: RunDirectory, name: str) -> RunDirectory:
    shutil.copytree(run.path, run.path.with_name(name))
    return RunDirectory(run.path.with_name(name))


def test_a_process_computes_on_the_gpu_of_its_local_rank():
    device = Device.detect(Job(local_rank=torch.cuda.device_count() - 1))
    assert device.is_cuda and device.backend == "nccl"
    assert device.torch_device.index == torch.cuda.current_device() == torch.cuda.device_count() - 1


def test_bf16_is_refused_by_a_gpu_that_would_emulate_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (7, 0))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_70"])
    with pytest.raises(ValueError, match="bf16 .*7.0.*precision: fp16"):
        Device.detect(Job(), "bf16")
    assert Device.detect(Job(), "fp16").is_cuda


def test_twenty_steps_in_fp32_are_those_of_the_cpu(tmp_path):
    _, run = make_run(tmp_path, "cpu", PLAIN)
    on_gpu = losses_of(spec_of(copied(run, "gpu")))
    found = differences(on_gpu, losses_of(spec_of(run), on_cpu=True))
    assert len(found) == STEPS
    assert found[0] <= FIRST_STEP_TOLERANCE and max(found) <= ALL_STEPS_TOLERANCE, found


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_the_loss_is_that_of_hugging_face(tmp_path, precision):
    """The first step's loss, from the initial weights that `tools/convert` has read and transformers computes with, on the CPU in fp32."""
    config, run = make_run(tmp_path, "loss", (*PLAIN, f"precision={precision}"))
    with open_session(config, run) as session:
        session.checkpoints.save()
        batches = session.batches.micro_batches(0)
        session.step()
        session.checkpoints.finish()
        (loss,) = session.losses()
    first = committed_checkpoints(run.checkpoints)[0]
    command = [
        sys.executable,
        str(ROOT / "tools" / "convert"),
        str(first),
        "--to",
        "huggingface",
        "--output",
        str(tmp_path / "model"),
    ]
    subprocess.run(command, check=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""})
    tolerance = {"fp32": 1e-5, "bf16": 1e-2, "fp16": 2e-3}[precision]
    assert loss == pytest.approx(hugging_face_loss(tmp_path / "model", batches), rel=tolerance)


def hugging_face_loss(model_folder: Path, batches: list) -> float:
    """Nats a masked token over all micro-batches, as transformers has it."""
    from transformers import RobertaForMaskedLM

    from benchmarks.gpu.peers import peer_batch

    model = RobertaForMaskedLM.from_pretrained(model_folder).eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for batch in batches:
            inputs = peer_batch(batch)
            num_masked = int((inputs["labels"] != -100).sum())
            total += float(model(**inputs).loss) * num_masked
            count += num_masked
    return total / count


@pytest.mark.parametrize(("name", "dtype"), [(name, dtype) for name, (_, dtypes) in KERNELS.items() for dtype in dtypes])
def test_variable_length_attention_is_that_of_plain_products(name, dtype):
    if name == "flash" and torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("the flash kernel needs compute capability 8.0")
    difference = compare(KERNELS[name][0], dtype, "cuda", [512, 497, 15, 512, 1, 511])
    assert max(difference.values()) <= TOLERANCE[dtype], difference


@pytest.mark.parametrize("saved_on_cpu", [False, True])
def test_a_checkpoint_goes_from_one_device_to_the_other(tmp_path, saved_on_cpu):
    _, run = make_run(tmp_path, "saved", PLAIN)
    train_in_processes(spec_of(run, steps=10, save=True), 120, on_cpu=saved_on_cpu)
    continued = {
        on_cpu: losses_of(spec_of(copied(run, f"on_cpu_{on_cpu}"), resume=True), on_cpu=on_cpu)[10:] for on_cpu in (False, True)
    }
    assert len(continued[True]) == 10 and max(differences(continued[False], continued[True])) <= 1e-5


def test_an_fp16_overflow_is_skipped_and_halves_the_scale(tmp_path):
    config, run = make_run(tmp_path, "overflow", ("precision=fp16", f"optim.initial_loss_scale={2.0**60}"))
    with open_session(config, run) as session:
        before = [parameter.detach().clone() for parameter in session.model.parameters()]
        session.step()
        assert session.state.skipped_steps == 1
        assert all(torch.equal(old, new) for old, new in zip(before, session.model.parameters()))
        assert session.optimizer.megatron.get_loss_scale() == 2.0**59


def test_the_launcher_trains_on_the_gpu(tmp_path):
    _, run = make_run(tmp_path, "made", ("precision=fp32",))
    prepared = f"data={json.dumps({'tokenizer': str(run.data / 'tokenizer'), 'train': [{'path': str(run.data / 'train_0000')}]})}"
    words = [str(run.config_file), f"run.dir={tmp_path / 'runs'}", "run.name=job", "cluster.processes_per_node=1", prepared]
    command = [sys.executable, "-m", "tests.faults.launch", "submit", *words, "monitoring.prometheus_port=null"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    finished = [event for event in RunDirectory(tmp_path / "runs" / "job").events() if event["event"] == "finished"]
    assert finished and finished[0]["step"] == STEPS
