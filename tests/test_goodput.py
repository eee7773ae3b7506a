"""Goodput: activities add up to the elapsed time, steps computed again are lost, and a line costs the same however many came."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustbert.goodput import ACTIVITIES, TimeLedger, account_time


def step(at: float, number: int, **fields) -> dict:
    return {"time": at, "step": number, "step_time_s": 1.0, **fields}


def event(at: float, name: str, **fields) -> dict:
    return {"time": at, "event": name, **fields}


SUBMITTED = [event(100, "submitted"), event(101, "preparing"), event(104, "prepared"), event(110, "started", step=0)]


def test_a_run_without_trouble_is_starting_training_evaluating_and_checkpointing():
    events = [*SUBMITTED, event(123, "evaluated", step=10), event(150, "checkpoint_saved", step=20, seconds=6, stalled_s=6)]
    events.append(event(155, "finished", step=20))
    metrics = [step(120, 10), step(140, 20, evaluating_s=3.0, checkpointing_s=2.0)]
    account = account_time(events, metrics, now=1000)
    assert account.seconds == {
        "training": 10 + 15 + 4,  # the last four between the last logged step and the last checkpoint's copy
        "lost": 0,
        "checkpointing": 2 + 6,
        "evaluating": 3 + 5,
        "starting": 9,
        "waiting": 1,
    }
    assert account.elapsed_s == 55 and account.goodput == pytest.approx(29 / 55)


def test_steps_computed_again_after_a_restart_are_lost():
    events = [*SUBMITTED, event(135, "rank_lost"), event(136, "restarted", step=10, pause_s=4), event(145, "started", step=10)]
    metrics = [step(120, 10), step(130, 20), step(155, 20), step(165, 30)]
    account = account_time(events, metrics, now=165)
    assert account.seconds["training"] == 10 + 10 + 10
    assert account.seconds["lost"] == 5 + 10
    assert account.seconds["waiting"] == 1 + 1 + 4 and account.seconds["starting"] == 9 + 5
    assert [activity for *_, activity in account.spans][-4:] == ["waiting", "starting", "lost", "training"]


def test_steps_computed_again_after_a_rollback_are_lost():
    events = [*SUBMITTED, event(132, "rolled_back", step=21, to_step=15)]
    metrics = [step(120, 10), step(130, 20), step(142, 25)]
    account = account_time(events, metrics, now=142)
    assert account.seconds["training"] == 20 + 5 and account.seconds["lost"] == 2 + 5


def test_a_hang_is_lost_and_the_time_after_a_stop_counts_once_the_run_goes_on():
    events = [*SUBMITTED, event(500, "hang"), event(501, "failed")]
    assert account_time(events, [step(120, 10)], now=9999).elapsed_s == 401
    assert account_time(events, [step(120, 10)], now=9999).seconds["lost"] == 380
    events += [event(2000, "restarted", step=10, by="the user"), event(2001, "preparing")]
    assert account_time(events, [step(120, 10)], now=2011).seconds["waiting"] == 1 + 1 + 1499
    assert account_time(events, [step(120, 10)], now=2011).seconds["starting"] == 9 + 11


def test_a_stop_that_the_processes_recorded_keeps_the_last_steps_and_one_that_they_did_not_loses_them():
    saved = [*SUBMITTED, event(127, "checkpoint_saved", step=14, seconds=3, stalled_s=1), event(128, "preempted", step=14)]
    account = account_time(saved, [step(120, 10)], now=128)
    assert account.seconds["training"] == 14 and account.seconds["checkpointing"] == 4 and account.seconds["lost"] == 0
    killed = [*SUBMITTED, event(128, "preempted", step=0)]
    account = account_time(killed, [step(120, 10)], now=128)
    assert account.seconds["training"] == 10 and account.seconds["lost"] == 8


@st.composite
def records(draw):
    """Any history: attempts of steps, saves and rollbacks, with clocks of two hosts that do not quite agree."""
    at, current, furthest_saved, metrics = 1000.0, 0, 0, []
    events = [event(at, "submitted"), event(at, "preparing")]
    durations = st.floats(0.01, 50)
    for _ in range(draw(st.integers(1, 4))):
        at += draw(durations)
        events.append(event(at, "started", step=furthest_saved))
        current = furthest_saved
        for _ in range(draw(st.integers(0, 6))):
            at += draw(durations)
            what = draw(st.sampled_from(["log", "log", "log", "save", "roll_back"]))
            if what == "log":
                current += draw(st.integers(1, 7))
                other = {f"{activity}_s": draw(st.floats(0, 20)) for activity in ("evaluating", "checkpointing")}
                metrics.append(step(at + draw(st.floats(-1, 1)), current, **other))
            elif what == "save":
                furthest_saved = current
                events.append(event(at, "checkpoint_saved", step=current, seconds=draw(durations), stalled_s=0.1))
            else:
                current = furthest_saved
                events.append(event(at, "rolled_back", step=current + 1, to_step=furthest_saved))
        at += draw(durations)
        events.append(event(at, draw(st.sampled_from(["rank_lost", "hang"]))))
        events.append(event(at, "restarted", step=furthest_saved, pause_s=draw(st.integers(0, 60))))
    events.append(event(at + draw(durations), draw(st.sampled_from(["finished", "preempted", "failed"])), step=current))
    return events, sorted(metrics, key=lambda line: line["time"])


@given(records(), st.floats(0, 100))
@settings(max_examples=100, deadline=None)
def test_activities_add_up_to_the_elapsed_time_and_spans_have_no_gaps(record, later):
    events, metrics = record
    for now in (events[len(events) // 2]["time"], events[-1]["time"] + later):
        known_events = [line for line in events if line["time"] <= now]
        known_metrics = [line for line in metrics if line["time"] <= now]
        account = account_time(known_events, known_metrics, now)
        assert set(account.seconds) == set(ACTIVITIES) and min(account.seconds.values()) >= 0
        spans = account.spans
        assert account.elapsed_s == pytest.approx(spans[-1][1] - 1000.0 if spans else 0.0)
        if known_events[-1]["event"] not in ("finished", "preempted", "failed"):
            assert account.elapsed_s == pytest.approx(max([now, *(line["time"] for line in known_metrics)]) - 1000.0)
        assert all(before[1] == after[0] and before[2] != after[2] for before, after in zip(spans, spans[1:]))
        assert all(start < stop for start, stop, _ in spans)


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(0, 30)), min_size=1, max_size=8))
@settings(max_examples=100, deadline=None)
def test_no_step_is_training_twice(attempts):
    """Attempts of (steps computed, steps that a checkpoint keeps), a second a step: training is the furthest step's seconds."""
    at, kept, furthest = 0.0, 0, 0
    events, metrics = [event(at, "submitted")], []
    for num_steps, num_kept in attempts:
        events.append(event(at, "started", step=kept))
        for number in range(kept + 1, kept + num_steps + 1):
            at += 1.0
            metrics.append(step(at, number))
        furthest = max(furthest, kept + num_steps)
        kept += min(num_kept, num_steps)
        events.append(event(at, "rank_lost"))
    account = account_time(events, metrics, at)
    assert account.seconds["training"] == furthest
    assert account.seconds["training"] + account.seconds["lost"] == at


@given(records(), st.lists(st.integers(1, 5), max_size=30))
@settings(max_examples=100, deadline=None)
def test_line_by_line_gives_the_same_and_no_settled_second_is_ever_taken_back(record, portions):
    events, metrics = record
    lines = sorted([*metrics, *events], key=lambda line: line["time"])
    ledger, settled, before = TimeLedger(), TimeLedger(), dict.fromkeys(ACTIVITIES, 0.0)
    while lines:
        size = portions.pop() if portions else 1
        portion, lines = lines[:size], lines[size:]
        for one in (ledger, settled):
            one.add([line for line in portion if "event" in line], [line for line in portion if "event" not in line])
        seconds = settled.settle(lines[0]["time"] if lines else portion[-1]["time"] + 1)
        assert all(seconds[activity] >= before[activity] for activity in ACTIVITIES)
        before = seconds
    now = events[-1]["time"] + 5
    assert ledger.account(now).seconds == pytest.approx(account_time(events, metrics, now).seconds)


def test_a_line_costs_the_same_after_days():
    ledger = TimeLedger()
    ledger.add(SUBMITTED, [])

    def time_of(first: int, last: int) -> float:
        lines = [step(110.0 + n, n) for n in range(first, last)]
        started_at = time.process_time()
        for line in lines:
            ledger.add([], [line])
            ledger.settle(line["time"])
        return time.process_time() - started_at

    early = min(time_of(n, n + 2000) for n in (1, 2001, 4001))
    ledger.add([], [step(110.0 + n, n) for n in range(6001, 50_000)])
    late = min(time_of(n, n + 2000) for n in (50_000, 52_000, 54_000))
    assert late < 3 * early
    assert ledger.account(0).seconds["training"] == 55_999
