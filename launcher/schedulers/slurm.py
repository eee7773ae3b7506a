"""Runs a job on a Slurm cluster: sbatch starts the supervisor on the first node of an allocation, mpirun the processes on all of it.

What is submitted are a command and a script made by functions without side effects. Options go to sbatch as arguments and paths are
quoted for the script's shell, so a name cannot become a command.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

from launcher.schedulers.mpich import hydra_command, is_hydra
from launcher.schedulers.open_mpi import find_starter, mpirun_command
from robustbert.config import ClusterConfig, ConfigError, RunConfig

__all__ = ["build_command", "build_script", "build_submission", "check", "find_starter", "node_names", "remote_command", "submit"]

IS_QUEUED = True  # a run waits for its nodes: submit returns once it is in the queue
REQUEUE = 75  # the supervisor's exit code after a notice
_COMMAND_TIMEOUT_S = 60
# Slurm tells the shell, the shell tells the supervisor; wait returns at every signal, so it is asked until the process is gone,
# and once more: bash remembers how it ended.
_SCRIPT = """#!/bin/bash
# Starts a supervisor on the first node of the allocation; made by launcher.
export PYTHONPATH={python_path}
{command} &
supervisor=$!
for notice in INT TERM USR1 USR2 QUIT; do
    trap "kill -$notice $supervisor 2> /dev/null" "$notice"
done
while kill -0 "$supervisor" 2> /dev/null; do
    wait "$supervisor"
done
wait "$supervisor"
code=$?
if [ "$code" = {requeue} ]; then
    # Slurm ends this life of the job. An end of our own at the same moment could be taken for that of the next one.
    scontrol requeue "$SLURM_JOB_ID" && echo "the run has saved its state and goes back to the queue" && exec sleep 300
fi
exit "$code"
"""


def check(cluster: ClusterConfig) -> None:
    """ConfigError where this machine submits no Slurm jobs."""
    if shutil.which("sbatch") is None:
        raise ConfigError(
            "sbatch was not found: submit from a login node of the cluster, or run on this machine with --scheduler local "
            "cluster.nodes=1"
        )


def node_names(cluster: ClusterConfig) -> list[str]:
    """The nodes of this allocation, spare ones last; before there is one, names that stand for them."""
    given = os.environ.get("SLURM_JOB_NODELIST")
    if given is None:
        return [f"NODE{number + 1}" for number in range(cluster.nodes + cluster.spare_nodes)]
    return _run(["scontrol", "show", "hostnames", given]).split()


def is_inside_allocation() -> bool:
    """Whether this process runs on nodes that Slurm has given."""
    return "SLURM_JOB_NODELIST" in os.environ


def allocation_options(name: str, cluster: ClusterConfig) -> list[str]:
    """What asks sbatch or salloc for the nodes of a job, spare ones included."""
    options = {
        "job-name": name,
        "nodes": cluster.nodes + cluster.spare_nodes,
        "ntasks-per-node": cluster.processes_per_node,
        "gpus-per-node": cluster.gpus_per_node,
        "partition": cluster.partition,
        "account": cluster.account,
        "time": cluster.time_limit,
        "exclude": ",".join(cluster.exclude) or None,
    }
    return [f"--{name}={value}" for name, value in options.items() if value is not None]


def allocation_command(config: RunConfig, command: list[str]) -> str:
    """The line that runs a command inside an allocation as the run's: in this terminal, or in the queue."""
    options = shlex.join([*allocation_options(config.run.name, config.cluster), *config.cluster.sbatch_options])
    return f"salloc {options} {shlex.join(command)} (or sbatch {options} --wrap {shlex.quote(shlex.join(command))})"


def build_submission(config: RunConfig, run_path: Path, folder: Path) -> list[str]:
    """The sbatch command; `folder` is where relative paths of the configuration start."""
    log = run_path / "logs" / "slurm-%j.log"
    return _submission(config.run.name, config.cluster, run_path / "job.sh", log, folder, has_notice=True)


def build_array_submission(
    cluster: ClusterConfig, name: str, numbers: list[int], at_once: int | None, script: Path, folder: Path, has_notice: bool
) -> list[str]:
    """The sbatch command of a job array with these task numbers, `at_once` of them at the same time; each gets nodes of its own.

    has_notice: the tasks save and leave when they are told before their time limit.
    """
    array = f"--array={number_ranges(numbers)}" + (f"%{at_once}" if at_once else "")
    command = _submission(name, cluster, script, script.parent / "logs" / "slurm-%A_%a.log", folder, has_notice)
    return [command[0], array, *command[1:]]


def number_ranges(numbers: list[int]) -> str:
    """For instance `0-3,7`: as Slurm writes the tasks of an array."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def _submission(name: str, cluster: ClusterConfig, script: Path, log: Path, folder: Path, has_notice: bool) -> list[str]:
    options = {
        "chdir": folder,
        "output": log,
        "open-mode": "append",
        "signal": f"B:USR1@{cluster.notice_s}" if cluster.time_limit and has_notice else None,
    }
    return [
        *("sbatch", "--parsable", "--requeue" if cluster.requeue else "--no-requeue"),
        *(["--no-kill"] if cluster.spare_nodes else []),  # the loss of a node is the supervisor's to handle
        *allocation_options(name, cluster),
        *(f"--{key}={value}" for key, value in options.items() if value is not None),
        *cluster.sbatch_options,
        str(script),
    ]


def build_script(supervise: list[str], python_path: str) -> str:
    """The batch script; supervise: the command of the supervisor, of a run or of one member of a sweep."""
    return _SCRIPT.format(
        python_path=shlex.quote(python_path),
        command=shlex.join(supervise),
        requeue=REQUEUE,
    )


def submit(command: list[str]) -> str:
    """Run sbatch; returns the job's number. ConfigError with Slurm's own words where it refuses."""
    answer = _run(command).strip()
    number = answer.partition(";")[0]
    if not number.isdigit():
        raise ConfigError(f"sbatch gave no job number but: {answer}")
    return number


def build_command(
    cluster: ClusterConfig, run_path: Path, python: str, starter: str, worker: str, nodes: list[str]
) -> list[str]:
    """mpirun on these nodes of the allocation; pure, its arguments need no shell."""
    program = [python, "-m", worker, str(run_path)]
    if is_hydra(starter):
        return hydra_command(starter, nodes, cluster.processes_per_node, program, ("-launcher", "slurm"))
    # --overlap: beside the step of an attempt that a lost node keeps from ending.
    by_slurm = ("--prtemca", "plm", "slurm", "--prtemca", "plm_slurm_args", "--overlap")
    return mpirun_command(starter, nodes, cluster.processes_per_node, program, by_slurm)


def remote_command(cluster: ClusterConfig, node: str, command: list[str]) -> list[str]:
    """A command on one node of the allocation, beside what runs there."""
    words = ["srun", "--overlap", "--nodes=1", "--ntasks=1", f"--nodelist={node}", "--immediate=20"]
    return [*words, "sh", "-c", " ".join(command)]


def job_state(number: str) -> str | None:
    """For instance `PENDING (Resources)`; None where Slurm does not know the job (any more)."""
    try:
        answer = _run(["squeue", "--noheader", f"--jobs={number}", "--format=%T (%R)"]).strip()
    except ConfigError:
        return None
    return _in_words(answer) or None


def cancel(number: str, now: bool) -> None:
    """Have the supervisor save and stop; `now`, or while the job waits, end it at once. ConfigError where Slurm refuses."""
    state = job_state(number) or ""
    if now or not state.startswith("RUNNING"):
        _run(["scancel", number])
    else:
        send_signal(number, signal.SIGINT)


def send_signal(number: str, signal_number: signal.Signals) -> None:
    """Send a signal to the batch script of a job, or of every running task of an array: it passes it on to the supervisor."""
    _run(["scancel", "--batch", f"--signal={signal_number.name.removeprefix('SIG')}", number])


def array_states(number: str) -> dict[int, str]:
    """What the queue says of each task of an array that it still knows, for instance {3: "RUNNING (node1)"}."""
    try:
        lines = _run(["squeue", "--noheader", "--array", f"--jobs={number}", "--format=%K %T (%R)"]).splitlines()
    except ConfigError:
        return {}
    words = [line.strip().partition(" ") for line in lines]
    return {int(task): _in_words(state) for task, _, state in words if task.isdigit()}


def cancel_array(number: str, now: bool) -> None:
    """Take the waiting tasks out of the queue and have the others stop (`now`: at once). ConfigError where Slurm refuses."""
    if now:
        _run(["scancel", number])
        return
    _run(["scancel", "--state=PENDING", number])
    if array_states(number):
        send_signal(number, signal.SIGINT)


def _in_words(state: str) -> str:
    """%R has brackets of its own around a reason, and may be empty."""
    return re.sub(r" \(\)$", "", re.sub(r"\(\((.*)\)\)$", r"(\1)", state.strip()))


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_COMMAND_TIMEOUT_S)
    except FileNotFoundError:
        raise ConfigError(f"{command[0]} was not found: this machine is not part of a Slurm cluster") from None
    except subprocess.TimeoutExpired:
        raise ConfigError(f"{command[0]} did not answer within {_COMMAND_TIMEOUT_S} s") from None
    if done.returncode:
        words = " ".join(line.removeprefix(f"{command[0]}: error: ") for line in done.stderr.strip().splitlines()[-2:])
        raise ConfigError(f"Slurm's {command[0]} refuses: {words or f'exit code {done.returncode}'}")
    return done.stdout
