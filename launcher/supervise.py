"""The supervisor of one run: prepares its data, trains it, restarts it after failures, and lets its summary be written.

It runs in the background, apart from the terminal. What it does stands in the run's events; who watches reads those.
"""

import os
import shlex
import sys
import time
import traceback

from launcher.attempt import Clock, EventsSince, RunningJob, newest_checkpoint_step, watch_training
from launcher.error_record import ErrorRecord
from launcher.failure import Failure, find_failure, set_aside_error_files
from launcher.job_env import rank_environment
from launcher.prepare_data import prepare_error_file, progress_file
from launcher.programs import Programs, module_command, python_path
from launcher.schedulers import find_scheduler
from launcher.stop_request import StopRequest
from launcher.supervisor_record import SupervisorRecord, beat, hold_lock, read_supervisor
from robustbert.config import load_config
from robustbert.run_directory import RunDirectory

FINISHED, FAILED = 0, 1  # exit codes; a stopped run's are in StopRequest
LONGEST_PAUSE_S = 60
POLL_S = 0.1


def supervise(run: RunDirectory, programs: Programs) -> int:
    """Run the run in `run.path` to its end; returns the exit code.

    `run.path` is absolute. 0 finished, 1 failed, 130 stopped by the user, 75 preempted (resume it).
    RunIsSupervised where another process supervises the run.
    """
    with hold_lock(run):
        former = read_supervisor(run)
        if former is not None and (num_left := former.kill_leftover_job()):
            print(f"ended {num_left} processes that a killed supervisor had left")
        _go_to_folder_of_submit(run)
        return Supervisor(run, programs).supervise()


class Supervisor:
    """One supervision of one run, from the data's preparation to the summary."""

    def __init__(self, run: RunDirectory, programs: Programs):
        self.run = run
        self.programs = programs
        self.config = load_config(run.config_file)
        self.stop = StopRequest()
        self.record = SupervisorRecord.of_this_process()
        self.record.write(run)
        self.events = EventsSince(run)

    def supervise(self) -> int:
        """Everything, in order; an error of the supervisor's own ends the run as failed rather than silently."""
        try:
            exit_code = self.prepare()
            if exit_code is None:
                exit_code = self.train()
            if exit_code == FINISHED:
                exit_code = self.summarize()
            return exit_code
        except Exception as error:
            traceback.print_exc()
            return self.fail(
                f"the supervisor failed: {ErrorRecord.of(error, rank=None).message}; see logs/supervisor.log"
            )

    def prepare(self) -> int | None:
        """Make the run's data ready; returns an exit code where the run ends here."""
        prepare_error_file(self.run).unlink(missing_ok=True)
        self.run.append_event("preparing")
        clock = Clock()
        clock.start()
        exit_code = self.run_program(self.programs.prepare, "prepare.log")
        progress_file(self.run).unlink(missing_ok=True)
        if self.stop.is_set:
            return self.stopped(f"{self.stop.reason} while the data was being prepared")
        if exit_code == 0:
            self.run.append_event("prepared", seconds=round(clock.elapsed_s, 1))
            return None
        if prepare_error_file(self.run).exists():
            failure = Failure.of(ErrorRecord.read(prepare_error_file(self.run)))
            shown = {"traceback": failure.traceback} if failure.is_curable else {}
            return self.fail(f"data preparation: {failure.reason}", **shown)
        return self.fail(f"data preparation ended with exit code {exit_code} and no error record; see logs/prepare.log")

    def train(self) -> int:
        """Attempt after attempt until the run's own record says finished or preempted, or no restart is left."""
        max_restarts = self.config.fault_tolerance.max_restarts
        attempt, restarts, best_step = 1, 0, newest_checkpoint_step(self.run)
        while True:
            failure = self.attempt(attempt)
            if self.events.last("finished"):
                return FINISHED
            if self.events.last("preempted"):
                return self.stop.exit_code
            if self.stop.is_set:
                return self.stopped(self.stop.reason)
            details = {key: getattr(failure, key) for key in ("host", "kind", "traceback")}
            self.run.append_event("rank_lost", rank=failure.rank, reason=failure.reason, **details)
            if not failure.is_curable:
                return self.fail(failure.reason)
            step = newest_checkpoint_step(self.run)
            if step is not None and (best_step is None or step > best_step):
                best_step, restarts = step, 0
            if restarts >= max_restarts:
                return self.fail(_no_restart_left(failure, max_restarts, step))
            attempt, restarts = attempt + 1, restarts + 1
            pause_s = min(2 ** (restarts - 1), LONGEST_PAUSE_S)
            self.run.append_event(
                "restarted", step=step or 0, restart=restarts, max_restarts=max_restarts, pause_s=pause_s
            )
            self.pause(pause_s)
            if self.stop.is_set:
                return self.stopped(self.stop.reason)

    def attempt(self, number: int) -> Failure | None:
        """One job, from start to end; the reason where it neither finished nor saved and left."""
        set_aside_error_files(self.run)
        scheduler, cluster = find_scheduler(self.config.cluster.scheduler), self.config.cluster
        command = scheduler.build_command(
            self.config, self.run.path, sys.executable, scheduler.find_starter(), self.programs.worker
        )
        environment = rank_environment(os.environ, cluster.num_processes, _num_cores(), python_path())
        log = self.run.logs / "mpirun.log"
        log_start = log.stat().st_size if log.exists() else 0
        job = RunningJob.start(command, log, environment, f"attempt {number}", self.record.job_mark)
        try:
            watch_training(job, self.run, self.events, self.stop, beat=lambda: beat(self.run))
        finally:
            job.kill()
        if self.events.last("finished", "preempted"):
            return None
        output = log.read_bytes()[log_start:].decode(errors="replace").partition("\n")[2]  # without the title
        return find_failure(self.run, job.process.returncode, output)

    def summarize(self) -> int:
        """Convert the newest checkpoint and write summary.txt, which the foreground shows."""
        log = self.run.logs / "summary.log"
        log.unlink(missing_ok=True)
        exit_code = self.run_program(self.programs.summary, log.name)
        if exit_code == 0:
            return FINISHED
        again = shlex.join(module_command(self.programs.summary, self.run.path))
        last_line = log.read_text(encoding="utf-8", errors="replace").splitlines()[-1]
        reason = self.stop.reason or f"exit code {exit_code}, {last_line} (logs/{log.name})"
        self.run.append_event(
            "summary_failed", reason=f"{reason}; the training is finished, do this part again: {again}"
        )
        return self.stop.exit_code if self.stop.is_set else FAILED

    def run_program(self, module: str, log_name: str) -> int:
        """Run a program beside the training to its end, or until a stop is asked for; returns its exit code."""
        environment = os.environ | {"PYTHONPATH": python_path()}
        command, log = module_command(module, self.run.path), self.run.logs / log_name
        job = RunningJob.start(command, log, environment, module, self.record.job_mark)
        try:
            while not job.is_over() and not self.stop.is_set:
                time.sleep(POLL_S)
                beat(self.run)
        finally:
            job.kill()
        return job.process.returncode

    def pause(self, seconds: float) -> None:
        """Wait, unless a stop is asked for."""
        clock = Clock()
        clock.start()
        while clock.elapsed_s < seconds and not self.stop.is_set:
            time.sleep(POLL_S)
            beat(self.run)

    def stopped(self, reason: str) -> int:
        """Record a stop that the processes themselves could not record."""
        self.run.append_event("preempted", step=newest_checkpoint_step(self.run) or 0, reason=reason)
        return self.stop.exit_code

    def fail(self, reason: str, **details) -> int:
        self.run.append_event("failed", reason=reason, **details)
        return FAILED


def _go_to_folder_of_submit(run: RunDirectory) -> None:
    """Relative paths of the configuration mean the folder that the run was submitted in, wherever it is resumed."""
    submitted = next((event for event in run.events() if event["event"] == "submitted"), {})
    if os.path.isdir(submitted.get("folder", "")):
        os.chdir(submitted["folder"])


def _no_restart_left(failure: Failure, max_restarts: int, step: int | None) -> str:
    where = "without any checkpoint" if step is None else f"with no checkpoint after step {step}"
    who = "" if failure.rank is None else f"rank {failure.rank}: "
    limit = (
        f"{max_restarts} restart{'s' * (max_restarts > 1)} in a row {where} (fault_tolerance.max_restarts)"
        if max_restarts
        else "no restarts"
    )
    return f"{limit}; the last failure: {who}{failure.reason}"


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
