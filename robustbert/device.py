"""Device: CUDA with NCCL where there is CUDA, otherwise the CPU with gloo. The only module that decides it."""

import contextlib
import os
from dataclasses import dataclass
from datetime import timedelta

import torch

from robustbert.job import Job

PRECISION_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Device:
    """Where this process computes, and by which library its collectives run."""

    torch_device: torch.device
    backend: str  # "nccl" or "gloo"

    @staticmethod
    def detect(job: Job) -> "Device":
        """This process' GPU (by its local rank), or the CPU."""
        if torch.cuda.is_available():
            device = torch.device("cuda", job.local_rank % torch.cuda.device_count())
            torch.cuda.set_device(device)
            return Device(device, "nccl")
        return Device(torch.device("cpu"), "gloo")

    @property
    def is_cuda(self) -> bool:
        return self.torch_device.type == "cuda"

    @contextlib.contextmanager
    def joined(self, job: Job, timeout_s: float):
        """Inside, torch.distributed connects the job's processes; a collective longer than `timeout_s` fails.

        Yields the job's key-value store.
        """
        # megatron-core sizes its stream priorities for a single hardware queue with tensor parallelism.
        os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")
        timeout = timedelta(seconds=timeout_s)
        if job.world_size > 1:
            store = torch.distributed.TCPStore(
                job.master_address, job.master_port, job.world_size, is_master=job.rank == 0, timeout=timeout
            )
        else:
            store = torch.distributed.HashStore()
        torch.distributed.init_process_group(
            self.backend, store=store, rank=job.rank, world_size=job.world_size, timeout=timeout
        )
        try:
            yield store
            torch.distributed.barrier()
        finally:
            torch.distributed.destroy_process_group()

    def megatron_context(self):
        """A context in which megatron-core runs on this device."""
        if self.is_cuda:
            return contextlib.nullcontext()
        from robustbert.cpu_megatron import CudaMeansCpu

        return CudaMeansCpu()
