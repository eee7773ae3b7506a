"""How far a preparation is: PREFIX.journal, from which the same command goes on after any interruption.

A JSON line that says what is being prepared, then one for each state that the disk holds for certain. Whoever has the
journal open holds its lock.
"""

import fcntl
import json
import os
from pathlib import Path

from robustbert.data.errors import DataError

_FORMAT = "robustbert journal 1"


class Journal:
    """The journal of one preparation; a context manager.

    identity: what is prepared, and with what. state: the newest state of an earlier run of it, None where there is none.
    DataError: another process has it open, it cannot be written, or an earlier run of another identity left its work
    (unless `overwrite`: then that is forgotten).
    """

    def __init__(self, path: Path, identity: dict, overwrite: bool = False):
        self.path = path
        identity = json.loads(json.dumps({"format": _FORMAT} | identity))  # as it will be read
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "ab+")
        except OSError as error:
            raise DataError(f"{path}: cannot be written ({error}); choose another place for the data") from None
        try:
            self._lock()
            before, self.state = self._read()
            if before != identity and overwrite:
                self.state = None
            if before != identity and self.state is not None:
                raise DataError(
                    f"{path}: an interrupted preparation of another source, with another tokenizer or other options lies there; "
                    "run its command again to end it, pass --overwrite to drop it, or choose another output"
                )
            if before != identity or self.state is None:
                self._file.truncate(0)
                self.append(identity)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_exception) -> None:
        self._file.close()

    def append(self, state: dict) -> None:
        """Add a state, and bring it to the disk."""
        self._file.write(json.dumps(state).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def delete(self) -> None:
        """Remove the journal: nothing is left to go on from."""
        self.path.unlink(missing_ok=True)

    def _read(self) -> tuple[dict | None, dict | None]:
        """The identity and the newest state; a last line that was not written to its end is cut off."""
        self._file.seek(0)
        identity, state, size = None, None, 0
        for line in self._file:
            if not line.endswith(b"\n"):
                break
            try:
                content = json.loads(line)
            except ValueError:
                break
            size += len(line)
            if identity is None:
                identity = content
            else:
                state = content
        self._file.truncate(size)
        return identity, state

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.stat(self.path).st_ino != os.fstat(self._file.fileno()).st_ino:
                raise BlockingIOError
        except (BlockingIOError, FileNotFoundError):
            raise DataError(
                f"{self.path}: another process is writing this corpus; wait for it, or choose another output"
            ) from None
        except OSError:
            pass  # a file system without locks
