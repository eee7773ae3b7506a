"""The schedulers that can run a job. Each is a module with one contract:

check(cluster)                                   ConfigError where this scheduler cannot run the job
find_starter() -> str                            the program that starts the processes (mpirun); ConfigError
node_names(cluster) -> list[str]                 the nodes that may be used, spare ones last
build_command(cluster, run_path, python, starter, worker, nodes) -> list[str]    pure: a dry run prints what a run executes
remote_command(cluster, node, command) -> list[str]    of schedulers with several nodes: a quoted command on one of them

cluster is the section `cluster` of a configuration, config the whole of one.

A scheduler with a queue (IS_QUEUED) also has
build_submission(config, run_path, folder), build_script(supervise, python_path)    pure: what is submitted
is_inside_allocation(), allocation_command(config, command)    whether it has its nodes, and the line that gets them
submit(command) -> job number, job_state(number), cancel(number, now), send_signal(number, signal)
and, for the members of a sweep, arrays of jobs: each task is one job by itself
build_array_submission(cluster, name, numbers, at_once, script, folder, has_notice)    pure; the script is build_script's
array_states(number) -> {task: state}, cancel_array(number, now)
"""

import importlib
from types import ModuleType

from robustbert.config import ConfigError

NAMES = ("local", "mpi", "slurm")


def find_scheduler(name: str) -> ModuleType:
    """The scheduler called `name`; ConfigError where it is not there."""
    if name not in NAMES:
        raise ConfigError(f"unknown scheduler {name!r}; known are {', '.join(NAMES)}")
    return importlib.import_module(f"launcher.schedulers.{name}")


def has_queue(scheduler: ModuleType) -> bool:
    """Whether a run waits there for its nodes."""
    return getattr(scheduler, "IS_QUEUED", False)
