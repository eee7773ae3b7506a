"""Measurements of one process' device and node: products, memory, disk, the optimizer's two implementations, versions."""

import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

from robustbert.device import PRECISION_DTYPES, Device

_ROUNDS = 5
_PACKAGES = ("torch", "megatron-core", "mpi4py", "numpy")


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
    """Bytes a second written to a new file in the folder and forced to the disk; the file is removed. OSError."""
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
    """The largest difference of the weights after some steps of two Adam classes on the same gradients, as a share of the update."""
    updates = []
    for kind in (first, second):
        generator = torch.Generator().manual_seed(1)
        start = [torch.randn(shape, generator=generator) for shape in ((64, 48), (48,))]
        weights = [torch.nn.Parameter(tensor.to(device.torch_device, copy=True)) for tensor in start]
        optimizer = kind(weights, lr=1e-2, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.01)
        for _ in range(num_steps):
            for weight in weights:
                weight.grad = torch.randn(weight.shape, generator=generator).to(device.torch_device)
            optimizer.step()
        updates.append(torch.cat([(w.detach().cpu() - s).flatten() for w, s in zip(weights, start)]))
    return float((updates[0] - updates[1]).abs().max() / updates[1].abs().max())


def find_apex_adam() -> type | None:
    """Apex's FusedAdam, None where Apex is not there."""
    try:
        from apex.optimizers import FusedAdam
    except ImportError:
        return None
    return FusedAdam


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
        found["gpu"] = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return found


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
