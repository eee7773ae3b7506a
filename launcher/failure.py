"""Why a job failed: finds the rank that failed first in the error records, mpirun's words and its exit code."""

import re
from dataclasses import dataclass
from pathlib import Path

from launcher.error_record import ErrorRecord
from robustbert.run_directory import RunDirectory

# What mpirun prints about the first process that it lost.
_KILLED_RANK = re.compile(
    r"process\s+rank\s+(\d+)\s+with\s+PID\s+\d+\s+on\s+node\s+(\S+)\s+exited\s+on\s+signal\s+(\d+)\s+\(([^)]*)\)"
)
_LEFT_RANK = re.compile(r"Process name: \[.*?,(\d+)\]\s+Exit code:\s+(\d+)")


@dataclass(frozen=True)
class Failure:
    """The culprit: rank None where no single process is to blame; kind as in ErrorRecord."""

    reason: str
    rank: int | None = None
    host: str | None = None
    kind: str = "error"
    traceback: str | None = None

    @property
    def is_curable(self) -> bool:
        """Whether a restart can help; it cannot against a configuration or data that cannot be used."""
        return self.kind != "user"

    @classmethod
    def of(cls, record: ErrorRecord) -> "Failure":
        return cls(record.message, record.rank, record.host, record.kind, record.traceback)


def find_failure(run: RunDirectory, exit_code: int, starter_output: str) -> Failure:
    """The failure of a job that ended without `finished` or `preempted` in the run's events.

    A process that was killed writes no record, and the others' records then tell of a lost connection: so the
    first process that mpirun lost to a signal comes before them.
    """
    records = sorted((ErrorRecord.read(path) for path in error_files(run)), key=lambda record: record.time)
    killed = _KILLED_RANK.search(starter_output)
    if killed and int(killed[1]) not in {record.rank for record in records}:
        hint = "; the kernel kills so where memory runs out, see dmesg" if killed[3] == "9" else ""
        return Failure(f"ended by signal {killed[3]} ({killed[4]}){hint}", int(killed[1]), killed[2])
    if records:
        return Failure.of(records[0])
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
