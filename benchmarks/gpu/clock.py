"""Seconds of work on a device, and what a profiler saw of it: kernels, waits of the host, busy time."""

import statistics
import time
from collections import Counter
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile, record_function

# Calls in which the host may wait for the device. A copy waits where it is to or from pageable memory.
_WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
_LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch")
MEASURED = "measured by benchmarks.gpu"
_COPIES = ("cudaMemcpyAsync", "cudaMemcpy")


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def time_blocks(work: Callable[[], object], device: str, calls: int, blocks: int) -> list[float]:
    """Seconds a call, of each block of so many calls."""
    seconds = []
    for _ in range(blocks):
        synchronize(device)
        started = time.perf_counter()
        for _ in range(calls):
            work()
        synchronize(device)
        seconds.append((time.perf_counter() - started) / calls)
    return seconds


def least_s(work: Callable[[], object], device: str, calls: int = 10, blocks: int = 3) -> float:
    """Seconds a call, the median of some blocks after a first one that warms up."""
    time_blocks(work, device, calls, 1)
    return statistics.median(time_blocks(work, device, calls, blocks))


def profiled(work: Callable[[], object], device: str, calls: int) -> profile:
    """The profiler after so many calls; the device has ended them. Seen apart from what ends the measurement: MEASURED."""
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device == "cuda" else [])
    synchronize(device)
    with profile(activities=activities) as profiler:
        with record_function(MEASURED):
            for _ in range(calls):
                work()
        synchronize(device)
    return profiler


def host_calls(profiler: profile, calls: int) -> dict[str, float]:
    """A call's waits of the host, copies that it starts and kernels that it launches."""
    events = profiler.profiler.kineto_results.events()
    start, end = next((e.start_ns(), e.start_ns() + e.duration_ns()) for e in events if e.name() == MEASURED)
    counts = Counter(event.name() for event in events if start <= event.start_ns() <= end)
    return {
        "waits": sum(counts[name] for name in _WAITS) / calls,
        "copies": sum(counts[name] for name in _COPIES) / calls,
        "launches": sum(counts[name] for name in _LAUNCHES) / calls,
    }


def device_events(profiler: profile, device: str) -> list[tuple[str, int, int]]:
    """(name, start, end) in ns of what ran on the device; of a CPU its operators."""
    kind = torch.autograd.DeviceType.CUDA if device == "cuda" else torch.autograd.DeviceType.CPU
    events = profiler.profiler.kineto_results.events()
    ran = [e for e in events if e.device_type() == kind and e.duration_ns() > 0 and not e.is_user_annotation()]
    return [(e.name(), e.start_ns(), e.start_ns() + e.duration_ns()) for e in ran]


def busy_ns(events: list[tuple[str, int, int]]) -> int:
    """The time in which at least one of the events was under way."""
    busy, until = 0, 0
    for _, start, end in sorted(events, key=lambda event: event[1]):
        busy += max(0, end - max(start, until))
        until = max(until, end)
    return busy


def idle_share(events: list[tuple[str, int, int]]) -> float:
    """The share of the time from the first event's start to the last one's end in which nothing ran."""
    if not events:
        return 0.0
    span = max(end for _, _, end in events) - min(start for _, start, _ in events)
    return 1 - busy_ns(events) / span if span else 0.0


def total_by_name(events: list[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    """(name, ns in all, how often), longest first."""
    totals, counts = Counter(), Counter()
    for name, start, end in events:
        totals[name] += end - start
        counts[name] += 1
    return [(name, total, counts[name]) for name, total in totals.most_common()]
