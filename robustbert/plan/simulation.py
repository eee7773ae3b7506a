"""Any process of a job of any size, built in this process by the real code: fake process groups, tensors without storage.

torch's fake process group answers for the ranks that are not there; on a SimulatedDevice parameters, buffers and optimizer
state have shapes and types but no memory. A layout that cannot be built fails here as it would on the cluster.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist

from robustbert.config import RunConfig
from robustbert.data.batches import Batch
from robustbert.device import PRECISION_DTYPES
from robustbert.model.attention import SDPA, choose_kernel
from robustbert.model.build import build_model
from robustbert.optim.build import build_optimizer
from robustbert.parallel.data_parallel import build_data_parallel
from robustbert.parallel.mesh import Mesh, open_mesh
from robustbert.parallel.pipeline import run_micro_batches
from robustbert.parallel.random import seed_dropout
from robustbert.plan.compiled import simulated_fusion
from robustbert.plan.simulated_device import SimulatedDevice
from robustbert.plan.trace import StepTrace, Work


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
    for stage in range(config.parallel.pipeline):
        for tensor in range(config.parallel.tensor):
            yield simulate(config, num_processes, rank=first_rank_of_stage(config, num_processes, stage) + tensor)


def simulate(config: RunConfig, num_processes: int, rank: int) -> Position:
    """Build what process `rank` of `num_processes` would build: its stage, gradient buffers, optimizer."""
    with simulated_process(config, num_processes, rank) as (mesh, model, optimizer):
        return measure(model, optimizer, mesh)


@contextlib.contextmanager
def simulated_process(config: RunConfig, num_processes: int, rank: int, device: SimulatedDevice | None = None):
    """(mesh, model, optimizer) of process `rank` of `num_processes`, by default on a GPU; nothing has memory."""
    device = device or SimulatedDevice.of("cuda")
    with fake_job(rank, num_processes), open_mesh(device, config.parallel) as mesh, device.without_memory():
        model = build_model(
            dataclasses.replace(config.model, compile=False),
            config.parallel,
            mesh,
            config.precision,
            # Made-up micro-batches are equally wide, so that stages need not tell each other sizes, which no one would answer.
            variable_lengths=False,
            attention_kernel=attention_kernel(config, device),
            fusion=simulated_fusion() if compiles_layers(config, device) else None,
        )
        model = build_data_parallel(model, config.parallel, mesh)
        optimizer = build_optimizer(config.optim, config.parallel, model, mesh, config.precision, config.train.steps)
        yield mesh, model, optimizer


def compiles_layers(config: RunConfig, device: SimulatedDevice) -> bool:
    """Whether layers are simulated as compiled ones: if the run compiles them whole, and its attention has a variable-length kernel.

    With tensor parallelism what is compiled is small, and counted as it is; so is a layer whose attention needs a mask.
    """
    is_whole = device.is_cuda and config.model.compile is not False and config.parallel.tensor == 1
    return is_whole and attention_kernel(config, device) != SDPA


def attention_kernel(config: RunConfig, device: SimulatedDevice) -> str:
    """The kernel that the run would take on such a device, of which it is believed that it works."""
    head_size = config.model.hidden_size // config.model.num_attention_heads
    with device.megatron_context():
        return choose_kernel(device.torch_device, PRECISION_DTYPES[config.precision], head_size, is_sound=lambda *kernel: True)


@dataclass(frozen=True)
class StepRecord:
    """What the forward and backward passes of a step are made of on one process, as its operators were seen."""

    position: Position
    activation_bytes: int  # the peak of what is made and freed again during the step
    micro_batches: Work  # of all that ran
    num_micro_batches: int
    end_of_step: Work  # after the last micro-batch, the weights' update left out
    axes: dict[tuple[int, ...], str]  # which axis of the layout a group of ranks lies on


def first_rank_of_stage(config: RunConfig, num_processes: int, stage: int) -> int:
    """The global rank that is the first of a pipeline stage."""
    return stage * config.parallel.tensor * config.data_parallel_size(num_processes)


def simulate_step(config: RunConfig, num_processes: int, rank: int, kernels: str = "cuda") -> StepRecord:
    """Let process `rank` of `num_processes` train for a step, without memory and without the others.

    kernels: whose operators run, "cuda" or "cpu". As many micro-batches run as fill the pipeline; the data is made up, every
    sample at its full length.
    """
    with simulated_process(config, num_processes, rank, SimulatedDevice.of(kernels)) as (mesh, model, optimizer):
        position = measure(model, optimizer, mesh)
        # The first micro-batch's gradients are copied, the next ones' added by way of buffers that all later ones find there.
        return trace_step(config, mesh, model, position, min(config.num_micro_batches(num_processes), mesh.pp_size + 2))


def trace_step(config: RunConfig, mesh: Mesh, model, position: Position, num_micro_batches: int) -> StepRecord:
    """Run the forward and backward passes of so many made-up micro-batches on a built process; what they are made of."""
    trace, whole = StepTrace(), Work()
    finalize = model.config.finalize_model_grads_func

    def finalize_traced(*args, **kwargs):
        nonlocal whole
        whole, trace.work = trace.work, Work()
        finalize(*args, **kwargs)

    batches = [made_up_batch(config) for _ in range(num_micro_batches)]
    model.config.finalize_model_grads_func = finalize_traced
    model.train()
    try:
        with trace:
            run_micro_batches(
                model,
                batches,
                mesh,
                before_micro_batch=lambda number: seed_dropout(config.run.seed, 0, number, mesh),
            )
            if config.parallel.distributed_optimizer:
                model.start_param_sync(force_sync=True)  # the updated weights
    finally:
        model.config.finalize_model_grads_func = finalize
    axes = _axes(mesh)
    # The gradients' reduction starts behind the last backward pass, before the others are finished.
    once = [collective for collective in whole.collectives if axes.get(collective.ranks) == "data"]
    repeated = Work(whole.operators, [collective for collective in whole.collectives if collective not in once])
    end = Work(trace.work.operators, [*once, *trace.work.collectives])
    return StepRecord(position, trace.peak_bytes, repeated, num_micro_batches, end, axes)


def made_up_batch(config: RunConfig) -> Batch:
    """A micro-batch of the run's shapes: full samples, masked positions as many as the configuration wants."""
    rows, length = config.train.micro_batch_size, config.data.sequence_length
    tokens_BS = torch.full((rows, length), 5)
    positions_M = torch.arange(int(rows * length * config.data.masking.probability))
    pairs = ()
    if config.data.has_pairs:
        pairs = torch.zeros_like(tokens_BS), torch.ones(rows, dtype=torch.int64)
    return Batch(tokens_BS, None, positions_M, torch.full_like(positions_M, 5), tokens_BS.numel(), *pairs)


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
def fake_job(rank: int, num_processes: int):
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


def _axes(mesh: Mesh) -> dict[tuple[int, ...], str]:
    groups = {"pipeline": mesh.groups.pp, "embedding": mesh.groups.embd, "data": mesh.groups.dp, "tensor": mesh.groups.tp}
    return {tuple(dist.get_process_group_ranks(group)): axis for axis, group in groups.items() if group is not None}
