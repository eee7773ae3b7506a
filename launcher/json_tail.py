"""Reads what is added to a JSON-lines file, as `tail -f` does, without reading the whole file again."""

import json
from pathlib import Path


class JsonTail:
    """The lines of a file that may not exist yet, in order, each once."""

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
