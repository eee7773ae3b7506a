"""Device: CUDA with NCCL where there is CUDA, otherwise the CPU with gloo. The only module that decides it, and that sets CUDA up."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass
from datetime import timedelta

import torch

from robustbert.job import Job
from robustbert.json_lines import say_error
from robustbert.memory import keep_freed_memory

PRECISION_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_BF16_SINCE = (8, 0)  # compute capability; torch.cuda.is_bf16_supported() also says True where it is emulated
# Memory that a killed process gives back: waited for until this share is free, or nothing more comes for so long.
_FREE_SHARE, _STILL_S, _MEMORY_TIMEOUT_S = 0.9, 3.0, 30.0


class DeviceError(ValueError):
    """The GPU cannot do what the configuration asks for; one line with the way out."""


@dataclass(frozen=True)
class Device:
    """Where this process computes, and by which library its collectives run."""

    torch_device: torch.device
    backend: str  # "nccl" or "gloo"

    @staticmethod
    def detect(job: Job, precision: str = "fp32") -> "Device":
        """This process' GPU (by its local rank), or the CPU. DeviceError where torch or the GPU cannot compute in `precision`.

        After a failed attempt of the job it waits until the GPU's memory is free again.
        """
        set_cuda_defaults(os.environ)
        if not torch.cuda.is_available():
            keep_freed_memory(os.environ)
            return Device(torch.device("cpu"), "gloo")
        device = torch.device("cuda", job.local_rank % torch.cuda.device_count())
        torch.cuda.set_device(device)
        name, capability = torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)
        check_architecture(name, capability, torch.cuda.get_arch_list(), torch.__version__)
        check_precision(name, capability, precision)
        if job.attempt > 1:
            wait_for_memory(torch.cuda.mem_get_info)
        return Device(device, "nccl")

    @property
    def is_cuda(self) -> bool:
        return self.torch_device.type == "cuda"

    @contextlib.contextmanager
    def joined(self, job: Job, timeout_s: float):
        """Inside, torch.distributed connects the job's processes; a collective longer than `timeout_s` fails.

        Yields the job's key-value store. After an exception under NCCL the connections stay: to take them down waits for the
        others, who wait for this process, and nobody would hear of the error before `timeout_s`. The process is about to end.
        """
        timeout = timedelta(seconds=timeout_s)
        if job.world_size > 1:
            is_master = job.rank == 0 and not job.has_store
            store = torch.distributed.TCPStore(job.master_address, job.master_port, job.world_size, is_master, timeout=timeout)
            # A store of the starter's outlives its processes: those that it restarts must not read what the former ones wrote.
            store = torch.distributed.PrefixStore(f"attempt_{job.attempt}", store) if job.has_store else store
        else:
            store = torch.distributed.HashStore()
        torch.distributed.init_process_group(
            self.backend, store=store, rank=job.rank, world_size=job.world_size, timeout=timeout
        )
        is_agreed = False
        try:
            yield store
            torch.distributed.barrier()
            is_agreed = True
        finally:
            if is_agreed or self.backend != "nccl":
                torch.distributed.destroy_process_group()

    def megatron_context(self):
        """A context in which megatron-core runs on this device."""
        if self.is_cuda:
            return contextlib.nullcontext()
        from robustbert.cpu_megatron import CudaMeansCpu

        return CudaMeansCpu()


def set_cuda_defaults(environ: MutableMapping[str, str]) -> None:
    """What CUDA and torch's allocator read when they start, unless the user has set it: so before either does."""
    # megatron-core sizes its stream priorities for a single hardware queue with tensor parallelism.
    environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")
    if "PYTORCH_CUDA_ALLOC_CONF" not in environ:  # the older name, which comes first in torch
        environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")


def check_architecture(name: str, capability: tuple[int, int], architectures: list[str], torch_version: str) -> None:
    """DeviceError where torch holds no code for the GPU. architectures: torch.cuda.get_arch_list(), such as sm_80, compute_120 (PTX)."""
    if not architectures or any(_runs_on(architecture, capability) for architecture in architectures):
        return
    built = [_capability(architecture) for architecture in architectures]
    way_out = "install a newer torch"
    if capability < min(built):
        way_out = "install one that still is: torch 2.9 or 2.10 for CUDA 12.6 or 12.8"
        way_out = way_out if capability >= (7, 0) else "use another GPU, or the CPU: CUDA_VISIBLE_DEVICES="
    shown = " ".join(architectures)
    raise DeviceError(
        f"{name} has compute capability {_dotted(capability)}, and torch {torch_version} is not built for it (only for {shown}); {way_out}"
    )


def check_precision(name: str, capability: tuple[int, int], precision: str) -> None:
    """DeviceError where the GPU has no arithmetic of this precision: torch would emulate it, slowly."""
    if precision == "bf16" and capability < _BF16_SINCE:
        raise DeviceError(
            f"precision: bf16 needs a GPU of compute capability {_dotted(_BF16_SINCE)} or above, {name} has {_dotted(capability)}; "
            "use precision: fp16"
        )


def wait_for_memory(
    free_and_total: Callable[[], tuple[int, int]],
    timeout_s: float = _MEMORY_TIMEOUT_S,
    say: Callable[[str], None] = say_error,
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], float] = time.monotonic,
) -> None:
    """Return once the GPU's memory is free: the driver takes seconds to give back what a killed process held.

    free_and_total: bytes (torch.cuda.mem_get_info). Where somebody else keeps memory it returns when no more becomes free.
    """
    started_at = grown_at = now()
    free, total = free_and_total()
    while free < _FREE_SHARE * total and now() - grown_at < _STILL_S and now() - started_at < timeout_s:
        sleep(0.5)
        former, (free, total) = free, free_and_total()
        grown_at = now() if free > former else grown_at
    if (waited_s := now() - started_at) > 0.1:
        say(f"waited {waited_s:.1f} s for the GPU memory of the former attempt: {free / 2**30:.1f} of {total / 2**30:.1f} GiB are free")


@contextlib.contextmanager
def repeatable(is_wanted: bool) -> Iterator[None]:
    """Inside, the same inputs give the same bits on CUDA as well: deterministic kernels, and a RuntimeError of torch where there is none.

    Enter it before the first matrix product: cuBLAS reads its workspace then. TF32 stays off, as torch has it.
    """
    if not is_wanted:
        yield
        return
    import torch._inductor.config as inductor  # takes a second

    deterministic = torch.utils.deterministic
    with contextlib.ExitStack() as restored:
        restored.callback(
            torch.use_deterministic_algorithms,
            torch.are_deterministic_algorithms_enabled(),
            warn_only=torch.is_deterministic_algorithms_warn_only_enabled(),
        )
        restored.callback(setattr, torch.backends.cudnn, "benchmark", torch.backends.cudnn.benchmark)
        restored.callback(setattr, deterministic, "fill_uninitialized_memory", deterministic.fill_uninitialized_memory)
        if "CUBLAS_WORKSPACE_CONFIG" not in os.environ:
            os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
            restored.callback(os.environ.pop, "CUBLAS_WORKSPACE_CONFIG", None)
        if hasattr(inductor, "deterministic"):
            restored.callback(setattr, inductor, "deterministic", inductor.deterministic)
            inductor.deterministic = True
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
        deterministic.fill_uninitialized_memory = False  # it costs a write of every new tensor, and nothing here reads one before
        yield


def _runs_on(architecture: str, capability: tuple[int, int]) -> bool:
    """Machine code runs on later GPUs of its generation, PTX on all later ones, code for an exact one (sm_90a) on that one."""
    built = _capability(architecture)
    if architecture.endswith("a"):
        return built == capability
    if architecture.startswith("compute_"):
        return built <= capability
    return built[0] == capability[0] and built[1] <= capability[1]


def _capability(architecture: str) -> tuple[int, int]:
    digits = "".join(letter for letter in architecture.partition("_")[2] if letter.isdigit())
    return int(digits[:-1]), int(digits[-1])


def _dotted(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))
