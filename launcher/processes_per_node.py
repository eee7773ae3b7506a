"""How many processes a node gets: `cluster.processes_per_node: auto` becomes a number, and one that cannot work is refused."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from launcher.job_env import count_gpus, num_own_cores, shares_gpus
from robustbert.config import AUTO, ClusterConfig, ConfigError, RunConfig, load_config

_WITHOUT_GPUS = 2


def load_run_config(
    path: str | Path, overrides: list[str] | tuple[str, ...] = (), at_once: int = 1, num_gpus: Callable[[], int] | None = None
) -> RunConfig:
    """load_config, and `auto` as the number of processes that suits; ConfigError where no number does.

    at_once: runs that share cluster.gpus_per_node. num_gpus: of this machine, asked for where it matters.
    """
    config = load_config(path, overrides)
    if config.cluster.processes_per_node != AUTO:
        return config
    most, words = most_processes(config.cluster, at_once, num_gpus or gpus_here, num_own_cores())
    return with_processes(config, most, words)


def gpus_here() -> int:
    return count_gpus(os.environ)


def most_processes(cluster: ClusterConfig, at_once: int, num_gpus: Callable[[], int], num_cores: int) -> tuple[int, str]:
    """The most that `auto` can mean, and where that comes from: one process a GPU; without GPUs 2, or 1 on a single core."""
    if cluster.scheduler != "local":
        if cluster.gpus_per_node is None:
            raise ConfigError(
                f"cluster.processes_per_node: auto counts the GPUs of this machine, and with the scheduler {cluster.scheduler} the processes "
                "run on others; give the number, or cluster.gpus_per_node=N for one process a GPU"
            )
        return max(1, cluster.gpus_per_node // at_once), f"cluster.gpus_per_node is {cluster.gpus_per_node}"
    gpus = num_gpus()
    if not gpus:
        return min(_WITHOUT_GPUS, num_cores), f"this machine has no GPU and {num_cores} core{'s' * (num_cores != 1)}"
    share = gpus if cluster.gpus_per_node is None else max(1, min(gpus, cluster.gpus_per_node) // at_once)
    return share, f"this machine has {_gpus(gpus)}"


def with_processes(config: RunConfig, most: int, words: str) -> RunConfig:
    """The configuration with the largest number of processes a node, up to `most`, in whose layout all sizes divide."""
    for number in range(most, 0, -1):
        try:
            return replace(config, cluster=replace(config.cluster, processes_per_node=number))
        except ConfigError as error:
            reason = str(error)  # in the end why one process does not do
    raise ConfigError(f"cluster.processes_per_node: auto finds no number from 1 to {most} that suits ({words}); with 1: {reason}")


def check_gpus(cluster: ClusterConfig, num_gpus: Callable[[], int] = gpus_here, may_share: bool | None = None) -> None:
    """ConfigError where processes of this machine would have to share a GPU; without any they share the cores."""
    if cluster.scheduler != "local" or cluster.processes_per_node == 1:
        return
    gpus = num_gpus()
    if 0 < gpus < cluster.processes_per_node and not (shares_gpus(os.environ) if may_share is None else may_share):
        raise ConfigError(
            f"cluster.processes_per_node ({cluster.processes_per_node}) is more than this machine's {_gpus(gpus)}, and NCCL refuses two processes "
            "on one; use cluster.processes_per_node=auto, or train on the CPU: CUDA_VISIBLE_DEVICES= launcher ..."
        )


def _gpus(number: int) -> str:
    return f"{number} GPU{'s' * (number != 1)}"
