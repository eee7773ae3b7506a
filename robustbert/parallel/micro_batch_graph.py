"""MicroBatchGraph: a micro-batch forward and backward as one CUDA graph, replayed: the host starts one thing instead of a thousand.

For stages that need no other process while they compute (no tensor, no pipeline parallelism) and micro-batches of one shape. Weights and
gradient buffers stay where they are; a batch is copied into the place that the graph reads; dropout follows the seeds that are set
before a replay.
"""

from collections.abc import Callable

import torch

from robustbert.parallel.transfer import DeviceBatch, pack, unpack

_WARM_UP = 3  # micro-batches computed as usual first: kernels are chosen and compiled, buffers made


class MicroBatchGraph:
    """Computes micro-batches, from the fourth one on by replaying what the fourth was recorded as."""

    def __init__(self, compute: Callable[[DeviceBatch], torch.Tensor], device: torch.device, record: Callable | None = None):
        """compute: forward and backward of a batch, gradients into the buffers; returns the losses' report on the device.

        record: (function) -> (what it returned, replay()); None: by CUDA.
        """
        self._compute, self._device = compute, device
        self._record = _record_on_cuda if record is None else record
        self._num_computed = 0
        self._packed: torch.Tensor | None = None  # where the graph reads its batch
        self._report: torch.Tensor | None = None  # where it leaves the losses
        self._replay: Callable[[], None] | None = None
        self._sizes: tuple | None = None

    def __call__(self, batch) -> torch.Tensor:
        """A data.batches.Batch; returns its report, a tensor of its own."""
        packed = pack(batch, pin=self._device.type == "cuda")
        sizes = (*batch.tokens_BS.shape, len(packed))
        if self._packed is None:
            self._packed, self._sizes = packed.to(self._device), sizes
        if sizes != self._sizes:  # more masked words than usual: computed as usual
            return self._compute(unpack(packed.to(self._device, non_blocking=True), batch))
        self._packed.copy_(packed, non_blocking=True)
        self._num_computed += 1
        if self._num_computed <= _WARM_UP:
            return self._compute(unpack(self._packed, batch))
        if self._replay is None:
            self._report, self._replay = self._record(lambda: self._compute(unpack(self._packed, batch)))
        self._replay()
        return self._report.clone()


def _record_on_cuda(function: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, Callable[[], None]]:
    """Recording computes nothing; the first replay does. Other threads, such as NCCL's watchdog, may use CUDA meanwhile."""
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        report = function()
    return report, graph.replay
