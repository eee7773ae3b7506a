"""count_step: where a training step's host waits for the device, which operators run in which phase, what the loss allocates."""

import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.counting.training_step import PHASES, counted_process
from robustbert.config import RunConfig
from robustbert.plan.simulated_cuda import HOST_WAITS
from robustbert.plan.trace import Collective, StepTrace

_ROOT = Path(__file__).resolve().parents[2]
_NOT_PLACES = ("robustbert/plan/", "robustbert/cpu_megatron.py")


@dataclass(frozen=True)
class Event:
    """A transfer or a wait, and where the program asks for it."""

    phase: str
    kind: str  # of plan.simulated_cuda
    place: str  # file:line

    @property
    def is_wait(self) -> bool:
        return self.kind in HOST_WAITS


@dataclass
class StepCounts:
    """Of one step."""

    num_parameters: int
    num_tensors: int
    events: Counter[Event] = field(default_factory=Counter)
    operators: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))  # by phase and name
    moved_bytes: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    loss_bytes: int = 0  # most that lives at a time of what is allocated from the encoder's output on, there and back
    peak_bytes: int = 0  # most that lives at a time of what is allocated during the step

    @property
    def num_waits(self) -> int:
        return sum(times for event, times in self.events.items() if event.is_wait)

    def num_operators(self, phase: str) -> int:
        return self.operators[phase].total()


def count_step(config: RunConfig, batches, folder: Path) -> StepCounts:
    """Train a simulated process for two steps and count the second. folder: for what a run writes."""
    watcher = _Watcher()
    with counted_process(config, batches, folder, watcher.watch, watcher.enter) as process:
        process.step()
        counts = StepCounts(process.num_parameters, process.num_tensors)
        trace = watcher.counts_from_now(counts)
        hook = process.encoder_end.register_forward_hook(trace.follow_loss)
        with trace:
            process.step()
        hook.remove()
        watcher.counts_from_now(None)
    counts.peak_bytes, counts.loss_bytes = trace.step_peak_bytes, trace.loss_bytes
    return counts


class _Watcher:
    """Notes waits, transfers and operators with the phase that they are in."""

    def __init__(self):
        self.phase = "before"
        self._counts: StepCounts | None = None

    def counts_from_now(self, counts: StepCounts | None) -> "_PhasedTrace":
        self._counts = counts
        return _PhasedTrace(self, counts)

    def enter(self, phase: str) -> None:
        self.phase = phase

    def watch(self, kind: str) -> None:
        if self._counts is not None:
            self._counts.events[Event(self.phase, kind, _place())] += 1


class _PhasedTrace(StepTrace):
    """Counts operators by phase, and follows the memory of the loss."""

    def __init__(self, watcher: _Watcher, counts: StepCounts | None):
        super().__init__()
        self._watcher, self._counts = watcher, counts
        self._peak_before = self._live_before = 0
        self.loss_bytes = 0

    @property
    def step_peak_bytes(self) -> int:
        return max(self.peak_bytes, self._peak_before)

    def count_operator(self, name: str, flops: float, moved_bytes: int, in_16_bits: bool) -> None:
        self._counts.operators[self._watcher.phase][name] += 1
        self._counts.moved_bytes[self._watcher.phase][name] += moved_bytes

    def count_collective(self, name: str, collective: Collective) -> None:
        self.count_operator(f"c10d.{name}", 0.0, 2 * collective.num_bytes, False)

    def follow_loss(self, module, inputs, output) -> None:
        """The encoder has given its output: what lives from now until its gradient is there is the loss'."""
        self._peak_before, self._live_before = max(self._peak_before, self.peak_bytes), self.live_bytes
        self.peak_bytes = self.live_bytes
        output.register_hook(self._loss_is_back)

    def _loss_is_back(self, gradient) -> None:
        self.loss_bytes = max(self.loss_bytes, self.peak_bytes - self._live_before)


def _place() -> str:
    """The line of the project's or megatron-core's code that runs."""
    frame = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        name = file.partition("site-packages/")[2] or file.removeprefix(f"{_ROOT}/")
        if name.startswith(("robustbert/", "megatron/")) and not name.startswith(_NOT_PLACES):
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"


def describe_step(counts: StepCounts, num_shown: int = 12) -> list[str]:
    """The counts as lines; of a phase's operators those that move most."""
    lines = [f"parameters {counts.num_parameters / 1e6:.1f} M in {counts.num_tensors} tensors", f"host waits a step: {counts.num_waits}"]
    for event, times in sorted(counts.events.items(), key=lambda pair: (not pair[0].is_wait, -pair[1], pair[0].place)):
        lines.append(f"  {times:5d}  {event.kind:<18} {event.phase:<22} {event.place}")
    for phase in (*PHASES, *sorted(set(counts.operators) - {*PHASES})):
        moved, number = counts.moved_bytes[phase], counts.num_operators(phase)
        lines.append(f"{phase}: {number} device operators, {moved.total() / 1e9:.2f} GB touched")
        for name, num_bytes in moved.most_common(num_shown):
            lines.append(f"  {counts.operators[phase][name]:5d}  {num_bytes / 1e9:8.2f} GB  {name}")
    lines.append(f"allocated by the loss: {counts.loss_bytes / 1e9:.2f} GB; during the step: {counts.peak_bytes / 1e9:.2f} GB")
    return lines
