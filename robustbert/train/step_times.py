"""Where the time of a step goes on this process: its parts, from the marks that training leaves on its progress."""

from collections import defaultdict
from dataclasses import dataclass, field

from robustbert.parallel.collective_time import CollectiveTime
from robustbert.progress import COMPILING, Progress

PARTS = ("data_wait", "forward_backward", "collectives", "optimizer", "other")
BESIDE_STEPS = ("evaluating", "checkpointing")  # what takes place between steps and is not theirs
# What begins with a mark; whatever is not named here is "other" work of a step.
_PART_OF = {
    "waiting for data": "data_wait",
    "forward and backward": "forward_backward",
    COMPILING: "forward_backward",
    "updating the weights": "optimizer",
    "evaluating": "evaluating",
    "comparing the replicas": "checkpointing",
    "saving": "checkpointing",
    "rolling back": None,
}
_STEP_BEGINS_WITH = "data_wait"


@dataclass(frozen=True)
class IntervalTimes:
    """Seconds between two calls of `take`: `parts` of all steps together (PARTS), and what took place beside them."""

    parts: dict[str, float]
    evaluating_s: float
    checkpointing_s: float

    @property
    def steps_s(self) -> float:
        return sum(self.parts.values())


@dataclass
class _Lap:
    """A stretch of one part; `waits`: where its collectives stand in the list of all, None where they were not measured."""

    part: str | None
    start: object
    waits: slice | None = None


@dataclass
class StepTimes:
    """The laps of this process since `take` was called last.

    All parts of all steps are timed. Collectives are timed in the second step of the process and in every `interval`th
    one after it (the first one is full of allocations); in the other steps they are taken for the same share of a part.
    The parts without collectives are this process' own time. On a GPU all times are those of its stream.
    """

    progress: Progress
    collectives: CollectiveTime
    interval: int
    _num_steps: int = 0
    _first_wait: int = 0
    _laps: list[_Lap] = field(default_factory=list)
    _shares: dict = field(default_factory=lambda: defaultdict(float))

    def __post_init__(self):
        self.progress.listen(self._enter)
        self._enter(self.progress.phase)

    def take(self) -> IntervalTimes:
        """The times since the last call, or since the start."""
        self._close_lap()
        now = self._laps[-1].part
        clock = self.collectives.clock
        ends = [lap.start for lap in self._laps[1:]] + [clock.mark()]
        seconds, measured, waited = defaultdict(float), defaultdict(float), defaultdict(float)
        for lap, end in zip(self._laps, ends):
            lap_s = clock.seconds(lap.start, end)
            seconds[lap.part] += lap_s
            if lap.waits is not None:
                measured[lap.part] += lap_s
                waited[lap.part] += sum(clock.seconds(*wait) for wait in self.collectives.waits[lap.waits])
        self._laps = [_Lap(now, ends[-1])]
        self.collectives.waits.clear()
        self._first_wait = 0
        self._shares |= {part: min(1.0, waited[part] / measured[part]) for part in measured if measured[part] > 0}
        parts = dict.fromkeys(PARTS, 0.0)
        for part in ("data_wait", "forward_backward", "optimizer", "other"):
            collectives_s = self._shares[part] * seconds[part]
            parts[part] = seconds[part] - collectives_s
            parts["collectives"] += collectives_s
        return IntervalTimes(parts, seconds["evaluating"], seconds["checkpointing"])

    def close(self) -> None:
        self.progress.listen(None)
        self.collectives.stop()

    def _enter(self, phase: str) -> None:
        part = _PART_OF.get(phase, "other")
        if self._laps and self._laps[-1].part == part:
            return
        self._close_lap()
        if part == _STEP_BEGINS_WITH:
            self._num_steps += 1
            if self._num_steps % self.interval == 2 % self.interval:
                self.collectives.start()
            else:
                self.collectives.stop()
        self._laps.append(_Lap(part, self.collectives.clock.mark()))
        self._first_wait = len(self.collectives.waits)

    def _close_lap(self) -> None:
        if self._laps and self.collectives.is_measuring:
            self._laps[-1].waits = slice(self._first_wait, len(self.collectives.waits))
