"""Job: which process of a job this is, and where its processes meet. Found by launcher/job_env.py."""

from dataclasses import dataclass, field

from robustbert.progress import Progress


@dataclass(frozen=True)
class Job:
    """One process' place in a job of `world_size` processes."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0  # among the processes of this node; picks the GPU
    master_address: str = "127.0.0.1"
    master_port: int = 0  # 0: one process, nothing to meet
    attempt: int = 1  # above 1: another job of the same run failed a moment ago
    has_store: bool = False  # the starter keeps a key-value store at the meeting point (torchrun's agent)
    progress: Progress = field(default_factory=Progress, compare=False, repr=False)
