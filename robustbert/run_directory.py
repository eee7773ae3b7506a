"""A run's directory: where each file of a run lies, and its event log and metrics as lines of JSON.

Imports no torch: the launcher, the training processes and the reports all read runs through it.
"""

import contextlib
import errno
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunDirectory:
    """The files of the run at `path` (they need not exist yet)."""

    path: Path

    @property
    def config_file(self) -> Path:
        return self.path / "config.yaml"

    @property
    def events_file(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def data(self) -> Path:
        return self.path / "data"

    @property
    def converted(self) -> Path:
        return self.path / "converted"

    def rank_log(self, rank: int) -> Path:
        """Standard output and error of one process."""
        return self.logs / f"rank_{rank:05d}.log"

    def rank_error(self, rank: int) -> Path:
        """Written by a process that fails: JSON with rank, host, time and traceback."""
        return self.logs / f"rank_{rank:05d}.error.json"

    def append_event(self, event: str, **fields) -> None:
        """Add one line to events.jsonl; every line has `time` (seconds since 1970) and `event`."""
        _append_line(self.events_file, {"time": round(time.time(), 3), "event": event, **fields})

    def append_metrics(self, record: dict) -> None:
        """Add one line to metrics.jsonl."""
        _append_line(self.metrics_file, record)

    def events(self) -> list[dict]:
        """All events so far, oldest first."""
        return list(read_json_lines(self.events_file))

    def metrics(self) -> list[dict]:
        """All logged steps so far, oldest first."""
        return list(read_json_lines(self.metrics_file))


def read_json_lines(path: Path) -> Iterator[dict]:
    """The complete lines of a JSON-lines file; one that is still being written, or was cut short by a full disk, is left out."""
    if not path.exists():
        return
    with open(path, "rb") as file:
        for line in file:
            if line.endswith(b"\n") and line.strip():
                with contextlib.suppress(ValueError):
                    yield json.loads(line)


def say_error(text: str) -> None:
    """A line on standard error, wherever that goes; a log that cannot be written is no reason to end a run."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def _append_line(path: Path, record: dict) -> None:
    """Add a line. A disk that is full or out of reach costs the line, not the run; a folder that is missing is an error."""
    line = (json.dumps(record, allow_nan=True) + "\n").encode()
    try:
        # One write in append mode: lines of several processes do not mix.
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            is_cut = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            written = os.write(descriptor, b"\n" + line if is_cut else line)
            if written < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise
    except OSError as error:
        say_error(f"{path} cannot be written ({error.strerror}), lost: {line.decode().rstrip()}")
