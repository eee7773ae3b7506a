"""A run's directory: where each file of a run lies, and its event log and metrics as lines of JSON.

Imports no torch: the launcher, the training processes and the reports all read runs through it.
"""

import json
import os
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
    """The complete lines of a JSON-lines file; a last line that is still being written is left out."""
    if not path.exists():
        return
    with open(path, "rb") as file:
        for line in file:
            if line.endswith(b"\n") and line.strip():
                yield json.loads(line)


def _append_line(path: Path, record: dict) -> None:
    # One write in append mode: lines of several processes do not mix.
    line = json.dumps(record, allow_nan=True) + "\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)
