"""Goodput: the time since a run was submitted, split into what it was spent on, from the run's own record.

Imports no torch: the supervisor keeps a ledger line by line, a report accounts a whole record at once.
"""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

TRAINING, LOST, CHECKPOINTING, EVALUATING, STARTING, WAITING = ACTIVITIES = (
    "training",  # steps computed for the first time
    "lost",  # steps computed again after a restart or rollback; what a failure took with it, a hang included
    "checkpointing",  # training stands still for a checkpoint, or for the comparison of replicas before it
    "evaluating",
    "starting",  # data, processes, the checkpoint's verification, the first evaluation
    "waiting",  # in a queue, between attempts, stopped until it was resumed
)
_RUNNING, _ENDED = "running", "ended"
_AFTER = {
    "submitted": WAITING,
    "queued": WAITING,
    "preparing": STARTING,
    "prepared": STARTING,
    "started": _RUNNING,
    "rank_lost": WAITING,
    "hang": WAITING,
    "restarted": STARTING,
    "preempted": _ENDED,
    "failed": _ENDED,
    "finished": _ENDED,
}


@dataclass(frozen=True)
class TimeAccount:
    """Seconds by activity (all of ACTIVITIES), and the spans (start, stop, activity) that they are made of, in order.

    Spans are without gaps; their times are seconds since 1970. The seconds add up to the time from the first span's
    start to the last one's stop.
    """

    seconds: dict[str, float]
    spans: list[tuple[float, float, str]]

    @property
    def elapsed_s(self) -> float:
        return sum(self.seconds.values())

    @property
    def goodput(self) -> float | None:
        """The share of the time in which training got further; None before any time has passed."""
        return self.seconds[TRAINING] / self.elapsed_s if self.elapsed_s > 0 else None


def account_time(events: Iterable[dict], metrics: Iterable[dict], now: float) -> TimeAccount:
    """The account of a run's record (lines of events.jsonl and metrics.jsonl, each in their order) until `now`.

    What is under way at `now` counts as what it seems to be. Of a run that has ended nothing counts after its end; of one
    whose supervisor was killed let `now` be the time of its last line.
    """
    ledger = TimeLedger()
    ledger.add(events, metrics)
    return ledger.account(now)


class TimeLedger:
    """The account of a growing record: each new line costs the same, however long the run has been."""

    def __init__(self):
        self._seconds = dict.fromkeys(ACTIVITIES, 0.0)
        self._spans: list[tuple[float, float, str]] = []
        self._until: float | None = None  # accounted up to here
        self._state = WAITING
        self._pause_ends: float | None = None  # of a restart: waiting until then
        self._step = 0  # where the newest line says that training is
        self._furthest_step = 0  # ever computed and logged
        self._last_save: dict = {}

    def add(self, events: Iterable[dict], metrics: Iterable[dict]) -> None:
        """Lines that have come since the last call. A line that is older than what is accounted moves no time."""
        for line in heapq.merge(metrics, events, key=lambda line: line.get("time", 0.0)):
            if self._until is None:
                self._until = line["time"]
            if "event" in line:
                self._add_event(line)
            elif "step" in line:
                self._add_step(line)

    def account(self, now: float) -> TimeAccount:
        """The account until `now`; the ledger stays as it is."""
        seconds, spans = dict(self._seconds), list(self._spans)
        for start, stop, activity in self._spans_under_way(now):
            seconds[activity] += stop - start
            _extend(spans, start, stop, activity)
        return TimeAccount(seconds, spans)

    def goodput(self, now: float) -> float | None:
        """As the account's, without building its spans."""
        training = self._seconds[TRAINING]
        under_way = self._spans_under_way(now)
        training += sum(stop - start for start, stop, activity in under_way if activity == TRAINING)
        elapsed = sum(self._seconds.values()) + sum(stop - start for start, stop, _ in under_way)
        return training / elapsed if elapsed > 0 else None

    def settle(self, now: float) -> dict[str, float]:
        """Seconds by activity, for a counter: no value ever falls. Of a running job what is logged counts, no more."""
        if self._state != _RUNNING:
            for _, stop, activity in self._spans_under_way(now):
                self._spend(stop, activity)
        return dict(self._seconds)

    def _add_event(self, event: dict) -> None:
        name, at = event["event"], event["time"]
        if name == "checkpoint_saved":
            self._last_save = event
        if name == "rolled_back":
            self._spend(at, LOST)
            self._step = event["to_step"]
        if name not in _AFTER:
            return
        if self._state == _RUNNING:
            self._end_running(event)
        else:
            for _, stop, activity in self._spans_under_way(at):
                self._spend(stop, activity)
            if self._state == _ENDED:  # resumed
                self._spend(at, WAITING)
        self._state = _AFTER[name]
        self._pause_ends = at + event.get("pause_s", 0) if name == "restarted" else None
        if name == "started":
            self._step = event["step"]

    def _add_step(self, line: dict) -> None:
        """A logged step: the time since the last line, less what it says that other things took."""
        at, start = line["time"], self._until
        if self._state != _RUNNING and at > start:
            # The event that tells of the start was lost, or comes late: of the time before, only the step's is known.
            for _, stop, activity in self._spans_under_way(max(start, at - line.get("step_time_s", 0.0))):
                self._spend(stop, activity)
            self._state, self._pause_ends = _RUNNING, None
        for activity in (CHECKPOINTING, EVALUATING):  # they follow a logged step
            self._spend(min(at, self._until + line.get(f"{activity}_s", 0.0)), activity)
        self._spend_on_steps(at, line["step"])

    def _spend_on_steps(self, at: float, step: int) -> None:
        """Training went on to `step` until `at`; what had been computed before is lost."""
        num_steps = step - self._step
        num_again = min(num_steps, max(0, self._furthest_step - self._step))
        share = num_again / num_steps if num_steps > 0 else float(step < self._furthest_step)
        self._spend(self._until + share * max(0.0, at - self._until), LOST)
        self._spend(at, TRAINING)
        self._step, self._furthest_step = step, max(step, self._furthest_step)

    def _end_running(self, event: dict) -> None:
        """The time from the last line to an event that ends a job: its last steps and checkpoint, or lost."""
        name, at = event["event"], event["time"]
        if name not in ("preempted", "finished") or event.get("step", 0) < self._step:
            self._spend(at, LOST)
            return
        saved_at = min(self._last_save.get("time", 0.0), at)
        if self._last_save.get("step") == event["step"] and saved_at > self._until:
            self._spend_on_steps(max(self._until, saved_at - self._last_save["seconds"]), event["step"])
            self._spend(saved_at, CHECKPOINTING)
            self._spend(at, EVALUATING if name == "finished" else CHECKPOINTING)
        elif event["step"] > self._step:
            self._spend_on_steps(at, event["step"])
        else:
            self._spend(at, EVALUATING if name == "finished" else CHECKPOINTING)

    def _spans_under_way(self, now: float) -> list[tuple[float, float, str]]:
        """From what is accounted to `now`, as far as the state tells."""
        if self._until is None or now <= self._until or self._state == _ENDED:
            return []
        if self._state == _RUNNING:
            return [(self._until, now, TRAINING if self._step >= self._furthest_step else LOST)]
        pause_ends = min(now, max(self._until, self._pause_ends or 0.0))
        waited = [(self._until, pause_ends, WAITING)] if pause_ends > self._until else []
        return waited + ([(pause_ends, now, self._state)] if now > pause_ends else [])

    def _spend(self, until: float, activity: str) -> None:
        if until > self._until:
            self._seconds[activity] += until - self._until
            _extend(self._spans, self._until, until, activity)
            self._until = until


def _extend(spans: list[tuple[float, float, str]], start: float, stop: float, activity: str) -> None:
    """Add a span, or make the last one longer where it is of the same activity."""
    if spans and spans[-1][2] == activity:
        start = spans.pop()[0]
    spans.append((start, stop, activity))
