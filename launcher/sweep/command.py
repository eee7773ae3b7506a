"""`launcher sweep`: makes a sweep or takes one up, runs what is missing, and says what became of it."""

import argparse
import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from launcher.processes_per_node import check_gpus
from launcher.programs import Programs, python_path
from launcher.schedulers import find_scheduler, has_queue
from launcher.stop_request import StopRequest
from launcher.supervisor_record import SupervisorRecord, hold_lock, is_supervised, read_supervisor
from launcher.sweep import array
from launcher.sweep.folder import Member, Sweep, read_sweep
from launcher.sweep.grid import build_grid, created
from launcher.sweep.pool import Pool, Slot, make_slots, member_command
from launcher.sweep.progress import Count, build_view, describe_sweep
from robustbert.config import AUTO, ClusterConfig, ConfigError, load_section

START_TIMEOUT_S = 30.0


def sweep(options: argparse.Namespace, programs: Programs) -> int:
    """Run a sweep's missing members; 0 where all have succeeded, 1 where not, 130 after Ctrl-C, 143 after SIGTERM. Errors leave nothing behind."""
    if options.parallel is not None and options.parallel < 1:
        raise ConfigError(f"--parallel must be above 0, it is {options.parallel}")
    scheduler = [f"cluster.scheduler={options.scheduler}"] if options.scheduler else []
    if Path(options.target).is_dir():
        if options.over:
            raise ConfigError(f"{options.target} is a sweep's folder, its members are made already; --over belongs to a configuration's file")
        known = read_sweep(Path(options.target).absolute())
        if options.status:
            print(describe_sweep(known, array.queue_of(known)))
            return 0
        if options.cancel:
            return _cancel(known)
        return _run(known, load_section(ClusterConfig, "cluster", known.cluster, [*options.overrides, *scheduler]), options)
    if not options.over:
        raise ConfigError(f"{options.target} is no sweep's folder; of a configuration's file say what to try: --over optim.lr=[1e-4,4e-4]")
    grid = build_grid(options.target, [*options.overrides, *scheduler], options.over, options.folder, programs, options.parallel or 1)
    cluster = load_section(ClusterConfig, "cluster", grid.sweep.cluster)
    if options.dry_run:
        return _run(grid.sweep, cluster, options)
    _check(cluster, options)
    with created(grid) as made:
        print(f"sweep of {len(made.members)} runs in {made.path}", flush=True)
        submitted = _submit(made, cluster, options) if has_queue(find_scheduler(cluster.scheduler)) else None
    return _run(made, cluster, options, submitted)


def _check(cluster: ClusterConfig, options: argparse.Namespace) -> None:
    """ConfigError where the scheduler cannot run the members."""
    scheduler = find_scheduler(cluster.scheduler)
    scheduler.check(cluster)
    if cluster.processes_per_node == AUTO:
        raise ConfigError("cluster.processes_per_node: auto is resolved when a sweep is made; its members have their number, leave it out")
    check_gpus(cluster)
    if cluster.scheduler == "mpi" and cluster.nodes > 1 and (options.parallel or 1) > 1:
        raise ConfigError(f"runs of cluster.nodes={cluster.nodes} hosts go one after the other; leave --parallel out")


def _run(sweep: Sweep, cluster: ClusterConfig, options: argparse.Namespace, submitted: array.SubmittedArray | None = None) -> int:
    _check(cluster, options)
    missing = sweep.missing()
    is_queued = has_queue(find_scheduler(cluster.scheduler))
    if options.dry_run:
        print(_describe(sweep, missing, cluster, options))
        return 0
    if not missing:
        print(f"{sweep.title}: all {len(sweep.members)} members are done")
        return 0
    if is_queued:
        submitted = submitted or _submit(sweep, cluster, options)
        stop = None if options.detach else _watch(sweep, submitted, missing)
        if options.detach or stop is None:
            print(f"it goes on as job {submitted.job}; look: launcher sweep {shlex.quote(str(sweep.path))} --status")
            return 0
    elif options.detach:
        return _start_in_background(sweep, options)
    else:
        stop = _run_here(sweep, missing, cluster, options)
    return _conclude(sweep, stop)


def _submit(sweep: Sweep, cluster: ClusterConfig, options: argparse.Namespace) -> array.SubmittedArray:
    """The array that is in the queue already, or a new one of the missing members."""
    with _be_the_only_one(sweep):
        known = array.read_array(sweep)
        if known and array.queue_of(sweep):
            print(f"job {known.job} is in the queue already", flush=True)
            return known
        submitted = array.submit_array(sweep, sweep.missing(), cluster, options.parallel)
    print(f"{len(submitted.members)} members are in the queue as job {submitted.job}", flush=True)
    return submitted


def _watch(sweep: Sweep, submitted: array.SubmittedArray, missing: list[Member]) -> StopRequest | None:
    """None where the watching ended before the members."""
    stop = StopRequest()
    count = Count(len(sweep.members), len(sweep.members) - len(missing))
    with build_view(count) as view:
        return stop if array.watch_array(sweep, submitted, view, stop) else None


def _run_here(sweep: Sweep, missing: list[Member], cluster: ClusterConfig, options: argparse.Namespace) -> StopRequest:
    with _be_the_only_one(sweep):
        stop = StopRequest()
        SupervisorRecord.of_this_process().write(sweep)
        count = Count(len(sweep.members), len(sweep.members) - len(missing))
        with build_view(count) as view:
            Pool(sweep, missing, _slots(cluster, options), cluster, view).run(stop)
    return stop


def _slots(cluster: ClusterConfig, options: argparse.Namespace) -> list[Slot]:
    by_host = cluster.scheduler == "mpi" and cluster.nodes == 1
    hosts = find_scheduler("mpi").node_names(cluster) if by_host else [None]
    return make_slots(hosts, options.parallel or 1, cluster.gpus_per_node)


def _conclude(sweep: Sweep, stop: StopRequest) -> int:
    missing = sweep.missing()
    again = f"launcher sweep {shlex.quote(str(sweep.path))}"
    if not missing:
        print(f"all {len(sweep.members)} members are done")
        return 0
    failed = [member.name for member in missing if (done := member.read_done()) and not done.stopped]
    words = f"{len(sweep.members) - len(missing)} of {len(sweep.members)} members are done"
    names = f", {len(failed)} failed: {' '.join(failed[:10])}{' ...' if len(failed) > 10 else ''}" if failed else ""
    print(f"{words}{names}; go on with the others: {again}")
    return 128 + stop.number if stop.is_set else 1


def _describe(sweep: Sweep, missing: list[Member], cluster: ClusterConfig, options: argparse.Namespace) -> str:
    """For a dry run: the members, and the commands that would start them."""
    lines = [f"sweep:    {sweep.path}", f"members:  {len(missing)} of {len(sweep.members)} to run, in {sweep.folder}"]
    lines += [f"  {member.name}: {shlex.join(member.command)}" for member in missing]
    if has_queue(find_scheduler(cluster.scheduler)):
        command, script = array.array_job(sweep, missing, cluster, options.parallel)
        return "\n".join([*lines, array.describe_array(command, script, sweep.path)])
    slots, per_host = _slots(cluster, options), (options.parallel or 1) * cluster.processes_per_node
    lines.append(f"{len(slots)} at once, for instance with:")
    started = zip(missing, slots)
    lines += [f"  {shlex.join(member_command(sweep.path, member, slot, cluster, per_host))}" for member, slot in started]
    return "\n".join(lines)


def _cancel(sweep: Sweep) -> int:
    """Have a sweep's members stop, wherever they run; does not wait for their end."""
    record, queue = read_supervisor(sweep), array.queue_of(sweep)
    if queue:
        job = array.read_array(sweep).job
        find_scheduler("slurm").cancel_array(job, now=False)
        print(f"job {job} is told to stop")
    elif not is_supervised(sweep):
        print(f"{sweep.title}: is not running")
    elif not record.runs_here:
        raise ConfigError(f"{sweep.path} is run by {record.host}; cancel it there: launcher sweep {sweep.path} --cancel")
    else:
        os.kill(record.pid, signal.SIGINT)
        print(f"its members are told to stop (pid {record.pid})")
    return 0


def _start_in_background(sweep: Sweep, options: argparse.Namespace) -> int:
    words = [sys.executable, "-m", "launcher", "sweep", str(sweep.path)]
    words += [f"--scheduler={options.scheduler}"] if options.scheduler else []
    words += [f"--parallel={options.parallel}"] if options.parallel else []
    words += options.overrides if Path(options.target).is_dir() else []  # sweep.json has a configuration's
    log = sweep.path / "sweep.log"
    with open(log, "a", encoding="utf-8") as file:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ | {"PYTHONPATH": python_path()},
        )
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        record = read_supervisor(sweep)
        if record is not None and record.pid == process.pid:
            break
        time.sleep(0.02)
    if process.poll():
        print(log.read_text(encoding="utf-8").splitlines()[-1], file=sys.stderr)
        return process.returncode
    print(f"it goes on in the background (pid {process.pid}), its log is {log}\n  look    launcher sweep {shlex.quote(str(sweep.path))} --status")
    return 0


@contextlib.contextmanager
def _be_the_only_one(sweep: Sweep) -> Iterator[None]:
    record = read_supervisor(sweep)
    who = f" by {record.host}, pid {record.pid}" if record else ""
    with hold_lock(sweep, f"{sweep.path} is being run{who}; look: launcher sweep {sweep.path} --status"):
        yield
