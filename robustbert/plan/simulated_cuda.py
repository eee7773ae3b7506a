"""SimulatedCuda: torch.cuda and CUDA tensors for a program that runs without them. See simulated_device.py."""

import contextlib
from collections.abc import Callable
from types import SimpleNamespace
from weakref import WeakSet

import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map
from torch.utils.weak import WeakIdKeyDictionary

from robustbert.cpu_megatron import CudaMeansCpu

STAND_IN = torch.device("cpu", 0)
READ, SYNCHRONIZE = "read", "synchronize"
BLOCKING_COPY, ASYNCHRONOUS_COPY = "blocking copy", "asynchronous copy"
HOST_WAITS = (READ, SYNCHRONIZE, BLOCKING_COPY)
Watch = Callable[[str], None]
_REMEMBERED = 64  # elements: flags, counts and sums
_PROPERTIES = SimpleNamespace(
    name="NVIDIA H100 80GB HBM3", major=9, minor=0, total_memory=85 * 10**9, multi_processor_count=132
)


def ignore(event: str) -> None:
    """Watches nothing."""


def assumed_value(dtype: torch.dtype) -> bool | float | int:
    """What a program is told that asks for a fake tensor's value: a yes, a one."""
    return True if dtype == torch.bool else 1.0 if dtype.is_floating_point else 1


class SimulatedCuda(CudaMeansCpu):
    """While it is active, tensors asked for on CUDA are fake ones, and calls of torch.cuda need no GPU.

    watch is told of: READ (a value comes to the host, which waits for it), BLOCKING_COPY (from pageable memory to the
    device), ASYNCHRONOUS_COPY (from pinned memory, or to the host without waiting), SYNCHRONIZE (of device, stream, event).
    A tensor's `is_cuda` is true as on CUDA; its `device` is STAND_IN, and asking for a tensor there gives a fake one, too.
    """

    def __init__(self, watch: Watch = ignore):
        super().__init__(is_simulation=True)
        self.watch = watch
        self._fakes = FakeTensorMode(allow_non_fake_inputs=True)
        self._pinned: WeakSet[torch.UntypedStorage] = WeakSet()
        self._sent = WeakIdKeyDictionary()  # small tensors of the device and what the host sent them as

    def __torch_function__(self, function, kinds, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if function in _ANSWERS:
            return _ANSWERS[function](self, *args, **kwargs)
        if function in _OPERATORS and isinstance(args[0], FakeTensor):
            return _OPERATORS[function](*args, **kwargs)
        if is_simulated(kwargs.get("device")):
            with self._fakes:
                return function(*args, **kwargs | {"device": STAND_IN})
        if kwargs.get("device") is not None and function in _LIKE and isinstance(args[0], FakeTensor):
            args = (torch.empty(args[0].shape, dtype=args[0].dtype), *args[1:])  # a host's tensor of the same shape
        if kwargs.pop("pin_memory", False):
            return self.pin(function(*args, **kwargs))
        return function(*args, **kwargs)

    def __enter__(self):
        # megatron-core imports more of itself in a first step and hands functions to torch.compile, whose tables list
        # torch.cuda's functions by identity: they are made from the real ones.
        from torch._dynamo.trace_rules import get_torch_obj_rule_map

        get_torch_obj_rule_map()
        entered = super().__enter__()
        self._replace(FakeTensor, "tolist", torch.Tensor.tolist)  # its own asks for one element after the other
        self._replace(torch.Tensor, "record_stream", lambda tensor, stream: None)  # takes real streams only
        for name, value in _torch_cuda(self.watch).items():
            self._replace(torch.cuda, name, value)
        return entered

    def to_device(self, tensor: torch.Tensor, dtype: torch.dtype | None = None, non_blocking: bool = False) -> FakeTensor:
        """The host's tensor on the device."""
        self.watch(ASYNCHRONOUS_COPY if non_blocking and self.is_pinned(tensor) else BLOCKING_COPY)
        with self._fakes:
            on_device = tensor.to(STAND_IN, dtype or tensor.dtype)
        if tensor.numel() <= _REMEMBERED and not tensor.requires_grad:
            self._sent[on_device] = tensor.clone()
        return on_device

    def to_host(self, tensor: FakeTensor, dtype: torch.dtype | None = None, non_blocking: bool = False) -> torch.Tensor:
        """The device's tensor on the host: as the host sent it, or else of assumed values."""
        self.watch(ASYNCHRONOUS_COPY if non_blocking else READ)
        on_host = self.value_of(tensor, dtype or tensor.dtype)
        return self.pin(on_host) if non_blocking else on_host

    def value_of(self, tensor: FakeTensor, dtype: torch.dtype) -> torch.Tensor:
        """What to_host gives."""
        sent = self._sent.get(tensor)
        return torch.full(tensor.shape, assumed_value(dtype), dtype=dtype) if sent is None else sent.to(dtype, copy=True)

    @contextlib.contextmanager
    def entered_again(self):
        """torch leaves a mode while it handles a call of it; inside this it is active in what the call calls."""
        TorchFunctionMode.__enter__(self)
        try:
            yield
        finally:
            TorchFunctionMode.__exit__(self, None, None, None)

    def pin(self, tensor: torch.Tensor) -> torch.Tensor:
        """The host's tensor, from now on taken for pinned memory."""
        self._pinned.add(tensor.untyped_storage())
        return tensor

    def is_pinned(self, tensor: torch.Tensor) -> bool:
        """Whether the tensor, or what it is a view of, is in pinned memory."""
        return not isinstance(tensor, FakeTensor) and tensor.untyped_storage() in self._pinned


def is_simulated(device) -> bool:
    """Whether a program means the simulated GPU by that: "cuda", its number, or the device of one of its tensors."""
    if isinstance(device, str):
        return device.startswith("cuda")
    if isinstance(device, int) and not isinstance(device, bool):
        return True
    return isinstance(device, torch.device) and (device.type == "cuda" or device == STAND_IN)


# What a function of torch does while SimulatedCuda is active; called with it and the arguments.


def _to(cuda: SimulatedCuda, tensor, *args, **kwargs):
    device, dtype, non_blocking, _ = torch._C._nn._parse_to(*args, **kwargs)
    if is_simulated(device):
        if not isinstance(tensor, FakeTensor):
            return cuda.to_device(tensor, dtype, non_blocking)
        return tensor.to(dtype or tensor.dtype, copy=kwargs.get("copy", False))
    if device is not None and isinstance(tensor, FakeTensor):
        return cuda.to_host(tensor, dtype, non_blocking)
    return tensor.to(*args, **kwargs)


def _cuda(cuda: SimulatedCuda, tensor, device=None, non_blocking=False, **kwargs):
    return tensor if isinstance(tensor, FakeTensor) else cuda.to_device(tensor, None, non_blocking)


def _cpu(cuda: SimulatedCuda, tensor, **kwargs):
    return cuda.to_host(tensor) if isinstance(tensor, FakeTensor) else tensor.cpu()


def _value(method):
    """Of a tensor's values as Python's numbers: tolist, item, float(), bool() and so on."""
    return lambda cuda, tensor: method(cuda.to_host(tensor) if isinstance(tensor, FakeTensor) else tensor)


def _copy(cuda: SimulatedCuda, target, source, non_blocking=False):
    if isinstance(target, FakeTensor) == isinstance(source, FakeTensor):
        return target.copy_(source)
    if isinstance(target, FakeTensor):
        cuda.watch(ASYNCHRONOUS_COPY if non_blocking and cuda.is_pinned(source) else BLOCKING_COPY)
        return target.copy_(target.new_empty(source.shape, dtype=source.dtype))
    cuda.watch(ASYNCHRONOUS_COPY if non_blocking and cuda.is_pinned(target) else READ)
    return target.copy_(cuda.value_of(source, target.dtype))


def _tensor(cuda: SimulatedCuda, data, *, device=None, pin_memory=False, requires_grad=False, **kwargs):
    def read(value):
        if not isinstance(value, FakeTensor):
            return value
        return cuda.to_host(value).tolist()

    on_host = torch.tensor(tree_map(read, data) if not isinstance(data, torch.Tensor) else read(data), **kwargs)
    if is_simulated(device):
        on_host = cuda.to_device(on_host)
    elif pin_memory:
        cuda.pin(on_host)
    return on_host.requires_grad_(requires_grad)


def _type(cuda: SimulatedCuda, tensor, dtype=None, *args, **kwargs):
    if dtype is not None:
        return tensor.type(dtype, *args, **kwargs)
    return tensor.type().replace("torch.", "torch.cuda.", 1) if isinstance(tensor, FakeTensor) else tensor.type()


def _backward(cuda: SimulatedCuda, tensors, grad_tensors=None, retain_graph=None, create_graph=False, inputs=()):
    """The backward passes of megatron-core and ours ask for tensors on CUDA, too."""
    tensors = (tensors,) if isinstance(tensors, torch.Tensor) else tuple(tensors)
    grads = (grad_tensors,) if isinstance(grad_tensors, torch.Tensor) else grad_tensors or (None,) * len(tensors)
    grads = tuple(torch.ones_like(tensor) if grad is None else grad for tensor, grad in zip(tensors, grads))
    keep = create_graph if retain_graph is None else retain_graph
    with cuda.entered_again():
        torch.autograd.Variable._execution_engine.run_backward(
            tensors, grads, keep, create_graph, tuple(inputs or ()), allow_unreachable=True, accumulate_grad=True
        )


_LIKE = (torch.empty_like, torch.zeros_like, torch.ones_like, torch.full_like)
_VALUES = (
    *(torch.Tensor.tolist, torch.Tensor.item, torch.Tensor.__bool__, torch.Tensor.__int__),
    *(torch.Tensor.__float__, torch.Tensor.__index__),
)
_ANSWERS = {
    torch.autograd.backward: _backward,
    torch.Tensor.backward: lambda cuda, tensor, gradient=None, *args, **kwargs: _backward(cuda, tensor, gradient, *args, **kwargs),
    torch.Tensor.to: _to,
    torch.Tensor.cuda: _cuda,
    torch.Tensor.cpu: _cpu,
    **{method: _value(method) for method in _VALUES},
    torch.Tensor.copy_: _copy,
    torch.Tensor.type: _type,
    torch.tensor: _tensor,
    torch.Tensor.pin_memory: lambda cuda, tensor, *device: cuda.pin(tensor.clone()),
    torch.Tensor.is_pinned: lambda cuda, tensor, *device: cuda.is_pinned(tensor),
    torch.Tensor.is_cuda.__get__: lambda cuda, tensor, *kind: isinstance(tensor, FakeTensor),
    torch.Tensor.get_device: lambda cuda, tensor: 0 if isinstance(tensor, FakeTensor) else -1,
}


# Operators for which CUDA has other kernels than the CPU, of other costs.


def _dropout(x, p=0.5, training=True, inplace=False):
    """Keeps a byte an element."""
    return torch.native_dropout(x, p, True)[0] if training and p else x


def _attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
    """Keeps no scores: FlashAttention for 16 bits without a mask, the memory-efficient kernel otherwise. All (B, A, S, D)."""
    assert not enable_gqa
    aten = torch.ops.aten
    if attn_mask is None and query.element_size() == 2:
        return aten._scaled_dot_product_flash_attention(query, key, value, dropout_p, is_causal, scale=scale)[0]
    bias = None
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            zeros = torch.zeros_like(attn_mask, dtype=query.dtype)
            attn_mask = zeros.masked_fill(attn_mask.logical_not(), float("-inf"))
        bias = attn_mask.expand(*query.shape[:-1], key.shape[-2])
    keeps = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (query, key, value))
    return aten._scaled_dot_product_efficient_attention(query, key, value, bias, keeps, dropout_p, is_causal, scale=scale)[0]


_OPERATORS = {F.dropout: _dropout, torch.dropout: _dropout, F.scaled_dot_product_attention: _attention}


def _torch_cuda(watch: Watch) -> dict:
    """Functions and classes of torch.cuda by name. is_available stays false: torch itself would use what it says is there."""

    def synchronize(*args, **kwargs) -> None:
        watch(SYNCHRONIZE)

    def nothing(*args, **kwargs) -> None:
        return None

    class Stream:
        """A queue whose work is always done."""

        def __init__(self, *args, **kwargs):
            self.device, self.cuda_stream = STAND_IN, 0

        def record_event(self, event=None):
            return event or Event()

        def query(self) -> bool:
            return True

        def __enter__(self):
            return self

        def __exit__(self, *exception) -> None:
            return None

    class Event:
        """A mark in such a queue."""

        def __init__(self, *args, **kwargs):
            pass

        def query(self) -> bool:
            return True

        def elapsed_time(self, end) -> float:
            return 0.0

    Stream.wait_stream = Stream.wait_event = Event.record = Event.wait = nothing
    Stream.synchronize = Event.synchronize = synchronize
    stream = Stream()
    zero = ("memory_allocated", "max_memory_allocated", "memory_reserved", "max_memory_reserved", "current_device")
    done = ("set_device", "init", "reset_peak_memory_stats", "ipc_collect", "set_stream")
    return {
        **{name: lambda *args, **kwargs: 0 for name in zero},
        **{name: lambda *args, **kwargs: None for name in done},
        "device_count": lambda: 1,
        "synchronize": synchronize,
        "get_device_name": lambda device=None: _PROPERTIES.name,
        "get_device_properties": lambda device=None: _PROPERTIES,
        "get_device_capability": lambda device=None: (_PROPERTIES.major, _PROPERTIES.minor),
        "is_bf16_supported": lambda *args, **kwargs: True,
        "mem_get_info": lambda device=None: (_PROPERTIES.total_memory, _PROPERTIES.total_memory),
        "memory_stats": lambda device=None: {},
        "is_current_stream_capturing": lambda: False,
        "Stream": Stream,
        "Event": Event,
        "current_stream": lambda device=None: stream,
        "default_stream": lambda device=None: stream,
        "stream": lambda other: other or contextlib.nullcontext(),
    }
