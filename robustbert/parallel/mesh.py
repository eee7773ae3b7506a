"""Mesh: this process' place on the three axes of sharding, and the process groups along them."""

import contextlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist

from robustbert.config import ParallelConfig
from robustbert.device import Device
from robustbert.parallel.collective_time import CollectiveTime
from robustbert.parallel.transfer import Transfer


@dataclass(frozen=True)
class Mesh:
    """The grid of processes: tensor-parallel ranks are neighbours, then data-parallel, then pipeline stages."""

    device: Device
    rank: int
    world_size: int
    tp_rank: int
    tp_size: int
    pp_rank: int
    pp_size: int
    dp_rank: int
    dp_size: int
    groups: object  # megatron.core.process_groups_config.ProcessGroupCollection
    sequence_parallel: bool
    collective_time: CollectiveTime
    transfer: Transfer

    @property
    def is_first_stage(self) -> bool:
        return self.pp_rank == 0

    @property
    def is_last_stage(self) -> bool:
        return self.pp_rank == self.pp_size - 1

    @property
    def is_main(self) -> bool:
        """The one process that writes events and metrics."""
        return self.rank == 0

    @property
    def last_stage_rank(self) -> int:
        """The global rank of this pipeline's last stage."""
        return dist.get_process_group_ranks(self.groups.pp)[-1]

    def describe(self) -> dict:
        """The layout as it stands in events and checkpoints."""
        return {
            "tensor": self.tp_size,
            "pipeline": self.pp_size,
            "data": self.dp_size,
            "sequence": self.sequence_parallel,
        }

    def sum_over_data_parallel(self, values: list[float]) -> list[float]:
        """The sums of the last stages' values, on every process. float64 inside."""
        if self.dp_size == self.pp_size == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device.torch_device)
        if self.is_last_stage and self.dp_size > 1:
            dist.all_reduce(tensor, group=self.groups.dp)
        if self.pp_size > 1:
            dist.broadcast(tensor, src=self.last_stage_rank, group=self.groups.pp)
        return tensor.tolist()

    def to_device(self, numbers: torch.Tensor) -> torch.Tensor:
        """A few numbers of the host on the device, without waiting for it."""
        if not self.device.is_cuda:
            return numbers
        return numbers.pin_memory().to(self.device.torch_device, non_blocking=True)

    def start_job_sum(self, on_device: torch.Tensor, on_host: torch.Tensor) -> Callable[[], list[float]]:
        """The sums over all processes of numbers on the device and on the host, float64 both; the result waits for them.

        Until it is called the host waits for nothing; whoever has waited for later work of the device by then does not wait again.
        """
        if self.world_size > 1:
            on_device = torch.cat([on_device, self.to_device(on_host)])
            dist.all_reduce(on_device)
        if not self.device.is_cuda:
            return (on_device if self.world_size > 1 else torch.cat([on_device, on_host])).tolist
        arrived = torch.empty_like(on_device, device="cpu", pin_memory=True).copy_(on_device, non_blocking=True)
        event = torch.cuda.current_stream().record_event()

        def read() -> list[float]:
            event.synchronize()
            return arrived.tolist() if self.world_size > 1 else [*arrived.tolist(), *on_host.tolist()]

        return read

    def broadcast_from_main(self, value):
        """The main process' value (a picklable object of ours), on every process."""
        if self.world_size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather_on_main(self, value) -> list | None:
        """Every process' value by rank, on the main process; None elsewhere."""
        if self.world_size == 1:
            return [value]
        values = [None] * self.world_size if self.is_main else None
        dist.gather_object(value, values, dst=0)
        return values

    def barrier(self) -> None:
        """Wait for every process of the job."""
        if self.world_size > 1:
            dist.barrier()


@contextlib.contextmanager
def open_mesh(device: Device, config: ParallelConfig, timeout_s: float = 1800):
    """The mesh of a job whose processes are joined (Device.joined); megatron-core is usable inside.

    ValueError where the number of processes is no multiple of tensor x pipeline.
    """
    world_size = dist.get_world_size()
    if world_size % (config.tensor * config.pipeline):
        raise ValueError(
            f"{world_size} processes are no multiple of parallel.tensor ({config.tensor}) x parallel.pipeline ({config.pipeline})"
        )
    collective_time = CollectiveTime(device.is_cuda)
    with warnings.catch_warnings(), device.megatron_context(), collective_time.closing():
        # megatron-core and torch warn about each other at every start; none of it is for the user.
        warnings.filterwarnings("ignore", module="megatron")
        warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
        warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")
        from megatron.core import parallel_state
        from megatron.core.process_groups_config import ProcessGroupCollection

        parallel_state.initialize_model_parallel(
            tensor_model_parallel_size=config.tensor,
            pipeline_model_parallel_size=config.pipeline,
            distributed_timeout_minutes=timeout_s / 60,
            create_gloo_process_groups=False,  # megatron-core gathers checkpoints over them; ours need none
        )
        try:
            yield Mesh(
                device=device,
                rank=dist.get_rank(),
                world_size=world_size,
                tp_rank=parallel_state.get_tensor_model_parallel_rank(),
                tp_size=config.tensor,
                pp_rank=parallel_state.get_pipeline_model_parallel_rank(),
                pp_size=config.pipeline,
                dp_rank=parallel_state.get_data_parallel_rank(),
                dp_size=parallel_state.get_data_parallel_world_size(),
                groups=ProcessGroupCollection.use_mpu_process_groups(),
                sequence_parallel=config.sequence,
                collective_time=collective_time,
                transfer=Transfer(device.torch_device),
            )
        finally:
            parallel_state.destroy_model_parallel()
