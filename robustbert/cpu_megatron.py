"""Lets megatron-core run where there is no CUDA: one module, entered once, refused where CUDA is in use.

megatron-core asks for CUDA by name in many places. On a machine without it, these requests are answered with
the CPU's own tensors and random state, so that development and tests run the code of production. On CUDA none
of this is active, but for simulations (robustbert/plan), which leave the GPU alone.
"""

import logging

import torch
from torch.overrides import TorchFunctionMode

_CPU = torch.device("cpu")


class _CpuStream:
    """In place of a CUDA stream: on the CPU everything before is done."""

    def synchronize(self) -> None:
        pass

    def wait_stream(self, stream) -> None:
        pass

    def wait_event(self, event) -> None:
        pass


_CPU_STREAM = _CpuStream()


class CudaMeansCpu(TorchFunctionMode):
    """While it is active, a request for a CUDA tensor gives a CPU tensor. Enter it once, at start-up.

    is_simulation: nothing is computed meanwhile, so the machine may have CUDA, which is hidden.
    """

    def __init__(self, is_simulation: bool = False):
        if torch.cuda.is_available() and not is_simulation:
            raise RuntimeError("CUDA is in use here: megatron-core runs as it was published, without this module")
        super().__init__()
        self._is_simulation = is_simulation
        self._replaced = []

    def __torch_function__(self, function, kinds, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.Tensor.cuda:
            return args[0]
        if function is torch.Tensor.type and len(args) == 1 and not kwargs:
            # megatron-core's DDP and optimizer recognise precisions by the name of the CUDA tensor type.
            return function(*args).replace("torch.", "torch.cuda.", 1)
        if _names_cuda(kwargs.get("device")):
            kwargs = {**kwargs, "device": _CPU}
        if function is torch.Tensor.to and len(args) > 1 and _names_cuda(args[1]):
            args = (args[0], _CPU, *args[2:])
        return function(*args, **kwargs)

    def __enter__(self):
        import megatron.core.tensor_parallel.random as megatron_random

        get_state, set_state = torch.get_rng_state, torch.set_rng_state
        if self._is_simulation:
            self._replace(torch.cuda, "is_available", lambda: False)
        self._replace(torch.cuda, "current_device", lambda: _CPU)
        self._replace(torch.cuda, "synchronize", lambda device=None: None)
        self._replace(torch.cuda, "current_stream", lambda device=None: _CPU_STREAM)
        self._replace(torch.cuda, "empty_cache", lambda: None)
        self._replace(torch.cuda, "manual_seed", torch.manual_seed)
        self._replace(torch.cuda, "get_rng_state", lambda device="cuda": get_state())
        self._replace(torch.cuda, "set_rng_state", lambda state, device="cuda": set_state(state))
        self._replace(megatron_random, "_get_cuda_rng_state", lambda *args, **kwargs: get_state())
        self._replace(megatron_random, "_set_cuda_rng_state", lambda state, *args, **kwargs: set_state(state))
        # It warns when the CPU's random state moves inside a fork of CUDA's; here the two are one.
        self._replace(logging.getLogger(megatron_random.__name__), "level", logging.ERROR)
        return super().__enter__()

    def __exit__(self, *exception):
        for owner, name, original in reversed(self._replaced):
            setattr(owner, name, original)
        self._replaced.clear()
        return super().__exit__(*exception)

    def _replace(self, owner, name, value):
        self._replaced.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)


def _names_cuda(device) -> bool:
    if isinstance(device, str):
        return device.startswith("cuda")
    return isinstance(device, torch.device) and device.type == "cuda"
