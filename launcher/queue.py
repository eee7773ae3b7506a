"""Runs that wait in a scheduler's queue: puts them there, knows where they stand, signals them, takes them out."""

import shlex
import signal
import sys
from pathlib import Path
from types import ModuleType

from launcher.programs import Programs, python_path
from launcher.run_status import queue_state, queued_job, run_argument, ways_to_follow
from launcher.schedulers import find_scheduler
from robustbert.config import ConfigError, RunConfig
from robustbert.run_directory import RunDirectory


def supervise_command(run_path: Path, programs: Programs) -> list[str]:
    """What the batch script runs."""
    return [sys.executable, "-m", "launcher", "supervise", str(run_path), *programs.as_options()]


def describe_submission(config: RunConfig, run_path: Path, scheduler: ModuleType, programs: Programs) -> str:
    """For a dry run: the command and the script, exactly as they would be used."""
    command = scheduler.build_submission(config, run_path, Path.cwd())
    script = scheduler.build_script(supervise_command(run_path, programs), python_path())
    indented = "\n".join(f"  {line}" for line in script.rstrip().splitlines())
    return f"submitted with:\n  {shlex.join(command)}\n{run_path / 'job.sh'}:\n{indented}"


def put_into_queue(run: RunDirectory, config: RunConfig, scheduler: ModuleType, programs: Programs) -> int:
    """Submit the run's batch job and say how to follow it. ConfigError with the scheduler's words where it is refused."""
    run.logs.mkdir(exist_ok=True)
    path = run.path.absolute()
    script = path / "job.sh"
    script.write_text(scheduler.build_script(supervise_command(path, programs), python_path()))
    script.chmod(0o755)
    number = scheduler.submit(scheduler.build_submission(config, path, Path.cwd()))
    run.append_event("queued", job=number, scheduler=config.cluster.scheduler)
    print(f"run {run.path.name} is in the queue as job {number}\n{ways_to_follow(run)}")
    return 0


def cancel_in_queue(run: RunDirectory, now: bool) -> str | None:
    """Take the run's job out of the queue, or have it save and stop; returns the job's number, None where it has none."""
    job = queued_job(run)
    if job is None or queue_state(run) is None:
        return None
    find_scheduler(job["scheduler"]).cancel(job["job"], now)
    return job["job"]


def signal_in_queue(run: RunDirectory, number: signal.Signals) -> str | None:
    """Send a signal to the supervisor of the run's job; returns the job's number, None where it has none.

    ConfigError where the job waits: nothing is there to take the signal.
    """
    job = queued_job(run)
    if job is None or (state := queue_state(run)) is None:
        return None
    if not state.startswith("RUNNING"):
        raise ConfigError(f"job {job['job']} of run {run.path.name!r} is not running: {state}; to take it out of the queue: launcher cancel {run_argument(run)}")
    find_scheduler(job["scheduler"]).send_signal(job["job"], number)
    return job["job"]
