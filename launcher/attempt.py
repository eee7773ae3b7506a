"""One job of a run, from its start to the end of its last process: starts it, passes on a stop, ends what hangs."""

import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from launcher.failure import error_files
from launcher.json_tail import JsonTail
from launcher.processes import JOB_MARK, die_with_parent, kill_job
from launcher.stop_request import StopRequest
from robustbert.run_directory import RunDirectory

POLL_S = 0.1
STOP_GRACE_S = 60.0  # from a request to stop until the kill: the time for a checkpoint
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
    job: RunningJob, run: RunDirectory, events: EventsSince, stop: StopRequest, beat: Callable[[], None]
) -> None:
    """Return when no process of the job is left: it ended, or it was killed after one of the times of grace above."""
    stop_clock, error_clock, finish_clock, repeat_clock = Clock(), Clock(), Clock(), Clock()
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
            or stop_clock.elapsed_s > STOP_GRACE_S
            or error_clock.elapsed_s > FAILURE_GRACE_S
            or finish_clock.elapsed_s > FINISH_GRACE_S
        ):
            break
    job.kill()


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
