"""Batches on their way to a device: one pinned, asynchronous copy each, the next one while this one computes."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch

HostBatch, DeviceBatch = TypeVar("HostBatch"), TypeVar("DeviceBatch")


class PinnedCopies:
    """Copies batches on a stream of its own, so that the host waits for nothing.

    pack(batch, pin) makes one tensor of the host, unpack(packed, batch) of its copy on the device the batch again. Without CUDA
    the same is done without a stream.
    """

    def __init__(
        self,
        device: torch.device,
        pack: Callable[[HostBatch, bool], torch.Tensor],
        unpack: Callable[[torch.Tensor, HostBatch], DeviceBatch],
    ):
        self._device, self._pack, self._unpack = device, pack, unpack
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, batches: Iterable[HostBatch]) -> Iterator[DeviceBatch]:
        """The batches in order, each sent off before the one ahead of it is handed out."""
        ahead = None
        for batch in batches:
            sent = self._send(batch)
            if ahead is not None:
                yield self._receive(*ahead)
            ahead = sent
        if ahead is not None:
            yield self._receive(*ahead)

    def _send(self, batch: HostBatch) -> tuple:
        packed = self._pack(batch, self._stream is not None)
        if self._stream is None:
            return batch, packed.to(self._device), None
        with torch.cuda.stream(self._stream):
            return batch, packed.to(self._device, non_blocking=True), self._stream.record_event()

    def _receive(self, batch: HostBatch, packed: torch.Tensor, arrival) -> DeviceBatch:
        if arrival is not None:
            computing = torch.cuda.current_stream(self._device)
            computing.wait_event(arrival)
            packed.record_stream(computing)
        return self._unpack(packed, batch)
