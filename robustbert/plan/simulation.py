"""Any process of a job of any size, built in this process by the real code: fake process groups, tensors without storage.

torch's fake process group answers for the ranks that are not there; under FakeTensorMode parameters, buffers and optimizer
state have shapes and types but no memory. A layout that cannot be built fails here as it would on the cluster.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist

from robustbert.config import RunConfig
from robustbert.device import Device
from robustbert.job import Job
from robustbert.model.build import build_model
from robustbert.optim.build import build_optimizer
from robustbert.parallel.data_parallel import build_data_parallel
from robustbert.parallel.mesh import Mesh, open_mesh


@dataclass(frozen=True)
class Position:
    """One (tensor, pipeline) position of a layout and what a process there keeps all the time, in bytes."""

    rank: int  # the first one at this position
    tensor: int
    pipeline: int
    num_parameters: int
    weight_bytes: int
    gradient_bytes: int
    optimizer_bytes: int  # main weights and moments; with the distributed optimizer the rank's share of them

    @property
    def total_bytes(self) -> int:
        return self.weight_bytes + self.gradient_bytes + self.optimizer_bytes


def simulate_positions(config: RunConfig, num_processes: int) -> Iterator[Position]:
    """Every distinct position of the layout, one after the other. ValueError where the layout cannot be built.

    config.model.vocab_size must be set.
    """
    parallel = config.parallel
    data_size = config.data_parallel_size(num_processes)
    for pipeline in range(parallel.pipeline):
        for tensor in range(parallel.tensor):
            yield simulate(config, num_processes, rank=pipeline * parallel.tensor * data_size + tensor)


def simulate(config: RunConfig, num_processes: int, rank: int) -> Position:
    """Build what process `rank` of `num_processes` would build: its stage, gradient buffers, optimizer."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with _fake_job(rank, num_processes), open_mesh(Device.detect(Job()), config.parallel) as mesh:
        with FakeTensorMode(allow_non_fake_inputs=True):
            model = build_model(
                config.model, config.parallel, mesh, config.precision, variable_lengths=config.data.has_variable_lengths
            )
            model = build_data_parallel(model, config.parallel, mesh)
            optimizer = build_optimizer(config.optim, config.parallel, model, mesh, config.precision, config.train.steps)
            return measure(model, optimizer, mesh)


def measure(model, optimizer, mesh: Mesh) -> Position:
    """Count what a built process keeps, by the storages behind its tensors; of a real process as of a simulated one."""
    parameters = list(model.parameters())
    weights = _Storages([*parameters, *(buffer.param_data for buffer in model.buffers if buffer.param_data is not None)])
    gradients = _Storages([buffer.grad_data for buffer in model.buffers])
    state = _Storages(
        [tensor for part in optimizer.owned_parts() for tensor in (part.weight, *part.moments.values())], without=weights
    )
    return Position(
        rank=mesh.rank,
        tensor=mesh.tp_rank,
        pipeline=mesh.pp_rank,
        num_parameters=sum(parameter.numel() for parameter in parameters),
        weight_bytes=weights.num_bytes,
        gradient_bytes=gradients.num_bytes,
        optimizer_bytes=state.num_bytes,
    )


class _Storages:
    """Distinct storages and their size; views of one count once."""

    def __init__(self, tensors: list[torch.Tensor], without: "_Storages | None" = None):
        known = without.keys if without else set()
        sizes = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in tensors}
        self.keys = set(sizes)
        self.num_bytes = sum(size for key, size in sizes.items() if key not in known)


@contextlib.contextmanager
def _fake_job(rank: int, num_processes: int):
    """torch.distributed as process `rank` of so many sees it; collectives return at once and move nothing."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    def gather_own(gathered: list, value, group=None) -> None:
        gathered[:] = [value] * len(gathered)  # what megatron-core gathers this way is the same on every rank

    original = dist.all_gather_object
    dist.init_process_group("fake", rank=rank, world_size=num_processes, store=FakeStore())
    dist.all_gather_object = gather_own
    try:
        yield
    finally:
        dist.all_gather_object = original
        dist.destroy_process_group()
