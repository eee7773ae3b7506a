"""One job of a run, from its start to the end of its last process: starts it, passes on a stop, ends what hangs."""

import re
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from launcher.collectives import GroupRecord
from launcher.failure import Failure, error_files
from launcher.hang import MAX_NAMED, Stall, find_culprits, find_stall, name_ranks
from launcher.heartbeats import Heartbeats, RankPulse
from launcher.processes import JOB_MARK, die_with_parent, kill_job
from launcher.pulse import PERIOD_S
from launcher.stop_request import StopRequest
from launcher.waits import group_name
from robustbert.config import RunConfig
from robustbert.json_lines import JsonTail, say_error
from robustbert.run_directory import RunDirectory

POLL_S = 0.1
STACKS_TIMEOUT_S = 2.0
STOP_REPEAT_S = 2.0  # a process that has only just started may have missed the first signal
FAILURE_GRACE_S = 10.0  # from a rank's error until the kill of those that mpirun has not ended
FINISH_GRACE_S = 60.0  # from the run's last word until the kill of processes that do not leave


@dataclass
class RunningJob:
    """A command in a session of its own; its output goes to a log. `mark`: in the environment of all its processes."""

    process: subprocess.Popen
    mark: str

    @classmethod
    def start(cls, command: list[str], log: Path, environment: dict[str, str], title: str, mark: str) -> "RunningJob":
        """Start the command; `title` and the command line head its part of the log."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"=== {title}, {time.strftime('%Y-%m-%d %H:%M:%S')}: {shlex.join(command)}\n")
            file.flush()
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment | {JOB_MARK: mark},
                start_new_session=True,  # the terminal's Ctrl-C does not reach it
                preexec_fn=lambda: die_with_parent(signal.SIGTERM),
            )
        return cls(process, mark)

    def is_over(self) -> bool:
        return self.process.poll() is not None

    def request_stop(self) -> None:
        """SIGUSR1: mpirun passes it on to every rank, which saves a checkpoint and leaves."""
        if not self.is_over():
            self.process.send_signal(signal.SIGUSR1)

    def kill(self) -> None:
        """End every process of the job, also those that outlived mpirun."""
        kill_job(self.mark)
        self.process.wait()


class EventsSince:
    """The run's events after the moment of its construction."""

    def __init__(self, run: RunDirectory):
        self._tail = JsonTail(run.events_file, from_end=True)
        self._events: list[dict] = []

    def last(self, *names: str) -> dict | None:
        """The newest of the events with one of these names."""
        self._events += self._tail.new_lines()
        return next((event for event in reversed(self._events) if event["event"] in names), None)


def watch_training(
    job: RunningJob,
    run: RunDirectory,
    events: EventsSince,
    stop: StopRequest,
    heartbeats: Heartbeats,
    config: RunConfig,
    num_processes: int,
    beat: Callable[[], None],
) -> Failure | None:
    """Return when no process of the job is left: it ended, or it was killed after one of the times of grace above.

    The failure is that of a job that hung (event `hang`); what else ended it is for find_failure.
    """
    limits = config.fault_tolerance
    started_at = time.monotonic()
    stop_clock, error_clock, finish_clock, repeat_clock = Clock(), Clock(), Clock(), Clock()
    failure = None
    while not job.is_over():
        time.sleep(POLL_S)
        beat()
        if stop.is_set and not stop_clock.is_running:
            run.append_event("stopping", reason=stop.reason)
        if stop.is_set and (not repeat_clock.is_running or repeat_clock.elapsed_s > STOP_REPEAT_S):
            job.request_stop()
            stop_clock.start()
            repeat_clock.restart()
        if error_files(run):
            error_clock.start()
        if events.last("finished", "preempted"):
            finish_clock.start()
        if (
            stop.kill_at_once
            or stop_clock.elapsed_s > limits.stop_grace_s
            or error_clock.elapsed_s > FAILURE_GRACE_S
            or finish_clock.elapsed_s > FINISH_GRACE_S
        ):
            break
        pulses = heartbeats.pulses()
        stall = find_stall(pulses, num_processes, started_at, time.monotonic(), limits)
        if stall is not None and not (error_clock.is_running or finish_clock.is_running or stop_clock.is_running):
            failure = _report_hang(stall, run, heartbeats, num_processes)
            break
    job.kill()
    return failure


def _report_hang(stall: Stall, run: RunDirectory, heartbeats: Heartbeats, num_processes: int) -> Failure:
    """Collect the stacks of all processes, name those that hold the others up, write the event."""
    stacks = heartbeats.collect_stacks(STACKS_TIMEOUT_S)
    pulses = heartbeats.pulses()
    culprits = find_culprits(pulses, stacks, num_processes, time.monotonic(), quiet_s=2 * PERIOD_S)
    file = write_stacks(run, pulses, stacks)
    hosts = tuple(dict.fromkeys(pulses[rank].host for rank in culprits.ranks if rank in pulses))
    where = f" on {', '.join(hosts)}" if hosts else ""
    states = "".join(f"; {text}" for rank in culprits.ranks[:MAX_NAMED] if (text := describe_process(pulses.get(rank))))
    reason = f"{stall.reason}: {name_ranks(culprits.ranks)}{where} {culprits.why}{states}"
    run.append_event("hang", reason=reason, ranks=culprits.ranks, hosts=list(hosts), step=stall.step, stacks=str(file))
    rank = culprits.ranks[0] if len(culprits.ranks) == 1 else None
    blamed = hosts if len(culprits.ranks) < num_processes else ()  # where all wait no node is at fault
    return Failure(reason, rank, blamed[0] if len(blamed) == 1 else None, "hang", step=stall.step, hosts=blamed)


def write_stacks(run: RunDirectory, pulses: dict[int, RankPulse], stacks: dict[int, dict]) -> Path:
    """All processes' collectives and stacks in one file of logs/; returns its path."""
    number = 1
    while (path := run.logs / f"hang_{number:03d}.txt").exists():
        number += 1
    parts = []
    for rank, pulse in sorted(pulses.items()):
        title = f"=== rank {rank} on {pulse.host}, pid {pulse.pid}: {pulse.phase}, step {pulse.step}"
        answer = stacks.get(rank, {})
        parts.append("\n".join([title, *map(describe_group, answer.get("collectives") or ()), answer.get("stacks", "no answer"), ""]))
    try:
        path.write_text("\n".join(parts), encoding="utf-8")
    except OSError as error:  # a full disk is no reason to give the run up
        say_error(f"{path} cannot be written: {error}")
    return path


def describe_group(group: dict) -> str:
    """One GroupRecord (launcher/collectives.py), for instance `tensor-parallel group [0, 1]: all_reduce 12 is the newest, waits in all_reduce 11`."""
    record = GroupRecord(**group)
    parts = [f"{record.operation} {record.enqueued} is the newest" if record.enqueued else "no collective known"]
    parts += [f"waits in {record.waiting_operation} {record.waiting}"] if record.waiting else []
    parts += [f"waits to {'send to' if sends else 'receive from'} rank {peer}" for sends, peer in record.transfers]
    return f"{group_name(record)} {record.ranks}: {', '.join(parts)}"


def describe_process(pulse: RankPulse | None) -> str:
    """For instance `pid 123 is stopped (by a signal)`; empty on another host or where the state tells nothing."""
    if pulse is None or pulse.machine != socket.gethostname():
        return ""
    try:
        state = psutil.Process(pulse.pid).status()
    except psutil.Error:
        return f"pid {pulse.pid} is gone"
    shown = {psutil.STATUS_STOPPED: "stopped (by a signal)", psutil.STATUS_DISK_SLEEP: "waiting for a disk"}
    shown |= {psutil.STATUS_ZOMBIE: "dead", psutil.STATUS_TRACING_STOP: "stopped by a debugger"}
    return f"pid {pulse.pid} is {shown[state]}" if state in shown else ""


class Clock:
    """Seconds since its first start; 0 before."""

    def __init__(self):
        self._started_at: float | None = None

    def start(self) -> None:
        if self._started_at is None:
            self._started_at = time.monotonic()

    def restart(self) -> None:
        self._started_at = time.monotonic()

    @property
    def is_running(self) -> bool:
        return self._started_at is not None

    @property
    def elapsed_s(self) -> float:
        return 0.0 if self._started_at is None else time.monotonic() - self._started_at


def newest_checkpoint_step(run: RunDirectory) -> int | None:
    """The step of the newest complete checkpoint."""
    names = [path.parent.name for path in run.checkpoints.glob("step_*/COMMITTED")]
    return max((int(name[5:]) for name in names if re.fullmatch(r"step_\d+", name)), default=None)
