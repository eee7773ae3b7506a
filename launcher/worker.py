"""One process of a training job: `python -m launcher.worker RUN_DIR`, started by mpirun, srun or torchrun.

Finds its rank, sends its output to its own log, meets the others, and trains. When it fails it writes an error
record and leaves at once, so that the starter ends the others.
"""

import contextlib
import dataclasses
import faulthandler
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from launcher.error_record import ErrorRecord
from launcher.job_env import find_attempt, find_host, find_job_mark, find_rank
from launcher.processes import die_with_parent
from launcher.pulse import Pulse
from launcher.rendezvous import find_job
from robustbert.config import RunConfig, load_config
from robustbert.job import Job
from robustbert.json_lines import say_error
from robustbert.progress import Progress
from robustbert.run_directory import RunDirectory


def main(argv: list[str], train: Callable[[RunConfig, Job, RunDirectory], str] | None = None) -> None:
    """Train the run in argv[0]; never returns: the process exits with 0, or with 1 after writing its error record."""
    run = RunDirectory(Path(argv[0]))
    place = find_rank(os.environ)
    rank = place.rank
    die_with_parent()
    # Until training listens, a request to stop is ignored rather than fatal: the supervisor repeats it.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    _send_output_to(run.rank_log(rank))
    faulthandler.enable()
    warnings.filterwarnings("ignore", module="megatron")  # at its import it warns about all that could be installed
    host, started = find_host(os.environ), time.strftime("%Y-%m-%d %H:%M:%S")
    say_error(f"=== rank {rank} of {place.world_size} on {host}, pid {os.getpid()}, {started}")
    exit_code = 1
    progress = Progress()
    pulse = Pulse(rank, progress, os.environ, on_lost=lambda reason: _record_lost(run, rank, reason, progress.step))
    pulse.start()
    try:
        config = load_config(find_config(run, find_job_mark(os.environ)))
        pulse.silence_timeout_s = config.fault_tolerance.silence_timeout_s
        job = find_job(config.fault_tolerance.silence_timeout_s)
        job = dataclasses.replace(job, progress=progress, attempt=max(job.attempt, find_attempt(os.environ)))
        if job.local_rank == 0 and config.monitoring.prometheus_port is not None:
            pulse.start_exporter(config.monitoring)
        if train is None:
            from robustbert.train.pretrain import pretrain as train
        outcome = train(config, job, run)
        say_error(f"rank {rank}: {outcome}")
        exit_code = 0
    except BaseException as error:  # also SystemExit: whatever ends this process early ends the job
        record = ErrorRecord.of(error, rank, progress.step)
        say_error(record.traceback)
        record.write(run.rank_error(rank))
    finally:
        pulse.say_goodbye()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(exit_code)  # not through atexit, where threads of a broken process group may hang


def find_config(run: RunDirectory, job_mark: str | None) -> Path:
    """One configuration for all processes of a supervision, whatever becomes of config.yaml; by hand it is config.yaml."""
    supervised = None if job_mark is None else run.supervised_config_file(job_mark)
    return run.config_file if supervised is None or not supervised.exists() else supervised


def _record_lost(run: RunDirectory, rank: int, reason: str, step: int | None) -> None:
    record = ErrorRecord(rank, find_host(os.environ), time.time(), "lost", reason, "", step)
    with contextlib.suppress(OSError):  # the run's directory may be out of reach as well
        record.write(run.rank_error(rank))


def _send_output_to(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    os.close(log)
    sys.stdout.reconfigure(line_buffering=True)


if __name__ == "__main__":
    main(sys.argv[1:])
