"""Members of a sweep on this machine or on hosts: so many at once on each, until none is left."""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from launcher.processes import die_with_parent
from launcher.programs import python_path
from launcher.schedulers import mpi
from launcher.stop_request import StopRequest
from launcher.supervisor_record import SupervisorRecord, beat, read_supervisor
from launcher.sweep.folder import Done, Member, Sweep
from launcher.sweep.member import RUNS_ALREADY
from launcher.sweep.progress import LineView
from robustbert.config import ClusterConfig

POLL_S = 0.1
_REMOTE_TIMEOUT_S = 30


@dataclass(frozen=True)
class Slot:
    """A place for one member at a time. host: None is this machine; devices: for CUDA_VISIBLE_DEVICES, None leaves that alone."""

    host: str | None
    devices: str | None = None


@dataclass
class _Task:
    """A member that has been started; the former ones are the records of its last attempt. told: the signals sent to it."""

    member: Member
    slot: Slot
    process: subprocess.Popen
    output: BinaryIO
    former_done: Done | None
    former_record: SupervisorRecord | None
    told: set[signal.Signals] = field(default_factory=set)


def make_slots(hosts: list[str | None], per_host: int, gpus_per_node: int | None) -> list[Slot]:
    """`per_host` slots on each host, host after host so that few members spread; GPUs are shared out evenly."""
    devices: list[str | None] = [None] * per_host
    if gpus_per_node:
        share = max(1, gpus_per_node // per_host)
        starts = [place * share % gpus_per_node for place in range(per_host)]
        devices = [",".join(str(number) for number in range(start, start + share)) for start in starts]
    return [Slot(host, devices[place]) for place in range(per_host) for host in hosts]


def member_command(sweep_path: Path, member: Member, slot: Slot, cluster: ClusterConfig, share: int) -> list[str]:
    """What starts a member in a slot. share: how many processes share the host's cores."""
    words = [sys.executable, "-m", "launcher.sweep.member", str(sweep_path), str(member.number), f"--share={share}"]
    words += [f"--devices={slot.devices}"] if slot.devices is not None else []
    threads = [f"OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']}"] if "OMP_NUM_THREADS" in os.environ else []
    words = ["env", f"PYTHONPATH={python_path()}", *threads, *words]
    return words if slot.host is None else mpi.remote_command(cluster, slot.host, [shlex.quote(word) for word in words])


class Pool:
    """Runs `waiting` members over the slots; a host that cannot be reached gives its member back and is left out."""

    def __init__(self, sweep: Sweep, waiting: list[Member], slots: list[Slot], cluster: ClusterConfig, view: LineView):
        self.sweep, self.cluster, self.view = sweep, cluster, view
        self.waiting, self.free = deque(waiting), deque(slots)
        self.running: list[_Task] = []
        self.left_out: set[str] = set()
        self._share = max(1, len(slots) // len({slot.host for slot in slots})) * cluster.processes_per_node

    def run(self, stop: StopRequest) -> None:
        """Return when no member runs and none can be started; a stop ends those that run."""
        while self.running or (self.waiting and self.free):
            while self.waiting and self.free and not stop.is_set:
                self._start(self.waiting.popleft(), self.free.popleft())
            if stop.is_set:
                self.waiting.clear()
                for task in self.running:
                    self._tell(task, signal.SIGQUIT if stop.kill_at_once else signal.SIGINT)
            self.view.update([task.member.name for task in self.running])
            time.sleep(POLL_S)
            beat(self.sweep)
            for task in [task for task in self.running if task.process.poll() is not None]:
                self.running.remove(task)
                self._end(task)

    def _start(self, member: Member, slot: Slot) -> None:
        output = tempfile.TemporaryFile()
        former = member.read_done(), read_supervisor(member)
        process = subprocess.Popen(
            member_command(self.sweep.path, member, slot, self.cluster, self._share),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # the terminal's Ctrl-C does not reach it
            preexec_fn=lambda: die_with_parent(signal.SIGTERM),
        )
        self.running.append(_Task(member, slot, process, output, *former))

    def _end(self, task: _Task) -> None:
        with task.output:
            task.output.seek(0)
            lines = task.output.read().decode(errors="replace").strip().splitlines()
        words = lines[-1] if lines else f"exit code {task.process.returncode}"
        done, host = task.member.read_done(), task.slot.host
        if done is not None and (done != task.former_done or done.is_success):
            self.view.ended(task.member, done)
        elif task.process.returncode == RUNS_ALREADY:
            holder = read_supervisor(task.member)
            self.view.say(f"{task.member.name}: runs already{f' on {holder.host}, pid {holder.pid}' if holder else ''}; not started again")
        elif host is None or task.told:
            self.view.say(f"{task.member.name}: ended without a record: {words}")
        else:
            self.view.say(f"{task.member.name}: {host} gave no record, it is left out: {words}")
            self.left_out.add(host)
            self.waiting.appendleft(task.member)
        if host not in self.left_out:
            self.free.append(task.slot)
        self.free = deque(slot for slot in self.free if slot.host not in self.left_out)

    def _tell(self, task: _Task, number: signal.Signals) -> None:
        """Send a signal, once, to what runs the member, wherever it is; on another host as soon as its pid is known."""
        record = read_supervisor(task.member)
        if number in task.told or (task.slot.host is not None and record == task.former_record):
            return
        task.told.add(number)
        if task.slot.host is None:
            task.process.send_signal(number)
            return
        words = mpi.remote_command(self.cluster, task.slot.host, ["kill", f"-{number.name[3:]}", str(record.pid)])
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=_REMOTE_TIMEOUT_S)
