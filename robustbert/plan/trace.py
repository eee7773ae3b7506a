"""StepTrace: what the operators of a step allocate, compute, move and send, seen while they run; real tensors or fake ones.

It stands between the program and torch's kernels, so that what is counted is what the code does, not what a formula expects.
"""

import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten

# Read a few rows of a table, or write them: the table's own size does not count.
_GATHERS = ("embedding", "index_select", "index", "gather", "index_put_")
_NO_WORK = ("empty", "empty_like", "new_empty", "new_empty_strided", "empty_strided", "_local_scalar_dense", "lift_fresh", "detach")
_ATTENTION = "_scaled_dot_product_flash_attention_for_cpu"
_UNKNOWN_TO_FAKE_GROUPS = ("reduce_scatter_tensor_coalesced_", "allgather_into_tensor_coalesced_")


@dataclass(frozen=True)
class Collective:
    """One call of a collective: bytes of the whole message (of the largest side), and the global ranks that take part."""

    kind: str  # all_reduce, all_gather, reduce_scatter, broadcast, send, receive
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
    """While active: `peak_bytes` of the storages made meanwhile, and the `work`. `work` may be replaced on the way.

    Under fake tensors a value that the program asks for is answered: 1 for a count, True for a question, 0.0 for a number.
    """

    def __init__(self):
        super().__init__()
        self.work = Work()
        self.live_bytes = self.peak_bytes = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, function, kinds, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = function.overloadpacket.__name__
        if function is aten._local_scalar_dense.default and _is_fake(args[0]):
            return _assumed_value(args[0].dtype)
        if function.namespace == "c10d":
            self._count_collective(name, args)
            if name in _UNKNOWN_TO_FAKE_GROUPS and _is_fake(args[0][0]):
                return torch.ops.c10d.barrier.default(args[0][0], args[2], [], False, -1)  # for the answer's type
            return function(*args, **kwargs)
        inputs = [value for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
        before = {value.untyped_storage()._cdata for value in inputs}
        for tensor in inputs:
            self._count_storage(tensor, is_new=False)
        result = function(*args, **kwargs)
        outputs = [value for value in tree_leaves(result) if isinstance(value, torch.Tensor)]
        for tensor in outputs:
            self._count_storage(tensor)
        if function.namespace == "aten" and name not in _NO_WORK:
            self._count_operator(function, name, args, kwargs, inputs, outputs, result, before)
        return result

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

    def _count_operator(self, function, name, args, kwargs, inputs, outputs, result, before) -> None:
        is_in_place = function._schema.is_mutable
        if not is_in_place and outputs and all(tensor.untyped_storage()._cdata in before for tensor in outputs):
            return  # a view
        if name in _GATHERS:
            moved = 2 * sum(map(_size, outputs if name != "index_put_" else tree_leaves(args[2])))
        else:
            moved = sum(map(_size, inputs)) + sum(map(_size, outputs))
        flops = _flops_of(function, name, args, kwargs, result)
        self.work.operators.append((flops, moved, bool(inputs) and inputs[0].element_size() == 2))

    def _count_collective(self, name: str, args: tuple) -> None:
        kind, find_bytes = _COLLECTIVES.get(name, (None, None))
        group = next((value for value in args if isinstance(value, torch.ScriptObject)), None)
        if kind is None or group is None:
            return
        ranks = tuple(dist.get_process_group_ranks(dist.ProcessGroup.unbox(group)))
        if len(ranks) > 1:
            self.work.collectives.append(Collective(kind, ranks, find_bytes(args)))


def _assumed_value(dtype: torch.dtype) -> bool | float | int:
    """What a program is told that asks for a fake tensor's value: all is well, nothing overflowed, one of them is there."""
    if dtype == torch.bool:
        return True
    return 0.0 if dtype.is_floating_point else 1


def _is_fake(tensor) -> bool:
    from torch._subclasses.fake_tensor import FakeTensor

    return isinstance(tensor, FakeTensor)


def _size(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _bytes_of(*places: int) -> Callable[[tuple], int]:
    return lambda args: max(sum(map(_size, [t for t in tree_leaves(args[place]) if torch.is_tensor(t)])) for place in places)


_COLLECTIVES = {
    "allreduce_": ("all_reduce", _bytes_of(0)),
    "broadcast_": ("broadcast", _bytes_of(0)),
    "_allgather_base_": ("all_gather", _bytes_of(0, 1)),
    "allgather_into_tensor_coalesced_": ("all_gather", _bytes_of(0, 1)),
    "_reduce_scatter_base_": ("reduce_scatter", _bytes_of(0, 1)),
    "reduce_scatter_tensor_coalesced_": ("reduce_scatter", _bytes_of(0, 1)),
    "send": ("send", _bytes_of(0)),
    "recv_": ("receive", _bytes_of(0)),
}


def _flops_of(function, name: str, args: tuple, kwargs: dict, result) -> float:
    if name == _ATTENTION:
        return 2 * _product_flops(args[0], args[1])
    if name == f"{_ATTENTION}_backward":
        return 5 * _product_flops(args[1], args[2])  # the scores once more, and four products
    count = flop_registry.get(function.overloadpacket)
    return float(count(*args, **kwargs, out_val=result)) if count else 0.0


def _product_flops(query: torch.Tensor, key: torch.Tensor) -> float:
    """Operations of query x key^T, both (B, A, S, D)."""
    return 2.0 * math.prod(query.shape) * key.shape[-2]
