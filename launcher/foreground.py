"""The foreground of a run: starts its supervisor in the background, shows how it goes, passes Ctrl-C on."""

import contextlib
import os
import signal
import subprocess
import sys
import time

from launcher.programs import Programs, python_path
from launcher.progress import RunFeed, build_view
from launcher.run_status import read_status, way_on, ways_to_follow
from launcher.supervisor_record import RunLock, read_supervisor
from robustbert.config import RunConfig
from robustbert.interruption import Terminated
from robustbert.run_directory import RunDirectory

REFRESH_S = 0.2
START_TIMEOUT_S = 30.0
_TOLD_BY_EVENTS = (1, 75, 130)  # exit codes of a supervisor whose events say what happened


def run_in_foreground(run: RunDirectory, config: RunConfig, programs: Programs, lock: RunLock) -> int:
    """Supervise the run in a process of its own, show its progress until it ends; returns its exit code.

    lock: the run's, which the supervisor takes over.
    """
    feed = RunFeed(run)
    supervisor = _start_supervisor(run, programs, lock)
    try:
        with build_view(feed, config.train.steps) as view, _Interrupts(supervisor, view.say, config.fault_tolerance.stop_grace_s):
            while supervisor.poll() is None:
                view.update()
                time.sleep(REFRESH_S)
            view.update()
    except (KeyboardInterrupt, Terminated):  # before _Interrupts took over
        supervisor.send_signal(signal.SIGINT)
        raise
    status = read_status(run)
    if supervisor.returncode == 0:
        _show_summary(run)
    elif supervisor.returncode not in _TOLD_BY_EVENTS or status.state == "interrupted":
        print(_last_words(run), file=sys.stderr)
    if not status.is_alive and status.state != "finished":
        print(f"resume it: {way_on(status)}")
    return supervisor.returncode if supervisor.returncode >= 0 else 128 - supervisor.returncode


def run_in_background(run: RunDirectory, programs: Programs, lock: RunLock) -> int:
    """Start the run's supervisor, wait until it has taken over the lock and the run, and say how to follow it."""
    supervisor = _start_supervisor(run, programs, lock)
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and supervisor.poll() is None:
        record = read_supervisor(run)
        if record is not None and record.pid == supervisor.pid:
            break
        time.sleep(0.02)
    if supervisor.poll():
        print(_last_words(run), file=sys.stderr)
        return supervisor.returncode
    print(f"run {run.path.name} goes on in the background (pid {supervisor.pid})\n{ways_to_follow(run)}")
    return 0


def _start_supervisor(run: RunDirectory, programs: Programs, lock: RunLock) -> subprocess.Popen:
    """A process in a session of its own: neither the terminal's end nor its Ctrl-C reaches it. It holds the lock from now on."""
    run.logs.mkdir(exist_ok=True)
    held = ["--lock", str(lock.descriptor)]
    with open(run.logs / "supervisor.log", "a", encoding="utf-8") as log:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "launcher", "supervise", str(run.path.absolute()), *held, *programs.as_options()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(lock.descriptor,),
            env=os.environ | {"PYTHONPATH": python_path()},
        )
    lock.release()
    return supervisor


class _Interrupts:
    """Ctrl-C while a run is shown: the first asks it to stop after a checkpoint, the second kills it."""

    def __init__(self, supervisor: subprocess.Popen, say, grace_s: int):
        self._grace_s = grace_s
        self._supervisor, self._say = supervisor, say
        self._num_interrupts = 0
        self._former: dict = {}

    def __enter__(self):
        for number, handler in ((signal.SIGINT, self._interrupt), (signal.SIGTERM, self._terminate)):
            self._former[number] = signal.signal(number, handler)
        return self

    def __exit__(self, *exception):
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _interrupt(self, number, frame) -> None:
        self._num_interrupts += 1
        if self._num_interrupts == 1:
            self._say(f"stopping after saving a checkpoint ({self._grace_s} s at most); press Ctrl-C again to kill")
            self._pass_on(signal.SIGINT)
        else:
            self._say("killing")
            self._pass_on(signal.SIGQUIT)

    def _terminate(self, number, frame) -> None:
        self._say("asked to end (SIGTERM): stopping after saving a checkpoint")
        self._pass_on(signal.SIGTERM)

    def _pass_on(self, number: int) -> None:
        if self._supervisor.poll() is None:
            self._supervisor.send_signal(number)


def _show_summary(run: RunDirectory) -> None:
    with contextlib.suppress(FileNotFoundError):
        print((run.path / "summary.txt").read_text(encoding="utf-8").rstrip(), flush=True)


def _last_words(run: RunDirectory, num_lines: int = 15) -> str:
    text = (run.logs / "supervisor.log").read_text(encoding="utf-8", errors="replace")
    return "\n".join(text.splitlines()[-num_lines:])
