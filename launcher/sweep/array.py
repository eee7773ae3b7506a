"""Members of a sweep as the tasks of one Slurm job array: each a job with nodes of its own."""

import json
import shlex
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from launcher.programs import python_path
from launcher.schedulers import slurm
from launcher.stop_request import StopRequest
from launcher.sweep.folder import Done, Member, Sweep
from launcher.sweep.progress import LineView
from robustbert.config import ClusterConfig

POLL_S = 1.0
GONE_AFTER_S = 5.0  # a task that the queue does not know any more, until its record is seen on a shared file system


@dataclass(frozen=True)
class SubmittedArray:
    """The newest array of a sweep. members: number -> when its former attempt had started, None where there was none."""

    job: str
    members: dict[int, float | None]

    def write(self, sweep: Sweep) -> None:
        _array_file(sweep).write_text(json.dumps({"job": self.job, "members": self.members}) + "\n", encoding="utf-8")

    def new_record(self, member: Member) -> Done | None:
        """How the member ended in this array; None before."""
        done = member.read_done()
        return done if done is not None and (done.is_success or done.started != self.members[member.number]) else None


def read_array(sweep: Sweep) -> SubmittedArray | None:
    """The newest array of the sweep, in the queue or not."""
    try:
        tree = json.loads(_array_file(sweep).read_text(encoding="utf-8"))
        return SubmittedArray(tree["job"], {int(number): started for number, started in tree["members"].items()})
    except (OSError, ValueError, KeyError):
        return None


def queue_of(sweep: Sweep) -> dict[int, str]:
    """What Slurm says of the sweep's members that it still knows."""
    array = read_array(sweep)
    return slurm.array_states(array.job) if array else {}


def array_job(sweep: Sweep, missing: list[Member], cluster: ClusterConfig, at_once: int | None) -> tuple[list[str], str]:
    """The sbatch command and its script; pure. The script goes to FOLDER/array.sh."""
    numbers = [member.number for member in missing]
    script = sweep.path / "array.sh"
    command = slurm.build_array_submission(cluster, sweep.path.name, numbers, at_once, script, sweep.folder, sweep.of_runs)
    return command, slurm.build_script([sys.executable, "-m", "launcher.sweep.member", str(sweep.path)], python_path())


def describe_array(command: list[str], script: str, path: Path) -> str:
    """For a dry run."""
    indented = "\n".join(f"  {line}" for line in script.rstrip().splitlines())
    return f"submitted with:\n  {shlex.join(command)}\n{path / 'array.sh'}:\n{indented}"


def submit_array(sweep: Sweep, missing: list[Member], cluster: ClusterConfig, at_once: int | None) -> SubmittedArray:
    """Put the members into the queue. ConfigError with Slurm's words where it refuses."""
    command, script = array_job(sweep, missing, cluster, at_once)
    (sweep.path / "logs").mkdir(exist_ok=True)
    (sweep.path / "array.sh").write_text(script)
    array = SubmittedArray(slurm.submit(command), {m.number: (d.started if (d := m.read_done()) else None) for m in missing})
    array.write(sweep)
    for member in missing:
        if member.run is not None:  # `launcher status` and `cancel` find the task by it
            member.run.append_event("queued", job=f"{array.job}_{member.number}", scheduler="slurm")
    return array


def watch_array(sweep: Sweep, array: SubmittedArray, view: LineView, stop: StopRequest) -> bool:
    """Show the members' ends until the queue knows none of them any more; whether it was watched to its end.

    Ctrl-C takes the array out of the queue (running members are asked to stop, the second time killed) and goes on watching.
    SIGTERM and a closed terminal end the watching alone.
    """
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    watched = [member for member in sweep.members if member.number in array.members]
    gone_since: dict[int, float] = {}
    told: set[bool] = set()
    while watched:
        if stop.is_set and stop.number is not signal.SIGINT:
            return False
        if stop.is_set and stop.kill_at_once not in told:
            told.add(stop.kill_at_once)
            slurm.cancel_array(array.job, now=stop.kill_at_once)
        states = slurm.array_states(array.job)
        for member in list(watched):
            done = array.new_record(member)
            if done is not None and (done.is_success or member.number not in states):  # what is requeued has not ended
                view.ended(member, done)
                watched.remove(member)
            elif member.number not in states:
                since = gone_since.setdefault(member.number, time.monotonic())
                if time.monotonic() - since > GONE_AFTER_S:
                    view.say(f"{member.name}: has left the queue without a record; Slurm's log is in {sweep.path / 'logs'}")
                    watched.remove(member)
            else:
                gone_since.pop(member.number, None)
        view.update([member.name for member in watched if states.get(member.number, "").startswith("RUNNING")])
        time.sleep(POLL_S)
    return True


def _array_file(sweep: Sweep) -> Path:
    return sweep.path / "array.json"
