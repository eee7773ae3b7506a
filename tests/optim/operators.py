"""Counts what a training step asks of its device: operators (each at least one kernel on CUDA) and waits of the host."""

from collections import Counter, defaultdict

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_NO_KERNELS = {"view", "_unsafe_view", "t", "transpose", "permute", "expand", "slice", "select", "unsqueeze", "squeeze", "detach", "alias"}
_NO_KERNELS |= {"as_strided", "split", "unbind", "empty", "empty_like", "empty_strided", "new_empty", "lift_fresh", "_local_scalar_dense"}
_NO_KERNELS |= {"_record_function_enter_new", "_record_function_exit"}
_WAITS = {torch.Tensor.tolist, torch.Tensor.cpu, torch.Tensor.numpy}


class StepCount:
    """operators[phase], waits[phase]: Counters by name, while `counting`; set `phase` on the way."""

    def __init__(self):
        self.phase = "other"
        self.operators = defaultdict(Counter)
        self.waits = defaultdict(Counter)

    def counting(self):
        return _Both(_Operators(self), _Functions(self))


class _Both:
    def __init__(self, *modes):
        self._modes = modes

    def __enter__(self):
        for mode in self._modes:
            mode.__enter__()

    def __exit__(self, *exception):
        for mode in reversed(self._modes):
            mode.__exit__(*exception)


class _Operators(TorchDispatchMode):
    def __init__(self, count: StepCount):
        super().__init__()
        self._count = count

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name == "_local_scalar_dense":  # item, float, bool, int
            self._count.waits[self._count.phase][name] += 1
        if name not in _NO_KERNELS and function.namespace != "prim":
            self._count.operators[self._count.phase][name] += 1
        return function(*args, **(kwargs or {}))


class _Functions(TorchFunctionMode):
    def __init__(self, count: StepCount):
        super().__init__()
        self._count = count

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        waits = self._count.waits[self._count.phase]
        if function in _WAITS:
            waits[function.__name__] += 1
        if function is torch.tensor:
            of_tensors = sum(isinstance(leaf, torch.Tensor) for leaf in tree_leaves(args))  # each is read
            waits["torch.tensor"] += of_tensors or ("device" in kwargs)  # a copy of pageable memory to the device
        return function(*args, **kwargs)
