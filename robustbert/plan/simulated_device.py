"""SimulatedDevice: what a simulated process computes on. Its tensors have shapes and no memory; no GPU is needed or touched.

A simulated CUDA device is a fake tensor's `cpu:0`: the CPU's kernels have all the shapes and every build of torch has them,
while the host's own tensors are on `cpu`, so that torch refuses to mix the two as it does on CUDA. What a program asks of
torch.cuda is answered; when the host would wait for the device, `watch` is told.
"""

import contextlib
from dataclasses import dataclass

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from robustbert.cpu_megatron import CudaMeansCpu
from robustbert.device import Device
from robustbert.plan.simulated_cuda import READ, SimulatedCuda, Watch, assumed_value, ignore


@dataclass(frozen=True)
class SimulatedDevice(Device):
    """A Device whose process group is torch's fake one (simulation.fake_job)."""

    watch: Watch = ignore

    @staticmethod
    def of(kernels: str, watch: Watch = ignore) -> "SimulatedDevice":
        """kernels: whose operators run, "cuda" or "cpu". watch: is told of every wait of the host for a simulated GPU."""
        return SimulatedDevice(torch.device("cuda", 0) if kernels == "cuda" else torch.device("cpu"), "fake", watch)

    def megatron_context(self):
        """A context in which megatron-core runs on this device."""
        return SimulatedCuda(self.watch) if self.is_cuda else CudaMeansCpu(is_simulation=True)

    @contextlib.contextmanager
    def without_memory(self):
        """Inside, this device's tensors have no memory. On a simulated GPU the host's have; on the CPU all are the device's."""
        fakes = contextlib.nullcontext() if self.is_cuda else FakeTensorMode(allow_non_fake_inputs=True)
        with fakes, Answers(self.watch):
            yield


class Answers(TorchDispatchMode):
    """Answers what fake tensors cannot: their values (assumed_value), and collectives among processes that are not there."""

    def __init__(self, watch: Watch = ignore):
        super().__init__()
        self._watch = watch

    def __torch_dispatch__(self, function, kinds, args=(), kwargs=None):
        kwargs = kwargs or {}
        if not any(isinstance(value, FakeTensor) for value in tree_leaves((args, kwargs))):
            return function(*args, **kwargs)
        if function.namespace == "c10d":
            return _answer_collective(function, args)
        if function is torch.ops.aten._local_scalar_dense.default:
            self._watch(READ)
            return assumed_value(args[0].dtype)
        if function is torch.ops.aten.equal.default:
            self._watch(READ)
            return True
        return function(*args, **kwargs)


def _answer_collective(function, args: tuple):
    """What a collective's schema promises: the tensors to which it writes, and a Work that is done. Nothing is moved."""
    answers = []
    for part in function._schema.returns:
        if "Tensor" in str(part.type):
            answers.append(args[0])  # in all of c10d's operators
        else:
            group = next(value for value in args if isinstance(value, torch.ScriptObject))
            answers.append(torch.ops.c10d.barrier.default(torch.empty(0), group, [], False, -1))
    return answers[0] if len(answers) == 1 else tuple(answers) or None
