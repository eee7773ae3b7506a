"""The time of a step, from what its operators and collectives were seen to do and what a kind of machine can do.

An operator takes the longer of its products at the rate of large ones and its bytes at the memory's rate; a host that
starts operators one by one sets a floor. A collective takes its bytes over the narrowest link of its ring, and latencies.
These are projections: nothing here has been measured on the hardware that it speaks of.
"""

import math
from collections import Counter
from dataclasses import astuple, dataclass

from robustbert.config import RunConfig
from robustbert.hardware import HardwareProfile
from robustbert.plan.simulation import Position, StepRecord
from robustbert.plan.trace import Collective, Work

# Bytes on the wire of the process that has most of them, for a message of one byte, among n processes.
_WIRE = {
    "all_reduce": lambda n: 2 * (n - 1) / n,
    "all_gather": lambda n: (n - 1) / n,
    "reduce_scatter": lambda n: (n - 1) / n,
    "all_to_all": lambda n: (n - 1) / n,
    "broadcast": lambda n: 1.0,
    "reduce": lambda n: 1.0,
    "gather": lambda n: (n - 1) / n,  # into the root
    "scatter": lambda n: (n - 1) / n,  # out of it
    "send": lambda n: 1.0,
    "receive": lambda n: 0.0,
    "barrier": lambda n: 0.0,
}
_REDUCTIONS, _GATHERINGS = ("all_reduce", "reduce_scatter"), ("all_gather",)

# Bytes moved for an owned parameter. Adam, one kernel: gradient, weight and two moments read, weight and moments written.
# LAMB, a kernel an operation: the moments 32, the denominator 24, the update 32, two norms 8, the trust ratio and the weight 20.
_UPDATE_BYTES = {"adam": 28, "lamb": 116}
_BACKWARD_SHARE = 2 / 3


@dataclass(frozen=True)
class Traffic:
    """A step's collectives of one kind on one axis, of one process."""

    axis: str
    kind: str
    group_size: int
    calls: int
    message_bytes: int
    wire_bytes: float  # out of the process
    crosses_nodes: bool
    seconds: float


@dataclass(frozen=True)
class StepParts:
    """What a step of one process costs. Seconds and operations of one micro-batch, then of what comes once a step; bytes."""

    kernels_s: float  # operators, each as long as the device needs for it
    starts_s: float  # the host's time to start them
    tensor_s: float  # collectives within a layer: nothing hides them
    send_s: float  # to the next pipeline stages and back
    flops: float  # really done: with what recomputation and every tensor-parallel rank repeats
    reduction_s: float  # of the gradients over data parallelism; it hides behind the last backward pass
    gathering_s: float  # of the updated weights, with the distributed optimizer
    embedding_s: float  # the tied embedding's two copies, and other small things
    optimizer_s: float
    kept_bytes: float  # weights, gradients, optimizer
    activation_bytes: float  # the peak

    @property
    def compute_s(self) -> float:
        """The host runs ahead of the device, or the device waits for the host."""
        return max(self.kernels_s, self.starts_s)

    def __add__(self, other: "StepParts") -> "StepParts":
        return StepParts(*(mine + others for mine, others in zip(astuple(self), astuple(other))))

    def __mul__(self, factor: float) -> "StepParts":
        return StepParts(*(factor * value for value in astuple(self)))


@dataclass(frozen=True)
class StepTime:
    """Seconds of a step and its parts, whose sum is `total_s`."""

    compute_s: float  # all micro-batches of a process
    tensor_s: float
    pipeline_s: float  # sends between stages, and the bubble: 1F1B waits for stages - 1 micro-batches
    data_s: float  # what the last backward pass does not hide of the reduction, and the weights' gathering
    optimizer_s: float

    @property
    def total_s(self) -> float:
        return sum(astuple(self))


def step_time(parts: StepParts, num_micro_batches: int, num_stages: int) -> StepTime:
    """The parts put together, as if every stage were like this one."""
    bubble = (num_stages - 1) * (parts.compute_s + parts.tensor_s)
    return StepTime(
        compute_s=parts.compute_s * num_micro_batches,
        tensor_s=parts.tensor_s * num_micro_batches,
        pipeline_s=parts.send_s * num_micro_batches + bubble,
        data_s=max(0.0, parts.reduction_s - _BACKWARD_SHARE * parts.compute_s) + parts.gathering_s + parts.embedding_s,
        optimizer_s=parts.optimizer_s,
    )


def traffic_of(record: StepRecord, num_micro_batches: int, hardware: HardwareProfile, per_node: int) -> list[Traffic]:
    """Every kind of collective of a step of so many micro-batches, largest first; per_node: processes of the run on a node."""
    parts: Counter[Collective] = Counter()
    repeats = num_micro_batches / record.num_micro_batches
    for work, times in ((record.micro_batches, repeats), (record.end_of_step, 1)):
        for collective in work.collectives:
            parts[collective] += times
    merged: dict[tuple, list] = {}
    for collective, calls in parts.items():
        key = (axis_of(collective, record), collective.kind, collective.ranks)
        entry = merged.setdefault(key, [0, 0, 0.0, 0.0])
        entry[0] += calls
        entry[1] += calls * collective.num_bytes
        entry[2] += calls * collective.num_bytes * _WIRE[collective.kind](len(collective.ranks))
        entry[3] += calls * collective_seconds(collective, record.position.rank, hardware, per_node)
    found = [
        Traffic(axis, kind, len(ranks), round(entry[0]), round(entry[1]), entry[2], _crosses_nodes(ranks, per_node), entry[3])
        for (axis, kind, ranks), entry in merged.items()
    ]
    return sorted(found, key=lambda traffic: -traffic.wire_bytes)


def axis_of(collective: Collective, record: StepRecord) -> str:
    """The axis of the layout along which a collective runs; "job" for the whole of it."""
    axis = record.axes.get(collective.ranks, "job")
    return "pipeline" if collective.kind in ("send", "receive") else axis


def collective_seconds(collective: Collective, rank: int, hardware: HardwareProfile, per_node: int) -> float:
    """By a ring over all of a node's links; a group that has r of a node's processes has r shares of its network."""
    size = len(collective.ranks)
    wire = collective.num_bytes * _WIRE[collective.kind](size)
    if not _crosses_nodes(collective.ranks, per_node):
        return wire / hardware.link_bytes_per_s + math.ceil(math.log2(size)) * hardware.link_latency_s
    beside = sum(other // per_node == rank // per_node for other in collective.ranks)
    rate = min(hardware.link_bytes_per_s, hardware.network_bytes_per_s * beside / per_node)
    return wire / rate + math.ceil(math.log2(size)) * hardware.network_latency_s


def compute_seconds(work: Work, precision: str, hardware: HardwareProfile) -> float:
    """All operators of the work, one after the other, started by a host that may be slower than they are."""
    return max(kernel_seconds(work, precision, hardware), len(work.operators) * hardware.operator_s)


def kernel_seconds(work: Work, precision: str, hardware: HardwareProfile) -> float:
    """All operators of the work, each the longer of its products and its bytes."""
    sixteen = precision if precision != "fp32" else "fp16"
    rates = {True: hardware.matmul_flops.of(sixteen), False: hardware.matmul_flops.fp32}
    return sum(max(flops / rates[is_16_bit], moved / hardware.memory_bytes_per_s) for flops, moved, is_16_bit in work.operators)


def step_parts(record: StepRecord, config: RunConfig, num_processes: int, hardware: HardwareProfile) -> StepParts:
    """The costs of the process that was recorded."""
    traffic = traffic_of(record, 1, hardware, config.cluster.processes_per_node)

    def seconds(*axes: str, kinds: tuple[str, ...] = tuple(_WIRE)) -> float:
        return sum(part.seconds for part in traffic if part.axis in axes and part.kind in kinds)

    owned = owned_parameters(record.position, config, num_processes)
    once = compute_seconds(record.end_of_step, config.precision, hardware)
    return StepParts(
        kernels_s=kernel_seconds(record.micro_batches, config.precision, hardware) / record.num_micro_batches,
        starts_s=len(record.micro_batches.operators) * hardware.operator_s / record.num_micro_batches,
        tensor_s=seconds("tensor"),
        send_s=seconds("pipeline"),
        flops=record.micro_batches.flops / record.num_micro_batches,
        reduction_s=seconds("data", kinds=_REDUCTIONS),
        gathering_s=seconds("data", kinds=_GATHERINGS),
        embedding_s=seconds("embedding", "job") + seconds("data", kinds=tuple(set(_WIRE) - {*_REDUCTIONS, *_GATHERINGS})),
        optimizer_s=once + owned * _UPDATE_BYTES[config.optim.name] / hardware.memory_bytes_per_s,
        kept_bytes=record.position.total_bytes,
        activation_bytes=record.activation_bytes,
    )


def owned_parameters(position: Position, config: RunConfig, num_processes: int) -> float:
    """Parameters that a process updates: with the distributed optimizer its share of them."""
    shares = config.data_parallel_size(num_processes) if config.parallel.distributed_optimizer else 1
    return position.num_parameters / shares


def _crosses_nodes(ranks: tuple[int, ...], per_node: int) -> bool:
    return len({rank // per_node for rank in ranks}) > 1
