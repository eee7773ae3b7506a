"""Failures over a run: how many restarts to expect, and how often a checkpoint is worth its time.

The default rate is what Meta published of training Llama 3 (arXiv:2407.21783, section 3.3.4): 419 unexpected
interruptions in 54 days on 16,384 GPUs, that is 2,048 nodes, hence one in 264 days of a node.
"""

import math
from dataclasses import dataclass

NODE_DAYS_BETWEEN_FAILURES = 54 * 2048 / 419


@dataclass(frozen=True)
class Reliability:
    """Seconds but where the name says otherwise."""

    node_days_between_failures: float
    hours_between_failures: float  # of the whole job
    restarts: float  # expected over the run
    save_s: float  # training stands still for one checkpoint
    best_interval_s: float
    best_interval_steps: int
    overhead: float  # share of time that is lost with the configured interval
    best_overhead: float  # the same with the best one


def estimate_reliability(
    run_s: float, step_s: float, interval_steps: int, num_nodes: int, save_s: float, restart_s: float, node_days: float
) -> Reliability:
    """run_s: without failures. Young's interval (CACM 1974): the root of twice the save's time and the time between failures."""
    between = node_days * 86400 / num_nodes
    best = math.sqrt(2 * save_s * between)
    steps = max(1, round(best / step_s))

    def overhead(interval_s: float) -> float:
        return save_s / interval_s + (interval_s / 2 + restart_s) / between

    lost = overhead(interval_steps * step_s)
    return Reliability(
        node_days_between_failures=node_days,
        hours_between_failures=between / 3600,
        restarts=run_s * (1 + lost) / between,
        save_s=save_s,
        best_interval_s=best,
        best_interval_steps=steps,
        overhead=lost,
        best_overhead=overhead(steps * step_s),
    )
