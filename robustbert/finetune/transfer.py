"""What travels between the host and the device: a batch in one copy, its outputs in another; on a GPU the host waits for neither.

R sequences of a batch, S tokens of the longest.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import torch

from robustbert.finetune.task import Batch
from robustbert.pinned_copies import PinnedCopies

_ALIGNMENT = 16  # bytes


def on_device(batches: Iterable[Batch], device: torch.device, packs: bool | None = None) -> Iterator[Batch]:
    """The batches in order with their tensors on the device. packs: whether by PinnedCopies, which is how a GPU gets them."""
    packs = device.type == "cuda" if packs is None else packs
    return PinnedCopies(device, pack, unpack)(batches) if packs else iter(batches)


def pack(batch: Batch, pin: bool = False) -> torch.Tensor:
    """The bytes of all of a batch' tensors in one tensor of the host."""
    tensors = [*batch.inputs.values(), *batch.arrays.values()]
    packed = torch.empty(sum(map(_aligned_size, tensors)), dtype=torch.uint8, pin_memory=pin)
    for part, tensor in zip(packed.split([_aligned_size(tensor) for tensor in tensors]), tensors):
        part[: tensor.nbytes].view(tensor.dtype).copy_(tensor.reshape(-1))
    return packed


def unpack(packed: torch.Tensor, batch: Batch) -> Batch:
    """The batch with views of what `pack` made of it; no copies."""
    tensors = [*batch.inputs.values(), *batch.arrays.values()]
    parts = packed.split([_aligned_size(tensor) for tensor in tensors])
    moved = iter(part[: tensor.nbytes].view(tensor.dtype).view(tensor.shape) for part, tensor in zip(parts, tensors))
    return Batch(batch.items, dict(zip(batch.inputs, moved)), dict(zip(batch.arrays, moved)))


class Outputs:
    """The outputs of a batch on their way to the host: one copy, sent off at once."""

    def __init__(self, outputs: list[torch.Tensor]):
        self._shapes = [tuple(output.shape) for output in outputs]
        values = torch.cat([output.reshape(-1) for output in outputs]).float()
        self._values, self._arrival = values, None
        if values.is_cuda:
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._arrival = torch.cuda.current_stream(values.device).record_event()

    def arrays(self) -> list[np.ndarray]:
        """Every item's output in fp32; waits for the copy."""
        if self._arrival is not None:
            self._arrival.synchronize()
        values = self._values.numpy() if self._arrival is None else self._values.numpy().copy()  # pinned memory is scarce
        ends = np.cumsum([int(np.prod(shape)) for shape in self._shapes])
        return [part.reshape(shape) for part, shape in zip(np.split(values, ends[:-1]), self._shapes)]


def _aligned_size(tensor: torch.Tensor) -> int:
    return -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
