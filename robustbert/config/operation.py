"""The sections of how a run is operated: checkpoints, faults, the cluster, monitoring. They change nothing of what is learned."""

import re
from dataclasses import dataclass
from typing import Literal

from robustbert.config.sections import ConfigError, require, require_positive

AUTO = "auto"


@dataclass(frozen=True)
class CheckpointConfig:
    """When to save, and which checkpoints stay."""

    interval: int = 1000  # steps
    keep_last: int = 3
    keep_every: int | None = None  # steps: every checkpoint at a multiple of this stays
    asynchronous: bool = True  # training stops only to copy the state; costs host memory of its size
    retries: int = 2  # of a write that fails; after them training goes on without this checkpoint

    def __post_init__(self):
        require_positive("checkpoint", interval=self.interval, keep_last=self.keep_last)
        require(self.retries >= 0, f"checkpoint.retries must not be below 0, it is {self.retries}")
        require(
            self.keep_every is None or (self.keep_every > 0 and self.keep_every % self.interval == 0),
            f"checkpoint.keep_every ({self.keep_every}) must be a multiple of checkpoint.interval ({self.interval})",
        )


@dataclass(frozen=True)
class FaultToleranceConfig:
    """What the run does when something breaks."""

    max_restarts: int = 3  # in a row without a new checkpoint between them
    hang_timeout_s: int = 1800  # a process that gets no further for so long has hung: stacks are collected, the job restarts
    startup_timeout_s: int = 1800  # the same until the first step: imports, data, verification of the checkpoint
    silence_timeout_s: int = 120  # a process that gives no sign of life for so long is lost
    stop_grace_s: int = 60  # from a notice to stop until the processes are killed: the time for a checkpoint
    start_over: bool = False  # train from step 0 where none of the run's checkpoints is good
    min_nodes: int | None = None  # go on with as few, at a smaller data-parallel size; default: cluster.nodes
    max_node_failures: int = 2  # of a node; then it is left out
    # Training that goes wrong: back to the newest checkpoint, and on with other data.
    max_rollbacks: int = 5  # over the whole run; 0: the run ends instead
    spike_factor: float = 20.0  # a gradient norm above this many times the median of the last spike_window is a spike; 0: never
    spike_window: int = 100  # applied steps
    replica_check_interval: int | None = None  # steps between comparisons of the data-parallel replicas' weights

    def __post_init__(self):
        positive = ("hang_timeout_s", "startup_timeout_s", "silence_timeout_s", "stop_grace_s", "max_node_failures", "spike_window")
        require_positive("fault_tolerance", **{key: getattr(self, key) for key in positive})
        for key in ("max_restarts", "max_rollbacks", "spike_factor"):
            require(getattr(self, key) >= 0, f"fault_tolerance.{key} must not be below 0, it is {getattr(self, key)}")
        for key in ("min_nodes", "replica_check_interval"):
            value = getattr(self, key)
            require(value is None or value > 0, f"fault_tolerance.{key} must be above 0, it is {value}")


@dataclass(frozen=True)
class ClusterConfig:
    """Where the processes run."""

    scheduler: Literal["local", "mpi", "slurm"] = "local"
    nodes: int = 1
    # auto: one a GPU, without GPUs 2; the most up to that for which the batch and the layout divide. A run's config.yaml has the number.
    processes_per_node: int | Literal["auto"] = 1
    hosts: tuple[str, ...] = ()  # of the scheduler mpi; those beyond `nodes` are spare
    hostfile: str | None = None  # of the scheduler mpi: one host a line, instead of `hosts`
    remote_shell: str = "ssh"  # of the scheduler mpi: called as REMOTE_SHELL HOST COMMAND..., by MPICH with ssh's -x before the host
    exclude: tuple[str, ...] = ()  # nodes that the job must not get; of the schedulers mpi and slurm
    gpus_per_node: int | None = None  # of the schedulers slurm and mpi; a sweep's members on one host share them out
    # Of the scheduler slurm:
    spare_nodes: int = 0  # allocated beside `nodes`, to take the place of one that fails
    partition: str | None = None
    account: str | None = None
    time_limit: str | None = None  # as Slurm writes it: minutes, HH:MM:SS, D-HH
    notice_s: int = 180  # before the time limit: the run is told to save and goes back to the queue
    requeue: bool = True
    sbatch_options: tuple[str, ...] = ()  # anything else, such as --constraint=v100

    def __post_init__(self):
        require_positive("cluster", nodes=self.nodes, processes_per_node=1 if self.processes_per_node == AUTO else self.processes_per_node)
        for host in self.hosts:
            require(
                bool(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", host)),
                f"cluster.hosts: {host!r} is no name or address of a host",
            )
        require(len(set(self.hosts)) == len(self.hosts), "cluster.hosts names a host twice")
        require(not (self.hosts and self.hostfile), "cluster.hosts and cluster.hostfile exclude each other")
        require(self.spare_nodes >= 0, f"cluster.spare_nodes must not be below 0, it is {self.spare_nodes}")
        require_positive("cluster", notice_s=self.notice_s, gpus_per_node=self.gpus_per_node or 1)
        for option in self.sbatch_options:
            require(option.startswith("-"), f"cluster.sbatch_options: {option!r} is no option of sbatch")
        require(
            self.time_limit is None or bool(re.fullmatch(r"(\d+-)?\d+(:\d+){0,2}", self.time_limit)),
            f"cluster.time_limit ({self.time_limit!r}) is not written as Slurm does: minutes, HH:MM:SS or D-HH:MM:SS, in quotes",
        )

    @property
    def num_processes(self) -> int:
        """Processes of the whole job, one a GPU; ConfigError where they are not counted yet."""
        if self.processes_per_node == AUTO:
            raise ConfigError("cluster.processes_per_node: auto is resolved when a run is submitted; give a number here")
        return self.nodes * self.processes_per_node


@dataclass(frozen=True)
class MonitoringConfig:
    """What is measured of a run, and where it is offered to Prometheus. Training never waits for any of it."""

    prometheus_port: int | None = 9400  # the first one tried; where it is taken one of the next 99 serves; null: none
    bind_address: str = "127.0.0.1"  # of the exporters; an empty one, or 0.0.0.0, for Prometheus on another host
    tensorboard: bool = False  # event files in RUN/tensorboard; needs the extra `tensorboard`
    push_gateway: str | None = None  # URL of a Pushgateway: it gets the last state when the run ends
    collectives_interval: int = 10  # of so many steps one has its collectives timed
    straggler_factor: float = 1.3  # a rank whose own time is above this many times its pipeline stage's median is slow,
    straggler_after_s: float = 300.0  # and a straggler once it has been so for so long

    def __post_init__(self):
        require(
            self.prometheus_port is None or 0 < self.prometheus_port < 65536,
            f"monitoring.prometheus_port must lie between 1 and 65535, it is {self.prometheus_port}",
        )
        require_positive("monitoring", collectives_interval=self.collectives_interval)
        require(
            self.straggler_factor > 1,
            f"monitoring.straggler_factor must be above 1, it is {self.straggler_factor}: 1 is as fast as the others",
        )
        require(self.straggler_after_s >= 0, f"monitoring.straggler_after_s must not be below 0, it is {self.straggler_after_s}")
        require(
            self.push_gateway is None or self.push_gateway.startswith(("http://", "https://")),
            f"monitoring.push_gateway ({self.push_gateway!r}) is no URL: it begins with http:// or https://",
        )
