"""How long this process waits for others: the time in torch.distributed's collectives and point-to-point transfers.

Whatever they are called by, and under whatever name megatron-core took the function at its import, all of them end in
two classes: a transfer that is waited for in `Work.wait`, one on a GPU's current stream in a method of `ProcessGroup`. These
are replaced while a step is measured, and at no other time: a step that is not measured costs nothing.
"""

import functools
import inspect
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.distributed.distributed_c10d import ProcessGroup, Work

# What enqueues a collective on the current stream, where its options say that the caller does not want to wait itself.
_ON_STREAM = (
    *("allreduce", "allreduce_coalesced", "broadcast", "reduce", "barrier", "allgather", "allgather_coalesced"),
    *("_allgather_base", "all_gather_single", "allgather_into_tensor_coalesced", "all_gather_single_coalesced"),
    *("reduce_scatter", "_reduce_scatter_base", "reduce_scatter_single", "reduce_scatter_tensor_coalesced"),
    *("reduce_scatter_single_coalesced", "gather", "scatter", "alltoall", "alltoall_base", "all_to_all_single"),
)


class HostClock:
    """Moments of the host: on the CPU whoever waits for others stands still."""

    def mark(self) -> float:
        return time.perf_counter()

    def seconds(self, start: float, stop: float) -> float:
        return stop - start


class StreamClock:
    """Moments of the GPU's current stream, where the work is done; marking one does not wait for it."""

    def mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, start: torch.cuda.Event, stop: torch.cuda.Event) -> float:
        """The stream must have passed `start`; for `stop` it waits."""
        stop.synchronize()
        return start.elapsed_time(stop) / 1000


class CollectiveTime:
    """The waits between `start` and `stop`, as pairs of the clock's marks; nothing outside of these."""

    def __init__(self, is_cuda: bool):
        self.clock = StreamClock() if is_cuda else HostClock()
        self.waits: list[tuple] = []
        self._replaced: dict[tuple[type, str], object] = {}
        self._is_cuda = is_cuda

    @property
    def is_measuring(self) -> bool:
        return bool(self._replaced)

    def start(self) -> None:
        """Measure from now on, until `stop`."""
        if self._replaced:
            return
        self._replace(Work, "wait", lambda arguments: True)
        if self._is_cuda:
            for name in _ON_STREAM:
                self._replace(ProcessGroup, name, _is_on_current_stream)

    def stop(self) -> None:
        """Put everything back, as the class itself had it: what getattr gives would not be bound to an object any more."""
        for (owner, name), original in self._replaced.items():
            setattr(owner, name, original)
        self._replaced = {}

    @contextmanager
    def closing(self) -> Iterator["CollectiveTime"]:
        """Whatever happens inside, afterwards nothing is replaced."""
        try:
            yield self
        finally:
            self.stop()

    def _replace(self, owner: type, name: str, is_timed) -> None:
        if name not in vars(owner):  # of another version of torch
            return
        original = getattr(owner, name)
        clock, waits = self.clock, self.waits

        @functools.wraps(original)
        def timed(*arguments, **options):
            if not is_timed(arguments):
                return original(*arguments, **options)
            start = clock.mark()
            try:
                return original(*arguments, **options)
            finally:
                waits.append((start, clock.mark()))

        # As the class has it: of a method of C++, getattr gives a function that no longer takes its object.
        self._replaced[owner, name] = inspect.getattr_static(owner, name)
        setattr(owner, name, timed)


def _is_on_current_stream(arguments: tuple) -> bool:
    """By the options, the last argument: asyncOp is false where the collective is part of the current stream."""
    return not getattr(arguments[-1], "asyncOp", True)
