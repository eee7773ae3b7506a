"""`launcher status`, `logs`, `cancel` and `signal`: looks at runs and stops them, from any terminal."""

import argparse
import os
import shlex
import signal
import time
from pathlib import Path

from launcher.event_text import event_line
from launcher.processes import identity
from launcher.progress import LineView, RunFeed
from launcher.queue import cancel_in_queue, signal_in_queue
from launcher.run_lookup import find_run
from launcher.run_status import RunStatus, all_runs, queue_state, read_status, status_table, way_on
from launcher.stop_request import StopRequest
from launcher.stragglers import held_stragglers
from launcher.supervisor_record import SupervisorRecord, is_supervised, read_supervisor
from robustbert.config import ConfigError, load_config
from robustbert.durations import duration
from robustbert.run_directory import RunDirectory

NUM_EVENTS = 8
POLL_S = 0.2
QUEUE_POLL_S = 1.0
KILL_TIMEOUT_S = 20.0


def status(options: argparse.Namespace) -> int:
    """One run with its last events, or a table of all runs."""
    if options.run is None:
        statuses = [read_status(run) for run in all_runs(Path(options.dir))]
        print(status_table(statuses) if statuses else f"no runs in {options.dir}")
        return 0
    print(describe(read_status(find_run(options.run, Path(options.dir)))))
    return 0


def describe(status: RunStatus) -> str:
    """A run's state in full: the table's line, the reason of its end, its last events, what to type next."""
    lines = [status_table([status]), ""]
    lines.append(f"directory   {status.run.path}")
    checkpoint = "none yet" if status.checkpoint_step is None else f"step {status.checkpoint_step}"
    lines.append(f"checkpoint  {checkpoint}")
    if status.detail:
        lines.append(f"{status.state:11} {status.detail}")
    for event in held_stragglers(status.run.events()):
        who = f"rank {event['rank']} on {event['host']}"
        lines.append(f"slow        {who}: {event['ratio']} times its stage's median, since step {event['step']}")
    lines.append(f"next        {way_on(status)}")
    lines.append("")
    for event in status.run.events()[-NUM_EVENTS:]:
        if line := event_line(event):
            lines.append(f"{time.strftime('%m-%d %H:%M:%S', time.localtime(event['time']))}  {line}")
    return "\n".join(lines)


def logs(options: argparse.Namespace) -> int:
    """The end of every log of a run, or one rank's whole log; --follow goes on until the run ends or Ctrl-C."""
    run = find_run(options.run, Path(options.dir))
    paths = [run.rank_log(options.rank)] if options.rank is not None else sorted(run.logs.glob("*.log"))
    if options.rank is not None and not paths[0].exists():
        known = [int(path.stem.removeprefix("rank_")) for path in sorted(run.logs.glob("rank_*.log"))]
        there = f"ranks with a log: {known[0]} to {known[-1]}" if known else "no rank has written yet"
        if not (options.follow and is_supervised(run)):
            raise ConfigError(f"no log of rank {options.rank} in {run.logs}; {there}")
    tails = {path: _TextTail(path, None if options.rank is not None else options.lines) for path in paths}
    _print_news(tails)
    try:
        while options.follow and is_supervised(run):
            time.sleep(POLL_S)
            if options.rank is None:
                for path in sorted(run.logs.glob("*.log")):
                    tails.setdefault(path, _TextTail(path, None))
            _print_news(tails)
    except KeyboardInterrupt:
        return 0
    _print_news(tails)
    return 0


def cancel(options: argparse.Namespace) -> int:
    """Stop a run: it saves a checkpoint first, unless --now; waits until it has stopped and shows what happens."""
    run = find_run(options.run, Path(options.dir))
    record = read_supervisor(run)
    before = read_status(run)
    if job := cancel_in_queue(run, options.now):
        return _show_end_of_job(run, job, before)
    if not before.is_alive:
        num_killed = record.kill_leftover_job() if record else 0
        left = f"; ended {num_killed} processes that its killed supervisor had left" if num_killed else ""
        print(f"run {before.name} is not running: {before.in_words()}{left}")
        return 0
    _require_here(run, record, "cancel")
    grace_s = load_config(run.config_file).fault_tolerance.stop_grace_s
    feed = RunFeed(run)
    os.kill(record.pid, signal.SIGQUIT if options.now else signal.SIGINT)
    print(
        "killing" if options.now else f"stopping after saving a checkpoint ({grace_s} s at most)", flush=True
    )
    deadline = time.monotonic() + KILL_TIMEOUT_S + (0 if options.now else grace_s)
    with LineView(feed, before.total_steps or 0) as view:
        while identity(record.pid) == record.identity and time.monotonic() < deadline:
            view.update()
            time.sleep(POLL_S)
        view.update()
    if identity(record.pid) == record.identity:
        raise ConfigError(
            f"run {before.name!r} has not stopped in {duration(deadline)}; kill it: launcher cancel {run.path} --now"
        )
    after = read_status(run)
    print(f"run {after.name}: {after.in_words()}; {way_on(after)}")
    return 0


def send_signal(options: argparse.Namespace) -> int:
    """Send a signal to the supervisor of a run, wherever that runs; does not wait. ConfigError where the run is not running."""
    run = find_run(options.run, Path(options.dir))
    number = signal.Signals["SIGUSR1" if options.signal == "notice" else f"SIG{options.signal.removeprefix('SIG')}"]
    _, exit_code = StopRequest.REASONS[number]
    if job := signal_in_queue(run, number):
        where = f"the supervisor of job {job}"
    else:
        before, record = read_status(run), read_supervisor(run)
        if not before.is_alive:
            raise ConfigError(f"run {before.name!r} is not running: {before.in_words()}; {way_on(before)}")
        _require_here(run, record, "signal", options.signal)
        os.kill(record.pid, number)
        where = f"the supervisor (pid {record.pid})"
    print(f"run {run.path.name}: {number.name} sent to {where}, which saves a checkpoint and ends with exit code {exit_code}")
    return 0


def _require_here(run: RunDirectory, record: SupervisorRecord, verb: str, *arguments: str) -> None:
    if not record.runs_here:
        again = shlex.join(["launcher", verb, str(run.path.resolve()), *arguments])
        raise ConfigError(f"run {run.path.name!r} is supervised on {record.host}; {verb} it there: {again}")


def _show_end_of_job(run: RunDirectory, job: str, before: RunStatus) -> int:
    """Wait until a scheduler's job has ended and show what happens; gives up watching, not cancelling, after a time."""
    grace_s = load_config(run.config_file).fault_tolerance.stop_grace_s
    print(f"job {job} is told to stop", flush=True)
    deadline = time.monotonic() + KILL_TIMEOUT_S + grace_s
    with LineView(RunFeed(run), before.total_steps or 0) as view:
        while queue_state(run) is not None and time.monotonic() < deadline:
            view.update()
            time.sleep(QUEUE_POLL_S)
        view.update()
    after = read_status(run)
    print(f"run {after.name}: {after.in_words()}; {way_on(after)}")
    return 0


class _TextTail:
    """What is added to a text file; begins with its last `num_lines`, all of it where that is None or 0."""

    def __init__(self, path: Path, num_lines: int | None):
        self.path = path
        self._num_lines = num_lines
        self._offset = 0

    def new_text(self) -> str:
        try:
            with open(self.path, "rb") as file:
                file.seek(self._offset)
                text = file.read()
        except FileNotFoundError:
            return ""
        first = self._offset == 0
        self._offset += len(text)
        lines = text.decode(errors="replace").splitlines(keepends=True)
        return "".join(lines[-self._num_lines :] if first and self._num_lines else lines)


def _print_news(tails: dict[Path, _TextTail]) -> None:
    for path, tail in tails.items():
        if text := tail.new_text():
            title = f"==> {path.name} <==\n" if len(tails) > 1 else ""
            print(title + text, end="" if text.endswith("\n") else "\n", flush=True)
