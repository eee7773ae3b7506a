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
from launcher.health import check_node
from launcher.heartbeats import Heartbeats
from launcher.job_env import num_own_cores, rank_environment
from launcher.nodes import NodePool, TooFewNodes
from launcher.prepare_data import prepare_error_file, progress_file
from launcher.programs import Programs, module_command, python_path
from launcher.pulse import ADDRESS_VARIABLE
from launcher.recovery import GiveUp, Recovery
from launcher.rendezvous import own_address_towards
from launcher.run_lookup import submit_folder
from launcher.schedulers import find_scheduler, has_queue
from launcher.stop_request import StopRequest
from launcher.supervisor_record import SupervisorRecord, beat, hold_lock, is_supervised, read_supervisor
from launcher.watcher import Watcher
from robustbert.config import dump_config, load_config
from robustbert.run_directory import RunDirectory

FINISHED, FAILED = 0, 1  # exit codes; a stopped run's are in StopRequest
POLL_S = 0.1
LOCK_PATIENCE_S = 10.0  # for the command that has queued the run to let it go
CLOSING_TIMEOUT_S = 3.0  # from the end of a job until its processes' connections are closed, where they can be


def supervise(run: RunDirectory, programs: Programs, lock: int | None = None) -> int:
    """Run the run in `run.path` to its end; returns the exit code.

    `run.path` is absolute. 0 finished, 1 failed, 130 stopped by the user, 75 preempted (resume it). lock: the descriptor of the
    run's lock, where the command that started this process holds it. RunIsSupervised where another process supervises the run.
    """
    patience_s = 0.0 if is_supervised(run) else LOCK_PATIENCE_S
    with hold_lock(run, patience_s=patience_s, descriptor=lock):
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
        self.config_file = run.supervised_config_file(self.record.job_mark)
        for left_behind in run.path.glob(run.supervised_config_file("*").name):
            left_behind.unlink()
        self.config_file.write_text(dump_config(self.config), encoding="utf-8")
        self.events = EventsSince(run)
        self.scheduler = find_scheduler(self.config.cluster.scheduler)
        self.nodes = NodePool(
            self.config,
            self.scheduler.node_names(self.config.cluster),
            self.check_node,
            on_left_out=lambda node, reason: run.append_event("node_left_out", node=node, reason=reason),
        )
        self.watcher = Watcher(run, self.config, num_left_out=lambda: len(self.nodes.left_out))

    def supervise(self) -> int:
        """Everything, in order; an error of the supervisor's own ends the run as failed rather than silently."""
        try:
            self.watcher.start()
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
        finally:
            self.watcher.close()
            self.config_file.unlink(missing_ok=True)

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
        """Attempt after attempt until the run's own record says finished or preempted, or a restart does not help."""
        recovery = Recovery(self.config.fault_tolerance, self.nodes, newest_checkpoint_step(self.run))
        attempt = 1
        while True:
            try:
                nodes = self.nodes.choose()
            except TooFewNodes as error:
                return self.fail(str(error))
            failure = self.attempt(attempt, nodes)
            if self.events.last("finished"):
                return FINISHED
            if self.events.last("preempted"):
                return self.stop.exit_code
            if self.stop.is_set:
                return self.stopped(self.stop.reason)
            if failure.kind != "hang":  # that has its own event
                details = {key: getattr(failure, key) for key in ("host", "kind", "step", "traceback")}
                self.run.append_event("rank_lost", rank=failure.rank, reason=failure.reason, **details)
            step = newest_checkpoint_step(self.run)
            decision = recovery.decide(failure, step)
            if isinstance(decision, GiveUp):
                return self.fail(decision.reason)
            attempt += 1
            self.run.append_event(
                "restarted",
                step=step or 0,
                restart=decision.number,
                max_restarts=self.config.fault_tolerance.max_restarts,
                pause_s=decision.pause_s,
            )
            self.pause(decision.pause_s)
            if self.stop.is_set:
                return self.stopped(self.stop.reason)

    def attempt(self, number: int, nodes: list[str]) -> Failure | None:
        """One job on these nodes, from start to end; the reason where it neither finished nor saved and left."""
        set_aside_error_files(self.run)
        num_processes = len(nodes) * self.config.cluster.processes_per_node
        command = self.scheduler.build_command(
            self.config.cluster, self.run.path, sys.executable, self.scheduler.find_starter(), self.programs.worker, nodes
        )
        log = self.run.logs / "mpirun.log"
        log_start = log.stat().st_size if log.exists() else 0
        is_alone = nodes == ["localhost"]
        with Heartbeats(self.record.job_mark, "127.0.0.1" if is_alone else "") as heartbeats:
            environment = rank_environment(
                os.environ,
                num_processes // len(nodes),
                num_own_cores(),
                python_path(),
                in_allocation=has_queue(self.scheduler),
                attempt=number,
            )
            address = "127.0.0.1" if is_alone else own_address_towards(nodes)
            environment[ADDRESS_VARIABLE] = f"{address}:{heartbeats.port}"
            job = RunningJob.start(command, log, environment, f"attempt {number}", self.record.job_mark)
            try:
                self.watcher.attend(heartbeats, nodes)
                failure = watch_training(
                    job,
                    self.run,
                    self.events,
                    self.stop,
                    heartbeats,
                    self.config,
                    num_processes,
                    beat=self.beat,
                )
            finally:
                job.kill()
                self.watcher.attend(None, [])
            pulses = heartbeats.pulses_at_end(CLOSING_TIMEOUT_S)
        if failure is not None or self.events.last("finished", "preempted"):
            return failure
        output = log.read_bytes()[log_start:].decode(errors="replace").partition("\n")[2]  # without the title
        return find_failure(self.run, job.process.returncode, output, pulses)

    def check_node(self, node: str) -> str | None:
        """What is wrong with a node of several."""
        return check_node(
            lambda command: self.scheduler.remote_command(self.config.cluster, node, command),
            python_path(),
            self.run.path,
            self.record.job_mark,
        )

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
        command = [*module_command(module, self.run.path), str(self.config_file)]
        log = self.run.logs / log_name
        job = RunningJob.start(command, log, environment, module, self.record.job_mark)
        try:
            while not job.is_over() and not self.stop.is_set:
                time.sleep(POLL_S)
                self.beat()
        finally:
            job.kill()
        return job.process.returncode

    def pause(self, seconds: float) -> None:
        """Wait, unless a stop is asked for."""
        clock = Clock()
        clock.start()
        while clock.elapsed_s < seconds and not self.stop.is_set:
            time.sleep(POLL_S)
            self.beat()

    def beat(self) -> None:
        """What is done all the time, whatever the run waits for."""
        beat(self.run)
        self.watcher.tick()

    def stopped(self, reason: str) -> int:
        """Record a stop that the processes themselves could not record."""
        self.run.append_event("preempted", step=newest_checkpoint_step(self.run) or 0, reason=reason)
        return self.stop.exit_code

    def fail(self, reason: str, **details) -> int:
        self.run.append_event("failed", reason=reason, **details)
        return FAILED


def _go_to_folder_of_submit(run: RunDirectory) -> None:
    """Relative paths of the configuration mean the folder that the run was submitted in, wherever it is resumed."""
    if folder := submit_folder(run):
        os.chdir(folder)
