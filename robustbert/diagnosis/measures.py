"""Measurements of a node and its devices: products, memory, disk, the optimizer's two implementations, versions."""

import importlib.metadata
import os
import platform
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

from robustbert.config import ClusterConfig
from robustbert.device import PRECISION_DTYPES, Device, check_precision
from robustbert.job import Job

_ROUNDS = 5
_DISK_ROUNDS = 3
_MATRIX_SIZE = {"cuda": 4096, "cpu": 1024}
_MOST_DIFFERENCE = 1e-3  # of two optimizers, as a share of the update
_DRIVER_FILE = Path("/proc/driver/nvidia/version")
_PACKAGES = ("torch", "megatron-core", "mpi4py", "numpy")


def find_devices() -> list[Device]:
    """Every GPU of this node, or its processor."""
    return [Device.detect(Job(local_rank=number)) for number in range(max(1, torch.cuda.device_count()))]


def measure_device(device: Device, precision: str, num_bytes: int) -> dict:
    """Name, memory and rates of one device. DeviceError where it has no such precision."""
    if device.is_cuda:
        torch.cuda.set_device(device.torch_device)
        properties = torch.cuda.get_device_properties(device.torch_device)
        name, memory = properties.name, properties.total_memory
        check_precision(name, (properties.major, properties.minor), precision)
    else:
        name, memory = platform.processor() or platform.machine(), psutil.virtual_memory().total
    return {
        "name": name,
        "memory_bytes": memory,
        "matmul_flops_per_s": matmul_flops_per_s(device, precision, _MATRIX_SIZE[device.torch_device.type]),
        "memory_bytes_per_s": memory_bytes_per_s(device, num_bytes),
    }


def slowest_rates(devices: list[dict]) -> dict[str, float]:
    """Of each rate the slowest device's: the others wait for it."""
    names = ("matmul_flops_per_s", "memory_bytes_per_s") if devices else ()
    return {name: min(device[name] for device in devices) for name in names}


def find_lack_of_devices(devices: list[Device], cluster: ClusterConfig) -> str | None:
    """What is wrong where the run counts on GPUs that are not there."""
    num_gpus = sum(device.is_cuda for device in devices)
    if cluster.gpus_per_node and num_gpus < cluster.gpus_per_node:
        return f"{num_gpus} GPUs are seen, cluster.gpus_per_node is {cluster.gpus_per_node}"
    if num_gpus and num_gpus < cluster.processes_per_node:
        return f"{num_gpus} GPUs are seen, cluster.processes_per_node is {cluster.processes_per_node}: processes would share one"
    return None


def matmul_flops_per_s(device: Device, precision: str, size: int) -> float:
    """Operations a second of a product of two size x size matrices; the median of some rounds."""
    dtype = PRECISION_DTYPES[precision if device.is_cuda else "fp32"]
    left, right = (torch.randn(size, size, device=device.torch_device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / _median_seconds(device, lambda: left @ right)


def memory_bytes_per_s(device: Device, num_bytes: int) -> float:
    """Bytes read and written a second by a copy in the device's memory."""
    source = torch.zeros(num_bytes // 4, device=device.torch_device)
    target = torch.empty_like(source)
    return 2 * num_bytes / _median_seconds(device, lambda: target.copy_(source))


def disk_bytes_per_s(folder: Path, num_bytes: int) -> float:
    """Bytes a second written to a new file in the folder and forced to the disk, median of some files; all removed. OSError."""
    return statistics.median(_write_rate(folder, num_bytes) for _ in range(_DISK_ROUNDS))


def _write_rate(folder: Path, num_bytes: int) -> float:
    path = folder / f".write_rate_{os.uname().nodename}_{os.getpid()}"
    block = os.urandom(1 << 20)
    try:
        started = time.perf_counter()
        with open(path, "wb") as file:
            for _ in range(max(1, num_bytes >> 20)):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        return max(1, num_bytes >> 20) * len(block) / (time.perf_counter() - started)
    finally:
        path.unlink(missing_ok=True)


def optimizers_differ_by(first: type, second: type, device: Device, num_steps: int = 5) -> float:
    """The largest difference of the weights after some steps of two optimizers on the same gradients, as a share of the update.

    The classes are of one algorithm (Adam, LAMB), in Apex's form. One group decays, the other (`wd_mult` 0) does not.
    """
    updates = []
    for kind in (first, second):
        generator = torch.Generator().manual_seed(1)
        start = [torch.randn(shape, generator=generator) for shape in ((64, 48), (300, 17), (48,))]
        weights = [torch.nn.Parameter(tensor.to(device.torch_device, copy=True)) for tensor in start]
        groups = [
            {"params": weights[:2], "weight_decay": 0.01, "wd_mult": 1.0},
            {"params": weights[2:], "weight_decay": 0.0, "wd_mult": 0.0},
        ]
        optimizer = kind(groups, lr=1e-2, betas=(0.9, 0.98), eps=1e-6)
        for _ in range(num_steps):
            for weight in weights:
                weight.grad = torch.randn(weight.shape, generator=generator).to(device.torch_device)
            optimizer.step()
        updates.append(torch.cat([(w.detach().cpu() - s).flatten() for w, s in zip(weights, start)]))
    return float((updates[0] - updates[1]).abs().max() / updates[1].abs().max())


def compare_apex(pairs: dict[str, tuple[type | None, type]], device: Device) -> dict[str, str | None]:
    """{"text": which optimizers a run would use and whether they agree, "fault": what is wrong with Apex's}.

    pairs: by name, Apex's class (None where it is not there) and ours.
    """
    pairs = {name: classes for name, classes in pairs.items() if classes[0] is not None}
    if not pairs:
        return {"text": "Apex is not there, torch's kernels are used", "fault": None}
    if not device.is_cuda:
        return {"text": "Apex is there, and no GPU to compare it on", "fault": None}
    torch.cuda.set_device(device.torch_device)
    verdicts = [judge_optimizer(name, apex, ours, device) for name, (apex, ours) in pairs.items()]
    faults = [verdict["fault"] for verdict in verdicts if verdict["fault"]]
    return {"text": "; ".join(verdict["text"] for verdict in verdicts), "fault": "; ".join(faults) or None}


def judge_optimizer(name: str, apex: type, ours: type, device: Device) -> dict[str, str | None]:
    """The same for two given classes."""
    difference = optimizers_differ_by(apex, ours, device)
    if not difference <= _MOST_DIFFERENCE:  # also where it is not a number
        fault = f"Apex's {name} gives other weights than ours: {difference:.1e} of the update"
        return {"text": fault, "fault": fault}
    return {"text": f"Apex's {name} equals ours to {difference:.1e} of the update", "fault": None}


def versions(device: Device) -> dict[str, str]:
    """Of everything that has to be alike on all nodes; `not there` where it is not."""
    found = {"python": platform.python_version()}
    for package in (*_PACKAGES, "apex"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not there"
    if device.is_cuda:
        found["cuda"] = str(torch.version.cuda)
        found["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
        found["driver"] = _driver_version()
        found["gpu"] = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return found


def _driver_version() -> str:
    words = _DRIVER_FILE.read_text().split() if _DRIVER_FILE.exists() else []
    return next((word for word in words if re.fullmatch(r"\d+\.\d+(\.\d+)?", word)), "not there")


def free_bytes(folder: Path) -> dict[str, int]:
    """Free memory of the host, of the device, and free space of the folder's file system."""
    found = {"host_memory": psutil.virtual_memory().available, "disk": psutil.disk_usage(str(folder)).free}
    if torch.cuda.is_available():
        found["device_memory"] = torch.cuda.mem_get_info()[0]
    return found


def all_reduce_bytes_per_s(device: Device, num_bytes: int) -> float:
    """Bus bandwidth of an all-reduce over the joined job: 2 (n - 1) / n messages a process, over the time. A collective call."""
    message = torch.zeros(num_bytes // 4, device=device.torch_device)
    ranks = torch.distributed.get_world_size()
    seconds = _median_seconds(device, lambda: torch.distributed.all_reduce(message))
    return 2 * (ranks - 1) / ranks * num_bytes / seconds


def _median_seconds(device: Device, run: Callable[[], object]) -> float:
    times = []
    for _ in range(_ROUNDS + 1):
        started = time.perf_counter()
        run()
        if device.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])
