"""StepTrace: what the operators of a step allocate, compute, move and send, seen while they run on fake tensors.

It stands between the program and torch's kernels, so that what is counted is what the code does, not what a formula expects.
Fake tensors are the device's; real ones are the host's and do not count.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from robustbert.plan.flops import operator_flops

# Read a few rows of a table, or write them: the table's own size does not count.
_GATHERS = ("embedding", "index_select", "index", "gather", "index_put_")
_NO_WORK = (
    *("empty", "empty_like", "new_empty", "new_empty_strided", "empty_strided", "lift_fresh", "detach"),
    *("_local_scalar_dense", "_version", "is_pinned"),
)
_NO_KERNEL = ("prim", "profiler", "_c10d_functional")  # namespaces of operators that compute nothing


@dataclass(frozen=True)
class Collective:
    """One call of a collective: bytes of the whole message (of the largest side), and the global ranks that take part."""

    kind: str  # all_reduce, all_gather, reduce_scatter, all_to_all, broadcast, reduce, gather, scatter, send, receive, barrier
    ranks: tuple[int, ...]
    num_bytes: int


@dataclass
class Work:
    """Operators that ran: (floating-point operations, bytes read and written, whether in 16 bits) each, and collectives."""

    operators: list[tuple[float, int, bool]] = field(default_factory=list)
    collectives: list[Collective] = field(default_factory=list)

    @property
    def flops(self) -> float:
        return sum(flops for flops, _, _ in self.operators)


class StepTrace(TorchDispatchMode):
    """While active: `peak_bytes` of the device's storages made meanwhile, and the `work`. `work` may be replaced on the way."""

    def __init__(self):
        super().__init__()
        self.work = Work()
        self.live_bytes = self.peak_bytes = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, function, kinds, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function.namespace == "c10d":
            self._count_collective(function.overloadpacket.__name__, args)
            return function(*args, **kwargs)
        inputs = device_tensors((args, kwargs))
        before = {value.untyped_storage()._cdata for value in inputs}
        for tensor in inputs:
            self._count_storage(tensor, is_new=False)
        result = function(*args, **kwargs)
        outputs = device_tensors(result)
        for tensor in outputs:
            self._count_storage(tensor)
        if (inputs or outputs) and _is_kernel(function, outputs, before):
            name = function.overloadpacket.__name__
            flops = operator_flops(function, args, kwargs, result)
            in_16_bits = bool(inputs) and inputs[0].element_size() == 2
            self.count_operator(name, flops, _moved_bytes(name, args, inputs, outputs), in_16_bits)
        return result

    def count_kernel(self, inputs: list[torch.Tensor], outputs: list[torch.Tensor]) -> None:
        """A fused kernel that ran unseen: it reads and writes these, and what it wrote is memory from now on."""
        for tensor in outputs:
            self._count_storage(tensor)
        in_16_bits = bool(inputs) and inputs[0].element_size() == 2
        self.count_operator("fused", 0.0, _size_of(inputs) + _size_of(outputs), in_16_bits)

    def count_operator(self, name: str, flops: float, moved_bytes: int, in_16_bits: bool) -> None:
        """Called with every operator that starts work on the device."""
        self.work.operators.append((flops, moved_bytes, in_16_bits))

    def count_collective(self, name: str, collective: Collective) -> None:
        """Called with every collective and its name in c10d, also of one process alone, for which it is no work."""
        if len(collective.ranks) > 1:
            self.work.collectives.append(collective)

    def _count_storage(self, tensor: torch.Tensor, is_new: bool = True) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes() if is_new else 0
        if key in self._known:
            return
        self._known.add(key)
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live_bytes -= size

    def _count_collective(self, name: str, args: tuple) -> None:
        kind, message_bytes = COLLECTIVES.get(name, (None, None))
        group = next((value for value in args if isinstance(value, torch.ScriptObject)), None)
        if kind is None or group is None:
            return
        ranks = tuple(dist.get_process_group_ranks(dist.ProcessGroup.unbox(group)))
        self.count_collective(name, Collective(kind, ranks, message_bytes(args, len(ranks))))


def device_tensors(values) -> list[FakeTensor]:
    """The device's tensors among nested values."""
    return [value for value in tree_leaves(values) if isinstance(value, FakeTensor)]


def _is_kernel(function, outputs: list[torch.Tensor], input_storages: set[int]) -> bool:
    """Whether a call starts work on the device: it is no view and no mere allocation."""
    if function.namespace in _NO_KERNEL or function.overloadpacket.__name__ in _NO_WORK:
        return False
    is_view = outputs and all(tensor.untyped_storage()._cdata in input_storages for tensor in outputs)
    return function._schema.is_mutable or not is_view


def _moved_bytes(name: str, args: tuple, inputs: list[torch.Tensor], outputs: list[torch.Tensor]) -> int:
    """Bytes that an operator reads and writes."""
    if name == "index_put_":
        return 2 * _size_of(args[2])
    if name in _GATHERS:
        return 2 * _size_of(outputs)
    return _size_of(inputs) + _size_of(outputs)


def _size_of(values) -> int:
    """Bytes of all tensors among the values; an expanded one has those of its storage."""
    tensors = (value for value in tree_leaves(values) if isinstance(value, torch.Tensor))
    return sum(min(t.numel() * t.element_size(), t.untyped_storage().nbytes()) for t in tensors)


def _largest(*places: int) -> Callable[[tuple, int], int]:
    return lambda args, num_ranks: max(_size_of(args[place]) for place in places)


def _every_rank(place: int) -> Callable[[tuple, int], int]:
    """Of a rank's part at `place`: only the root names them all."""
    return lambda args, num_ranks: num_ranks * _size_of(args[place])


# c10d's operators: (kind, bytes of the whole message by the call's arguments and the group's size).
COLLECTIVES: dict[str, tuple[str, Callable[[tuple, int], int]]] = {
    "allreduce_": ("all_reduce", _largest(0)),
    "allreduce_coalesced_": ("all_reduce", _largest(0)),
    "allgather_": ("all_gather", _largest(0)),
    "allgather_coalesced_": ("all_gather", _largest(0)),
    "_allgather_base_": ("all_gather", _largest(0)),
    "allgather_into_tensor_coalesced_": ("all_gather", _largest(0)),
    "reduce_scatter_": ("reduce_scatter", _largest(1)),
    "_reduce_scatter_base_": ("reduce_scatter", _largest(1)),
    "reduce_scatter_tensor_coalesced_": ("reduce_scatter", _largest(1)),
    "alltoall_": ("all_to_all", _largest(0, 1)),
    "alltoall_base_": ("all_to_all", _largest(0, 1)),
    "broadcast_": ("broadcast", _largest(0)),
    "reduce_": ("reduce", _largest(0)),
    "gather_": ("gather", _every_rank(1)),
    "scatter_": ("scatter", _every_rank(0)),
    "send": ("send", _largest(0)),
    "recv_": ("receive", _largest(0)),
    "recv_any_source_": ("receive", _largest(0)),
    "barrier": ("barrier", lambda args, num_ranks: 0),
    "monitored_barrier_": ("barrier", lambda args, num_ranks: 0),
}
