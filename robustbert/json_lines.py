"""Files of JSON lines that several processes add to and others follow: events.jsonl, metrics.jsonl."""

import contextlib
import errno
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path


def read_json_lines(path: Path) -> Iterator[dict]:
    """The complete lines of a JSON-lines file; one that is still being written, or was cut short by a full disk, is left out."""
    if not path.exists():
        return
    with open(path, "rb") as file:
        for line in file:
            if line.endswith(b"\n") and (record := _parse(line)) is not None:
                yield record


def say_error(text: str) -> None:
    """A line on standard error, wherever that goes; a log that cannot be written is no reason to end a run."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def append_line(path: Path, record: dict) -> None:
    """Add a line. A disk that is full or out of reach costs the line, not the run; a folder that is missing is an error."""
    line = (json.dumps(record, allow_nan=True) + "\n").encode()
    try:
        # One write in append mode: lines of several processes do not mix.
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
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


class JsonTail:
    """The lines of a file that may not exist yet, in order, each once, without reading the whole file again."""

    def __init__(self, path: Path, from_end: bool = False):
        self._path = path
        self._offset = path.stat().st_size if from_end and path.exists() else 0

    def new_lines(self) -> list[dict]:
        """The complete lines since the last call; one that is not JSON is left out."""
        try:
            if self._path.stat().st_size == self._offset:
                return []
            with open(self._path, "rb") as file:
                file.seek(self._offset)
                text = file.read()
        except FileNotFoundError:
            return []
        complete = text[: text.rfind(b"\n") + 1]
        self._offset += len(complete)
        return [record for line in complete.splitlines() if (record := _parse(line)) is not None]


def last_lines(path: Path, num_bytes: int = 16384) -> list[dict]:
    """The last complete lines of a file, those within its last `num_bytes`, oldest first."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            start = max(0, size - num_bytes)
            file.seek(start)
            text = file.read()
    except FileNotFoundError:
        return []
    lines = text[: text.rfind(b"\n") + 1].splitlines()
    return [record for line in lines[1 if start else 0 :] if (record := _parse(line)) is not None]


def _parse(line: bytes) -> dict | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
