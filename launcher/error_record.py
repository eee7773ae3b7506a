"""What a failing process leaves behind: one JSON file with who, where, when, which kind of error, and its traceback."""

import json
import os
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path

from launcher.job_env import find_host


@dataclass(frozen=True)
class ErrorRecord:
    """kind: "user" (a restart cannot cure it), "oom", "corruption", "lost" (cut off from the supervisor), or "error".

    message: one line; step: the training step it happened in, None before the first one.
    """

    rank: int | None
    host: str
    time: float
    kind: str
    message: str
    traceback: str
    step: int | None = None

    @classmethod
    def of(cls, error: BaseException, rank: int | None, step: int | None = None) -> "ErrorRecord":
        """The record of an exception that was caught in this process."""
        text = "".join(traceback.format_exception(error))
        name = type(error).__name__
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else ""
        kind = error_kind(error)
        message = first_line if kind == "user" and first_line else f"{name}: {first_line}".rstrip(": ")
        return cls(rank, find_host(os.environ), time.time(), kind, message, text, step)

    def write(self, path: Path) -> None:
        """Write the file in one step: who reads it never sees a half."""
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")
        draft.replace(path)

    @classmethod
    def read(cls, path: Path) -> "ErrorRecord":
        """The record in a file; keys that this version does not know are left out."""
        tree = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{key: tree.get(key) for key in cls.__dataclass_fields__})


def error_kind(error: BaseException) -> str:
    """`user` for a ValueError (configuration or data that cannot be used), `oom`, `corruption`, else `error`."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {"MemoryError", "OutOfMemoryError"} or "can't allocate memory" in str(error):
        return "oom"
    if "ReplicasDiffer" in names:
        return "corruption"
    return "user" if isinstance(error, ValueError) else "error"
