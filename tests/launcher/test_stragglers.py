"""Slow ranks: told by their own time within their stage, once they have been slow for long enough."""

import pytest

from launcher.event_text import event_line
from launcher.heartbeats import RankPulse
from launcher.stragglers import Stragglers, find_paces, held_stragglers


def pulse(rank: int, own_s: float, at: float = 0.0, stage: int = 0, **slow_part) -> RankPulse:
    parts = {"data_wait": 0.0, "forward_backward": own_s, "collectives": 1.0, "optimizer": 0.0, "other": 0.0}
    if slow_part:
        ((part, seconds),) = slow_part.items()
        parts |= {"forward_backward": own_s - seconds, part: seconds}
    report = {"time": at, "step": int(at), "stage": stage, "own_s": own_s, "parts": parts, "memory": {}}
    return RankPulse(rank, f"n{rank // 2}", 100 + rank, 0.0, 0.0, report=report)


def by_rank(*pulses: RankPulse) -> dict[int, RankPulse]:
    return {pulse.rank: pulse for pulse in pulses}


def test_a_rank_is_compared_with_its_stage_and_of_a_pair_the_faster_is_the_measure():
    paces = find_paces(by_rank(pulse(0, 1.0), pulse(1, 3.0, data_wait=2.0), pulse(2, 8.0, stage=1), pulse(3, 8.0, stage=1)))
    assert {rank: pace.ratio for rank, pace in paces.items()} == {0: 1.0, 1: 3.0, 2: 1.0, 3: 1.0}
    assert paces[1].part == "data_wait" and paces[1].host == "n0"


def test_without_another_rank_or_a_report_there_is_nothing_to_compare():
    silent = RankPulse(1, "n0", 101, 0.0, 0.0)
    assert find_paces(by_rank(pulse(0, 5.0), silent)) == {}
    assert Stragglers(1.3, 0).update(by_rank(pulse(0, 5.0), silent)) == []


def test_a_straggler_is_told_once_after_the_time_and_once_when_it_is_over():
    stragglers = Stragglers(factor=1.3, after_s=60)
    told = []
    for at, own_s in [(0, 1.0), (10, 2.0), (60, 2.0), (69, 2.1), (70, 2.2), (80, 2.4), (90, 1.2), (100, 2.0), (130, 1.0)]:
        told += stragglers.update(by_rank(pulse(0, 1.0, at), pulse(1, 1.0, at), pulse(2, own_s, at), pulse(3, 1.1, at)))
        assert (2 in stragglers.held) == (at in (70, 80))
    figures = {"rank": 2, "host": "n1", "ratio": 2.2, "own_s": 2.2, "median_s": 1.0, "part": "forward_backward", "step": 70}
    assert told == [{"event": "straggler", **figures}, {"event": "straggler_over", "rank": 2, "step": 90}]
    assert event_line(told[0]).startswith("step 70: rank 2 on n1 is slow") and "forward_backward" in event_line(told[0])
    assert held_stragglers(told[:1]) == told[:1] and held_stragglers(told) == []
    assert held_stragglers([told[0], {"event": "started"}]) == []
    assert event_line(told[1]) == "step 90: rank 2 keeps up again"


def test_reports_that_do_not_come_make_nobody_a_straggler():
    stragglers = Stragglers(factor=1.3, after_s=60)
    pulses = by_rank(pulse(0, 1.0, 10), pulse(1, 5.0, 10))
    assert [stragglers.update(pulses) for _ in range(1000)][-1] == [] and not stragglers.held


def test_the_end_of_a_job_ends_its_stragglers():
    stragglers = Stragglers(factor=1.3, after_s=0)
    stragglers.update(by_rank(pulse(0, 1.0, 10), pulse(1, 5.0, 10)))
    assert stragglers.slowest.rank == 1 and stragglers.slowest.ratio == pytest.approx(5)
    assert stragglers.start_over() == [{"event": "straggler_over", "rank": 1, "step": 10}]
    assert stragglers.slowest is None and not stragglers.held
