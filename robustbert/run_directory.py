"""A run's directory: where each file of a run lies, and its event log and metrics as lines of JSON.

Imports no torch: the launcher, the training processes and the reports all read runs through it.
"""

import time
from dataclasses import dataclass
from pathlib import Path

from robustbert.json_lines import append_line, read_json_lines


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

    def supervised_config_file(self, job_mark: str) -> Path:
        """The configuration that the processes of one supervision read: config.yaml as it was when that began.

        Another name each time: a file system that shows other hosts an older directory does not show them an older file.
        """
        return self.path / f"supervised.{job_mark[:12]}.yaml"

    def rank_log(self, rank: int) -> Path:
        """Standard output and error of one process."""
        return self.logs / f"rank_{rank:05d}.log"

    def rank_error(self, rank: int) -> Path:
        """Written by a process that fails: JSON with rank, host, time and traceback."""
        return self.logs / f"rank_{rank:05d}.error.json"

    def append_event(self, event: str, **fields) -> None:
        """Add one line to events.jsonl; every line has `time` (seconds since 1970) and `event`."""
        append_line(self.events_file, {"time": round(time.time(), 3), "event": event, **fields})

    def append_metrics(self, record: dict) -> None:
        """Add one line to metrics.jsonl."""
        append_line(self.metrics_file, record)

    def events(self) -> list[dict]:
        """All events so far, oldest first."""
        return list(read_json_lines(self.events_file))

    def metrics(self) -> list[dict]:
        """All logged steps so far, oldest first."""
        return list(read_json_lines(self.metrics_file))
