"""`python -m launcher.sweep.member FOLDER [NUMBER]`: runs one member of a sweep where it is started, and records how it ended.

Without a number it is that of the Slurm array task. The exit code is the member's; 76 where it runs already somewhere.
"""

import argparse
import contextlib
import os
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from launcher.attempt import Clock, RunningJob
from launcher.job_env import find_array_task, num_own_cores, without_ranks
from launcher.stop_request import StopRequest
from launcher.supervisor_record import RunIsSupervised, SupervisorRecord, beat, hold_lock, read_supervisor
from launcher.sweep.folder import Done, Member, read_sweep
from robustbert.config import ConfigError, load_config

RUNS_ALREADY = 76
NOT_STARTED = 127  # exit code of a command that could not be started, as of a shell
STOP_GRACE_S = 15.0  # from the signal to stop until the kill of a command; a run's own time comes before it
POLL_S = 0.1


def run_member(member: Member, environment: dict[str, str]) -> int:
    """Run the member unless it has succeeded; its exit code, or RUNS_ALREADY.

    A signal that asks to stop goes on to the command's process group; what is left after the time of grace is killed.
    """
    member.path.mkdir(parents=True, exist_ok=True)
    try:
        with hold_lock(member):
            if former := read_supervisor(member):
                former.kill_leftover_job()
            return 0 if member.is_success else _run(member, environment)
    except RunIsSupervised:
        return RUNS_ALREADY


def member_environment(environ: Mapping[str, str], num_cores: int, share: int | None, devices: str | None) -> dict[str, str]:
    """The environment of a member's command.

    share: how many processes there are on this host, each of which gets its part of the cores unless the user has set
    OMP_NUM_THREADS. devices: numbers of the GPUs for this member, among those that the user has made visible.
    """
    environment = without_ranks(environ)  # a member is a job of its own
    if share is not None:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, num_cores // share)))
    if devices is not None:
        visible = environ.get("CUDA_VISIBLE_DEVICES")
        names = visible.split(",") if visible else []
        chosen = [names[int(number)] if int(number) < len(names) else number for number in devices.split(",")]
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(chosen)
    return environment


def _run(member: Member, environment: dict[str, str]) -> int:
    stop, record = StopRequest(), SupervisorRecord.of_this_process()
    record.write(member)
    member.done_file.unlink(missing_ok=True)
    started = time.time()
    clock = Clock()
    clock.start()
    title = f"{member.name} on {socket.gethostname()}"
    try:
        job = RunningJob.start(list(member.command), member.log, environment, title, record.job_mark)
    except OSError as error:
        with open(member.log, "a", encoding="utf-8") as log:
            log.write(f"{member.command[0]} cannot be started: {error.strerror}\n")
        exit_code = NOT_STARTED
    else:
        _watch(job, stop, member)
        exit_code = job.process.returncode if job.process.returncode >= 0 else 128 - job.process.returncode
    reason = stop.reason if exit_code else None
    seconds = round(clock.elapsed_s, 2)
    member.write_done(Done(exit_code, seconds, round(started, 3), socket.gethostname(), reason, list(member.command)))
    return exit_code


def _watch(job: RunningJob, stop: StopRequest, member: Member) -> None:
    """Return when no process of the member is left."""
    stopping = Clock()
    while not job.is_over():
        time.sleep(POLL_S)
        beat(member)
        if stop.is_set and not stopping.is_running:
            stopping.start()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(job.process.pid, stop.number)
        if stop.kill_at_once or stopping.elapsed_s > _grace_s(member):
            break
    job.kill()


def _grace_s(member: Member) -> float:
    with contextlib.suppress(ConfigError):
        if member.run is not None:  # its supervisor ends it by then
            return load_config(member.run.config_file).fault_tolerance.stop_grace_s + STOP_GRACE_S
    return STOP_GRACE_S


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m launcher.sweep.member", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("number", type=int, nargs="?")
    parser.add_argument("--share", type=int)
    parser.add_argument("--devices")
    options = parser.parse_args(argv)
    number = find_array_task(os.environ) if options.number is None else options.number
    try:
        sweep = read_sweep(options.folder.absolute())
    except ConfigError as error:
        sys.exit(f"launcher: error: {error}")
    if number is None or number >= len(sweep.members):
        sys.exit(f"launcher: error: {sweep.path} has no member {number}")
    os.chdir(sweep.folder)
    environment = member_environment(os.environ, num_own_cores(), options.share, options.devices)
    return run_member(sweep.members[number], environment)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
