"""Has the job hung, and which processes hold it up: judged from their signs of life and their stacks. No side effects."""

import re
from dataclasses import dataclass

from launcher.heartbeats import RankPulse
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
    behind the others in steps; those whose main thread does not wait for other processes.
    """
    missing = [rank for rank in range(num_processes) if rank not in pulses]
    if missing:
        return Culprits(missing, "did not come")
    silent = [r for r, pulse in pulses.items() if r not in stacks and (not pulse.is_connected or now - pulse.heard_at > quiet_s)]
    if silent and len(silent) < num_processes:
        return Culprits(sorted(silent), "gives no sign of life")
    steps = {rank: -1 if pulse.step is None else pulse.step for rank, pulse in pulses.items()}
    behind = [rank for rank, step in steps.items() if step < max(steps.values())]
    if behind:
        return Culprits(sorted(behind), "is behind the others")
    busy = [rank for rank, answer in stacks.items() if not waits_for_others(answer)]
    if busy and len(busy) < num_processes:
        return Culprits(sorted(busy), "did not arrive where the others wait")
    return Culprits(sorted(pulses), "all processes wait at the same place")


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
