"""Has the job hung, and which processes hold it up: judged from their signs of life, their collectives, their stacks. No side effects."""

import re
from dataclasses import dataclass

from launcher.collectives import GroupRecord
from launcher.heartbeats import RankPulse
from launcher.waits import Wait, find_circle, find_ends, find_waits
from robustbert.config import FaultToleranceConfig
from robustbert.progress import COMPILING

MAX_NAMED = 8
# A process whose main thread is in one of these waits for others.
_WAITS_FOR_OTHERS = re.compile(
    r"torch/distributed/|megatron/core/(pipeline_parallel/p2p_communication|tensor_parallel/mappings|distributed/)"
)


@dataclass(frozen=True)
class Stall:
    """No progress, or no sign of life."""

    reason: str
    step: int | None


def find_stall(
    pulses: dict[int, RankPulse], num_processes: int, started_at: float, now: float, limits: FaultToleranceConfig
) -> Stall | None:
    """Whether the job of `num_processes` processes, started at `started_at`, does not get any further."""
    missing = [rank for rank in range(num_processes) if rank not in pulses]
    if missing and now - started_at > limits.startup_timeout_s:
        return Stall(f"{name_ranks(missing)} not there {now - started_at:.0f} s after the start", None)
    for pulse in pulses.values():
        if now - pulse.heard_at > limits.silence_timeout_s:
            return Stall(f"no sign of life of rank {pulse.rank} for {now - pulse.heard_at:.0f} s", pulse.step)
        limit = limits.startup_timeout_s if pulse.step is None or pulse.phase == COMPILING else limits.hang_timeout_s
        if now - pulse.progress_at > limit:
            return Stall(f"no progress for {now - pulse.progress_at:.0f} s", pulse.step)
    return None


@dataclass(frozen=True)
class Culprits:
    """The processes that the others wait for, and what tells so."""

    ranks: list[int]
    why: str


def find_culprits(
    pulses: dict[int, RankPulse], stacks: dict[int, dict], num_processes: int, now: float, quiet_s: float
) -> Culprits:
    """The ranks that did not arrive where the others wait.

    In this order: those that never came; those silent for quiet_s or without an answer to the request for stacks; those
    without whom the others' collectives cannot end; those behind the others in steps; those whose main thread does not wait
    for other processes, and of these the ones in an earlier phase of the step.
    """
    missing = [rank for rank in range(num_processes) if rank not in pulses]
    if missing:
        return Culprits(missing, "did not come")
    silent = [r for r, pulse in pulses.items() if r not in stacks and (not pulse.is_connected or now - pulse.heard_at > quiet_s)]
    if silent and len(silent) < num_processes:
        return Culprits(sorted(silent), "gives no sign of life")
    if found := _by_collectives(stacks):
        return found
    steps = {rank: -1 if pulse.step is None else pulse.step for rank, pulse in pulses.items()}
    behind = [rank for rank, step in steps.items() if step < max(steps.values())]
    if behind:
        return Culprits(sorted(behind), "is behind the others")
    # On a GPU whoever waits for others stands in a read of its own device: then all seem busy, and the phases tell.
    busy = [rank for rank, answer in stacks.items() if not waits_for_others(answer)]
    if found := _by_phases({rank: pulses[rank] for rank in busy or pulses}):
        return found
    if busy and len(busy) < num_processes:
        return Culprits(sorted(busy), "did not arrive where the others wait")
    return Culprits(sorted(pulses), "all processes wait at the same place")


def _by_collectives(stacks: dict[int, dict]) -> Culprits | None:
    """Those that others wait for, by torch's flight recorders, and that wait for nobody themselves."""
    records = {rank: [GroupRecord(**_tuples(group)) for group in answer.get("collectives") or ()] for rank, answer in stacks.items()}
    waits = find_waits(records)
    # Not recorded are gloo's transfers: who waits in one holds nobody up.
    ends = sorted(rank for rank in find_ends(waits) if not waits_for_others(stacks[rank]))
    if ends:
        lacks = {rank: _most_awaited([wait for wait in waits if wait.for_rank == rank]) for rank in ends}
        if len(set(lacks.values())) == 1:
            return Culprits(ends, lacks[ends[0]])
        each = "; ".join(f"rank {rank} {lacks[rank]}" for rank in ends[:MAX_NAMED])
        return Culprits(ends, f"did not arrive where the others wait: {each}")
    circle = find_circle(waits)
    if circle and not find_ends(waits):
        each = "; ".join(f"rank {wait.for_rank} {wait.lack}, where rank {wait.rank} waits" for wait in circle[:MAX_NAMED])
        return Culprits(sorted(wait.rank for wait in circle), f"wait for each other: {each}")
    return None


def _most_awaited(waits: list[Wait]) -> str:
    """What of a rank most others wait for."""
    lacks = [wait.lack for wait in waits]
    lack = max(lacks, key=lacks.count)
    waiting = sorted({wait.rank for wait in waits if wait.lack == lack})
    return f"{lack}, where {name_ranks(waiting)} wait{'s' * (len(waiting) == 1)}"


def _by_phases(pulses: dict[int, RankPulse]) -> Culprits | None:
    """Those that are in an earlier phase of the step than the one that got furthest."""
    furthest = max(pulses.values(), key=lambda pulse: pulse.count)
    behind = [rank for rank, pulse in pulses.items() if pulse.phase != furthest.phase and pulse.count < furthest.count]
    if not behind:
        return None
    phases = ", ".join(dict.fromkeys(pulses[rank].phase for rank in sorted(behind)))
    return Culprits(sorted(behind), f"is still at {phases!r}, others are at {furthest.phase!r}")


def _tuples(group: dict) -> dict:
    """JSON has lists where GroupRecord has tuples."""
    return group | {"transfers": [tuple(transfer) for transfer in group.get("transfers") or ()]}


def waits_for_others(answer: dict) -> bool:
    """Whether the main thread of a process, by its stacks, is in a collective."""
    parts = re.split(r"\n(?=(?:Current thread|Thread) 0x)", answer["stacks"])
    number = f"{answer.get('main_thread') or 0:016x}"
    main = next((part for part in parts if number in part.splitlines()[0]), parts[-1])
    return bool(_WAITS_FOR_OTHERS.search(main))


def name_ranks(ranks: list[int]) -> str:
    """`rank 3`, `ranks 3, 4, 5`; of many the first ones and their number."""
    shown = ", ".join(map(str, ranks[:MAX_NAMED]))
    more = f" and {len(ranks) - MAX_NAMED} more" if len(ranks) > MAX_NAMED else ""
    return f"rank{'s' * (len(ranks) > 1)} {shown}{more}"
