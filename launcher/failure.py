"""Why a job failed: the process that was first to go, by its error record, its last sign of life, and mpirun's words."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from launcher.error_record import ErrorRecord
from launcher.hang import name_ranks
from launcher.heartbeats import RankPulse
from launcher.pulse import PERIOD_S
from robustbert.run_directory import RunDirectory

# What mpirun prints about the first process that it lost, and about a host.
_KILLED_RANK = re.compile(
    r"process\s+rank\s+(\d+)\s+with\s+PID\s+\d+\s+on\s+node\s+(\S+)\s+exited\s+on\s+signal\s+(\d+)\s+\(([^)]*)\)"
)
_LEFT_RANK = re.compile(r"Process name: \[.*?,(\d+)\]\s+Exit code:\s+(\d+)")
_BUG_SIGNALS = {"4", "6", "7", "8", "11"}  # illegal instruction, abort, bus error, arithmetic, segmentation
_SECONDARY = re.compile(r"Connection|connection|timed out|Timeout|Gloo|gloo|NCCL|nccl|Broken pipe|DistBackendError|DistStoreError")
_TOGETHER_S = 2.0  # processes of a node that go within this time went with it
_SILENT_S = 3 * PERIOD_S


@dataclass(frozen=True)
class Failure:
    """The culprit: rank None where no single process is to blame.

    kind: as in ErrorRecord, or "signal", "hang", "lost" (a node, or a process without a word).
    """

    reason: str
    rank: int | None = None
    host: str | None = None
    kind: str = "error"
    traceback: str | None = None
    step: int | None = None
    hosts: tuple[str, ...] = field(default=())  # of several culprits

    @property
    def is_curable(self) -> bool:
        """Whether a restart can help; it cannot against a configuration or data that cannot be used."""
        return self.kind != "user"

    @property
    def culprit_hosts(self) -> tuple[str, ...]:
        return self.hosts or ((self.host,) if self.host else ())

    @property
    def bug(self) -> tuple | None:
        """What identifies a bug: the same at the same step twice is one that no restart cures. None for all else."""
        is_own = self.kind in ("error", "oom") and self.traceback and not _SECONDARY.search(self.reason)
        is_own = is_own or (self.kind == "signal" and self.reason.split()[3] in _BUG_SIGNALS)
        return (self.kind, self.rank, self.reason, self.step) if is_own and self.step is not None else None

    @classmethod
    def of(cls, record: ErrorRecord) -> "Failure":
        return cls(record.message, record.rank, record.host, record.kind, record.traceback or None, record.step)


def find_failure(run: RunDirectory, exit_code: int, starter_output: str, pulses: dict[int, RankPulse] | None = None) -> Failure:
    """The failure of a job that ended without `finished` or `preempted` in the run's events.

    A process that was killed writes no record, and the others' records then tell of a lost connection: so the first
    process that mpirun lost to a signal comes before them, and so does one whose signs of life ended first.
    """
    pulses = pulses or {}
    records = sorted((ErrorRecord.read(path) for path in error_files(run)), key=lambda record: record.time)
    with_record = {record.rank for record in records}
    killed = _KILLED_RANK.search(starter_output)
    if killed and int(killed[1]) not in with_record:
        rank = int(killed[1])
        hint = "; the kernel kills so where memory runs out, see dmesg" if killed[3] == "9" else ""
        host, step = (pulses[rank].host, pulses[rank].step) if rank in pulses else (killed[2], None)
        return Failure(f"ended by signal {killed[3]} ({killed[4]}){hint}", rank, host, "signal", step=step)
    if any(record.kind in ("user", "corruption") for record in records):
        return Failure.of(next(record for record in records if record.kind in ("user", "corruption")))
    vanished = _first_vanished(pulses, with_record)
    if vanished is not None:
        return vanished
    if records:
        return Failure.of(next((record for record in records if not _SECONDARY.search(record.message)), records[0]))
    left = _LEFT_RANK.search(starter_output)
    if left:
        return Failure(f"left with exit code {left[2]} and no error record; see its log", int(left[1]))
    last_line = next(
        (line.strip() for line in reversed(starter_output.splitlines()) if line.strip(" -\t")), "no output"
    )
    return Failure(f"the processes ended (exit code {exit_code}) without finishing; mpirun's last line: {last_line}")


def error_files(run: RunDirectory) -> list[Path]:
    """The error records of the present attempt."""
    return sorted(run.logs.glob("rank_*.error.json"))


def set_aside_error_files(run: RunDirectory) -> None:
    """Rename the records of earlier attempts, so that they are not taken for those of the next one."""
    for path in error_files(run):
        number = 1
        while (former := path.with_name(path.name.replace(".error.json", f".error.{number:03d}.json"))).exists():
            number += 1
        path.rename(former)


def _first_vanished(pulses: dict[int, RankPulse], with_record: set[int]) -> Failure | None:
    """The node or process whose signs of life ended first, where it left neither a record of why nor by itself."""
    newest = max((pulse.heard_at for pulse in pulses.values()), default=0.0)
    # After the end of a job only a process that is out of reach still seems connected: nobody could say that it closed.
    gone_at = {
        rank: pulse.lost_at if pulse.lost_at is not None and newest - pulse.heard_at < _SILENT_S else pulse.heard_at
        for rank, pulse in pulses.items()
    }
    if not gone_at:
        return None
    first = pulses[min(gone_at, key=gone_at.get)]
    if first.rank in with_record or first.has_left:
        return None
    of_host = [pulse.rank for pulse in pulses.values() if pulse.host == first.host]
    with_it = [r for r in of_host if gone_at[r] - gone_at[first.rank] < _TOGETHER_S and r not in with_record]
    if with_it == of_host and len(of_host) < len(pulses):
        return Failure(f"node {first.host} is lost ({name_ranks(sorted(of_host))})", None, first.host, "lost", step=first.step)
    return Failure("ended without a word: killed, or out of reach", first.rank, first.host, "lost", step=first.step)
