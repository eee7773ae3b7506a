"""Ranks that are slower than the others: judged by their own time, a step without its collectives.

Whoever is slow makes the others wait in their collectives, so a step takes equally long everywhere and only the own
time tells them apart. It is compared within a pipeline stage: stages have different work.
"""

import statistics
from collections import defaultdict
from dataclasses import dataclass

from launcher.heartbeats import RankPulse

OWN_PARTS = ("data_wait", "forward_backward", "optimizer", "other")


@dataclass(frozen=True)
class Pace:
    """A rank's own time beside that of its stage, in seconds a step; `part`: in which it is furthest above the others."""

    rank: int
    host: str
    step: int
    own_s: float
    median_s: float
    part: str

    @property
    def ratio(self) -> float:
        return self.own_s / self.median_s


def find_paces(pulses: dict[int, RankPulse]) -> dict[int, Pace]:
    """By rank, of those that have reported; a stage with one such rank has nothing to compare it with.

    The median is the lower one of two: of a pair the faster rank is the measure.
    """
    stages = defaultdict(list)
    for pulse in pulses.values():
        if pulse.report is not None and pulse.is_connected:
            stages[pulse.report["stage"]].append(pulse)
    paces = {}
    for members in stages.values():
        median_s = statistics.median_low(pulse.report["own_s"] for pulse in members)
        if len(members) < 2 or median_s <= 0:
            continue
        usual = {part: statistics.median_low(pulse.report["parts"][part] for pulse in members) for part in OWN_PARTS}
        for pulse in members:
            report = pulse.report
            part = max(OWN_PARTS, key=lambda name: report["parts"][name] - usual[name])
            paces[pulse.rank] = Pace(pulse.rank, pulse.host, report["step"], report["own_s"], median_s, part)
    return paces


def held_stragglers(events: list[dict]) -> list[dict]:
    """The events `straggler` of those that are slow by a run's events: neither told to keep up again nor of an ended job."""
    held: dict[int, dict] = {}
    for event in events:
        if event.get("event") == "straggler":
            held[event["rank"]] = event
        elif event.get("event") == "straggler_over":
            held.pop(event["rank"], None)
        elif event.get("event") in ("started", "finished", "preempted", "failed"):
            held.clear()
    return list(held.values())


class Stragglers:
    """Remembers since when a rank is slow; `held`: those called stragglers now, `paces`: the newest of all ranks."""

    def __init__(self, factor: float, after_s: float):
        """A rank is a straggler once its ratio has been above `factor` for `after_s`."""
        self._factor, self._after_s = factor, after_s
        self._slow_since: dict[int, float] = {}
        self.held: dict[int, Pace] = {}
        self.paces: dict[int, Pace] = {}

    @property
    def slowest(self) -> Pace | None:
        return max(self.paces.values(), key=lambda pace: pace.ratio, default=None)

    def update(self, pulses: dict[int, RankPulse]) -> list[dict]:
        """Take the newest reports; returns the events of what has changed. Time counts by the reports' own times."""
        self.paces = find_paces(pulses)
        events = []
        for rank, pace in self.paces.items():
            if pace.ratio <= self._factor:
                self._slow_since.pop(rank, None)
                if self.held.pop(rank, None):
                    events.append({"event": "straggler_over", "rank": rank, "step": pace.step})
                continue
            reported_at = pulses[rank].report["time"]
            is_held = reported_at - self._slow_since.setdefault(rank, reported_at) >= self._after_s
            if is_held and rank not in self.held:
                events.append({"event": "straggler", **_fields(pace)})
            if is_held:
                self.held[rank] = pace
        return events

    def start_over(self) -> list[dict]:
        """The job has ended; returns the events of those that were held."""
        events = [{"event": "straggler_over", "rank": rank, "step": pace.step} for rank, pace in self.held.items()]
        self._slow_since, self.held, self.paces = {}, {}, {}
        return events


def _fields(pace: Pace) -> dict:
    figures = {"ratio": round(pace.ratio, 2), "own_s": round(pace.own_s, 6), "median_s": round(pace.median_s, 6)}
    return {"rank": pace.rank, "host": pace.host, **figures, "part": pace.part, "step": pace.step}
